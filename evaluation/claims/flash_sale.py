"""The load of claims 5 and 6: a flash sale, offered in an open loop."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from evaluation.claims.orders import apply_line, new_promo, popular_lines
from evaluation.lab import OBSERVED, OURS, Lab, internals
from evaluation.load.offered import Offered
from evaluation.processes import Variant
from evaluation.trends import percentile

KEPT = "flash sale"
CONNECTIONS = 256
WARM_UP_SECONDS = 2
# Of a hundred requests, these many are for other codes than the one on sale.
TAIL = 10
PERCENTILES = (50.0, 75.0, 90.0, 95.0, 99.0, 99.9)


@dataclass(frozen=True, slots=True)
class Rush:
    """What was offered, what mongod's CPU and the pools had to do with it."""

    seen: Offered
    mongod_share: float
    documents_examined: int
    pools: list[dict[str, int]]

    def figures(self) -> dict[str, Any]:
        """Return what is kept in the report."""
        latencies = [one.latency_ms for one in self.seen.requests]
        answers = max(1, len(self.seen.answers))
        return {
            "asked_rate": self.seen.asked_rate,
            "sent_rate": self.seen.sent_rate,
            "answered_rate": self.seen.answered_rate,
            "requests": len(latencies),
            "outcomes": dict(self.seen.outcomes),
            "percentiles": {str(p): percentile(latencies, p) for p in PERCENTILES},
            "worst_ms": max(latencies),
            "by_second": _by_second(self.seen),
            "mongod_share_of_a_core": self.mongod_share,
            "mongod_ms": self.mongod_share * 1e3 * self.seen.seconds / answers,
            "documents_examined": self.documents_examined / answers,
            "pools": self.pools,
        }


def lines(lab: Lab, variant: Variant = OURS) -> list[str]:
    """Make the requests: nine of ten for one new code, the others for popular ones."""
    hot = apply_line(new_promo(lab.database(variant), "FLASH")["code"])
    tail = popular_lines("apply", lab.scale.codes, 20 * TAIL)
    return [line for other in tail for line in [hot] * (100 // TAIL - 1) + [other]]


def rush(lab: Lab) -> Rush:
    """Hold the sale; once for all claims."""
    if KEPT not in lab.kept:
        lab.kept[KEPT] = _rush(lab)
    done: Rush = lab.kept[KEPT]
    return done


def _rush(lab: Lab) -> Rush:
    scale, asked = lab.scale, lines(lab)
    with lab.service(OBSERVED) as service:
        warm_up = int(scale.flash_rate / 2 * WARM_UP_SECONDS)
        lab.offer(service, asked, warm_up, rate=scale.flash_rate / 2, connections=CONNECTIONS)
        before, examined = lab.mongod_cpu(), _examined(lab)
        requests = int(scale.flash_rate * scale.flash_seconds)
        seen = lab.offer(service, asked, requests, rate=scale.flash_rate, connections=CONNECTIONS)
        used = lab.mongod_cpu() - before
        examined = _examined(lab) - examined
        pools = [one["pool"] for one in internals(service)]
    return Rush(seen, used / seen.seconds, examined, pools)


def _examined(lab: Lab) -> int:
    """Return how many documents mongod has looked at so far to answer queries."""
    status = lab.client.admin.command("serverStatus")
    return int(status["metrics"]["queryExecutor"]["scannedObjects"])


def _by_second(seen: Offered) -> dict[str, list[float]]:
    seconds: dict[int, list[float]] = {}
    for one in seen.requests:
        seconds.setdefault(int(one.due), []).append(one.latency_ms)
    return {
        "second": [float(second) for second in seconds],
        "p50": [percentile(values, 50) for values in seconds.values()],
        "p99": [percentile(values, 99) for values in seconds.values()],
    }
