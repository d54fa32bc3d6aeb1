"""Claim 5: the peak rate, without a pool error."""

from __future__ import annotations

from typing import Any

from evaluation.claims import flash_sale
from evaluation.claims.claim import Before, Claim, Finding, Unclear, counted, unexpected
from evaluation.lab import LEGACY, Lab
from evaluation.scale import Scale

RIGHT = ("200",)
# The generator shares the cores with what it measures, and may be a little late.
OFFERED_SHARE = 0.99


def judge(figures: dict[str, Any]) -> list[str]:
    """Return what contradicts the claim."""
    problems = unexpected(figures["outcomes"], RIGHT, "not every request got its use")
    if figures["sent_rate"] < OFFERED_SHARE * figures["asked_rate"]:
        problems.append(Unclear(f"only {figures['sent_rate']:,.0f}/s were offered"))
    for name, meaning in (
        ("failed", "operations got no connection"),
        ("waited", "operations had to wait for a connection"),
    ):
        if total := sum(pool[name] for pool in figures["pools"]):
            problems.append(f"{total:,} {meaning}")
    return problems


def measure(lab: Lab) -> Finding:
    """Offer the peak rate to the service."""
    figures = flash_sale.rush(lab).figures()
    most = max(pool["most_in_use"] for pool in figures["pools"])
    measured = (
        f"{figures['sent_rate']:,.0f}/s offered, {figures['answered_rate']:,.0f}/s answered, "
        f"{_outcomes(figures)}; p95 {figures['percentiles']['95.0']:.1f} ms, slowest "
        f"{figures['worst_ms']:,.0f} ms; at most {most} connections in use per process"
    )
    return Finding(measured, judge(figures), figures)


def _outcomes(figures: dict[str, Any]) -> str:
    if set(figures["outcomes"]) == set(RIGHT):
        return f"all {figures['requests']:,} granted"
    return counted(figures["outcomes"])


def before(lab: Lab, _figures: dict[str, Any]) -> Before:
    """Offer the same rate to the legacy service, for as long as patience is."""
    seconds = min(lab.scale.flash_seconds, lab.scale.patience)
    requests = int(lab.scale.flash_rate * seconds)
    with lab.service(LEGACY) as service:
        asked = flash_sale.lines(lab, LEGACY)
        seen = lab.offer(
            service, asked, requests, rate=lab.scale.flash_rate, connections=flash_sale.CONNECTIONS
        )
        lab.abandon(service)
    lab.rest()
    answered = len(seen.answers)
    return Before(
        f"{answered:,} of {requests:,} requests answered {lab.scale.patience:.0f} s after the last "
        f"of them was sent at {lab.scale.flash_rate:,.0f}/s",
        {"requests": requests, "outcomes": dict(seen.outcomes), "answered": answered},
    )


def _bound(scale: Scale) -> str:
    return (
        f"{scale.flash_rate:,.0f}/s really offered for {scale.flash_seconds:.0f} s, all of them "
        "granted; no operation fails to get a connection, or waits for one"
    )


CLAIM = Claim(
    number=5,
    name="The peak",
    statement="2,000 requests a second for 60 s, without a pool error or wait-queue timeout.",
    method=(
        "Requests are sent when they are due, whether or not answers come (an open loop), and "
        "timed from when they were due, so that a stall cannot hide. Nine of ten ask for the code "
        "on sale, the others for popular codes; every user is new. The driver itself reports "
        "every operation that does not get a connection at once."
    ),
    bound=_bound,
    measure=measure,
    before=before,
)
