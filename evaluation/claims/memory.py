"""Claim 3: nothing grows, however many requests there are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import psutil

from evaluation.claims.claim import Before, Claim, Finding, Unclear, unexpected
from evaluation.claims.orders import apply_line, new_promo
from evaluation.claims.soak import ITEMS, RATE, RIGHT, UNAVAILABLE, WARM_UP_SHARE, Samples, soak
from evaluation.lab import LEGACY_ON_NOTHING, OBSERVED, Lab, leaking
from evaluation.scale import Scale
from evaluation.trends import Trend, trend

LEGACY_SEGMENTS = 8
# Played as fast as answers come, with hundreds of connections, a busy machine refuses some in good
# time. They are no growth, and are said; that none is refused is for the other claims.
REFUSED_SHARE = 0.05


def after_warm_up(samples: Samples, name: str) -> Trend:
    """Fit a line through what a resource was after warm-up; by request."""
    begin = samples.requests[-1] * WARM_UP_SHARE
    kept = [n for n, requests in enumerate(samples.requests) if requests > begin]
    values = getattr(samples, name)
    return trend([samples.requests[n] for n in kept], [values[n] for n in kept])


def judge(samples: Samples, leak: Trend, scale: Scale) -> list[str]:
    """Return what contradicts the claim; a leak that is not seen makes the rest worth nothing."""
    problems: list[str] = []
    resident = after_warm_up(samples, "resident")
    if resident.upper >= scale.soak_bytes:
        text = f"memory may grow by {resident.upper:.2f} bytes a request"
        problems.append(_growth(resident, text))
    for name in ITEMS:
        items = after_warm_up(samples, name)
        if items.upper >= scale.soak_items:
            problems.append(_growth(items, f"{name} may grow by {items.upper:.2g} a request"))
    refused = samples.outcomes[UNAVAILABLE] < REFUSED_SHARE * samples.requests[-1]
    right = RIGHT | {UNAVAILABLE} if refused else RIGHT
    problems += unexpected(samples.outcomes, right, "answers that nobody should get")
    if leak.lower <= scale.soak_bytes:
        text = f"the planted leak was not detected ({leak.lower:.0f} to {leak.upper:.0f} bytes)"
        problems.append(Unclear(text) if leak.slope > scale.soak_bytes else text)
    return problems


def _growth(found: Trend, text: str) -> str:
    # What may as well not grow at all is not told from a step, which chance puts anywhere.
    return Unclear(text) if found.lower <= 0 else text


def measure(lab: Lab) -> Finding:
    """Soak the service, then the same service with a leak."""
    scale = lab.scale
    with lab.service(OBSERVED) as service:
        rate = RATE if scale.real_time else None
        samples = soak(lab, service, scale.soak_requests, rate, lab.say)
    with lab.service(leaking(scale.leak_bytes)) as service:
        leaked = soak(lab, service, scale.leak_requests, None, _saying_leak(lab))
    leak = after_warm_up(leaked, "resident")
    trends = {name: after_warm_up(samples, name) for name in ("resident", *ITEMS)}
    return Finding(
        _measured(trends, leak, samples, scale),
        judge(samples, leak, scale),
        {
            "service": _plain(samples) | {"trends": {k: asdict(t) for k, t in trends.items()}},
            "leak": _plain(leaked) | {"trends": {"resident": asdict(leak)}},
        },
    )


def before(lab: Lab, _figures: dict[str, Any]) -> Before:
    """Soak the legacy service."""
    samples = _soak_legacy(lab)
    growth = after_warm_up(samples, "resident")
    return Before(
        f"grows by {growth.slope * 1e5 / 1e6:.0f} MB per 100,000 requests, and never shrinks",
        _plain(samples) | {"trends": {"resident": asdict(growth)}},
    )


def _saying_leak(lab: Lab) -> Callable[[str], None]:
    return lambda text: lab.say(f"with a leak: {text}")


def _measured(trends: dict[str, Trend], leak: Trend, samples: Samples, scale: Scale) -> str:
    resident = trends["resident"]
    ends = ", ".join(f"{name} {getattr(samples, name)[-1]}" for name in ITEMS)
    refused = samples.outcomes[UNAVAILABLE]
    late = f"; {refused:,} answered {UNAVAILABLE}" if refused else ""
    return (
        f"{resident.slope:+.3f} bytes a request over {samples.requests[-1]:,} requests "
        f"(95% bounds {resident.lower:+.3f} to {resident.upper:+.3f}); at the end: {ends}; "
        f"the planted leak of {scale.leak_bytes:,} bytes is seen as {leak.slope:,.0f}{late}"
    )


def _plain(samples: Samples) -> dict[str, Any]:
    return asdict(samples) | {"outcomes": dict(samples.outcomes)}


def _soak_legacy(lab: Lab) -> Samples:
    """Play new orders of new codes; what is recorded is deleted, so that it can go on at all."""
    samples, database = Samples(), lab.database(LEGACY_ON_NOTHING)
    segment = lab.scale.legacy_soak_requests // LEGACY_SEGMENTS
    with lab.service(LEGACY_ON_NOTHING) as service:
        for number in range(1, LEGACY_SEGMENTS + 1):
            code = new_promo(database, "SOAK")["code"]
            seen = lab.offer(service, [apply_line(code)], segment, connections=16, drain=120)
            samples.outcomes.update(seen.outcomes)
            samples.requests.append(number * segment)
            samples.resident.append(_resident(service.processes[1:]))
            database["promo_usage"].delete_many({})
            lab.say(f"legacy: {number * segment:,} requests")
    return samples


def _resident(workers: list[psutil.Process]) -> int:
    return sum(int(worker.memory_info().rss) for worker in workers)


def _bound(scale: Scale) -> str:
    return (
        f"95% upper bound of the slope under {scale.soak_bytes:g} bytes a request; of open files, "
        f"greenlets and connections under 1 in {1 / scale.soak_items:,.0f} requests; a leak of "
        f"{scale.leak_bytes:,} bytes is detected"
    )


CLAIM = Claim(
    number=3,
    name="Memory over a day",
    statement="Nothing grows over the requests of eight hours at the normal load.",
    method=(
        "A day's mixture (new users, popular and new codes, validations, repeated orders, sold-out "
        "and expired codes, wrong codes, bodies and paths) is played in segments. After each one, "
        "resident memory (garbage collected), open files, live greenlets "
        "and database connections of all workers are read at rest, and a line is fitted through "
        "all but the first quarter. The bounds of its slope allow for samples that resemble each "
        "other. The same is done with a service that leaks on purpose."
    ),
    bound=_bound,
    measure=measure,
    before=before,
)
