"""The legacy service against the new one: the same requests, data and machine."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from evaluation.claims.orders import popular_lines
from evaluation.lab import LEGACY, OURS, Lab
from evaluation.load.offered import Offered
from evaluation.processes import Variant
from evaluation.trends import percentile

GRANTED = "200"
CLIENTS = 32
LEGACY_APPLIES = 10
APPLIES = 300
# More than 32 clients can get through while anybody waits.
PLENTY = 100_000


@dataclass(frozen=True, slots=True)
class Applies:
    """Applies of popular codes: one client after the other, and 32 at a time."""

    median_ms: float | None
    mongod_ms: float | None
    at_32_clients: float
    answered_at_32: int


def measure(lab: Lab) -> dict[str, Any]:
    """Measure both services; each for as long as patience is, at most."""
    ours = _applies(lab, OURS, APPLIES)
    legacy = _applies(lab, LEGACY, LEGACY_APPLIES)
    return {"ours": asdict(ours), "legacy": asdict(legacy), "seconds": lab.scale.patience}


def _applies(lab: Lab, variant: Variant, number: int) -> Applies:
    lines = popular_lines("apply", lab.scale.codes)
    with lab.service(variant) as service:
        lab.offer(service, lines, 2, connections=1)
        before = lab.mongod_cpu()
        lone = _granted(lab.offer(service, lines, number, connections=1))
        used = lab.mongod_cpu() - before
        many = lab.offer(service, lines, PLENTY, connections=CLIENTS)
        lab.abandon(service)
    lab.rest()
    answered = len(_granted(many))
    return Applies(
        median_ms=percentile(lone, 50) if lone else None,
        mongod_ms=used * 1e3 / len(lone) if lone else None,
        at_32_clients=answered / many.seconds,
        answered_at_32=answered,
    )


def _granted(seen: Offered) -> list[float]:
    return [one.latency_ms for one in seen.requests if one.outcome == GRANTED]
