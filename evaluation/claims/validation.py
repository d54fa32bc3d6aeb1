"""Claim 2: how long one validation takes, alone and under the normal load."""

from __future__ import annotations

from statistics import median
from typing import Any

from evaluation.claims.claim import Before, Claim, Finding, Unclear, unexpected
from evaluation.claims.orders import popular_lines
from evaluation.lab import LEGACY, Lab
from evaluation.load.offered import Offered
from evaluation.scale import Scale
from evaluation.trends import percentile, windowed_percentile

RATE = 50.0
BOUND_MS = 100.0
WINDOWS = 5
CONNECTIONS = 16
LEGACY_APPLIES = 10
RIGHT = ("200",)


def summarise(seen: Offered) -> dict[str, Any]:
    """Return the figures of a load; an answer that never came counts with the time waited."""
    latencies = [one.latency_ms for one in seen.requests]
    return {
        "requests": len(latencies),
        "answered": len(seen.answers),
        "outcomes": dict(seen.outcomes),
        "p50": percentile(latencies, 50),
        "p95": windowed_percentile(latencies, 95, WINDOWS),
        "p99": percentile(latencies, 99),
        "due": [round(one.due, 3) for one in seen.requests],
        "latency_ms": [round(latency, 3) for latency in latencies],
    }


def judge(figures: dict[str, Any], name: str) -> list[str]:
    """Return what contradicts the claim."""
    problems: list[str] = []
    if figures["p95"] >= BOUND_MS:
        problems.append(Unclear(f"{name}: p95 is {figures['p95']:.1f} ms"))
    return problems + unexpected(figures["outcomes"], RIGHT, name)


def measure(lab: Lab) -> Finding:
    """Validate popular codes one after the other, then 50 a second."""
    lines = popular_lines("validate", lab.scale.codes)
    with lab.service() as service:
        lab.offer(service, lines, 50, connections=CONNECTIONS)  # warms up
        number = lab.scale.lone_requests
        # Twice as long as the bound allows: what is too slow is seen to end.
        slow = 2 * number * BOUND_MS / 1e3
        lone = summarise(lab.offer(service, lines, number, connections=1, drain=slow))
        requests = int(RATE * lab.scale.normal_seconds)
        seen = lab.offer(service, lines, requests, rate=RATE, connections=CONNECTIONS)
        normal = summarise(seen)
    measured = f"p95 {lone['p95']:.1f} ms alone, {normal['p95']:.1f} ms at {RATE:.0f}/s"
    problems = judge(lone, "alone") + judge(normal, f"at {RATE:.0f}/s")
    return Finding(measured, problems, {"rate": RATE, "lone": lone, "normal": normal})


def before(lab: Lab, _figures: dict[str, Any]) -> Before:
    """Let the legacy service apply: it cannot validate alone."""
    lines = popular_lines("apply", lab.scale.codes)
    seconds = min(lab.scale.normal_seconds, lab.scale.patience)
    with lab.service(LEGACY) as service:
        lone = lab.offer(service, lines, LEGACY_APPLIES, connections=1)
        normal = lab.offer(service, lines, int(RATE * seconds), rate=RATE, connections=512)
        lab.abandon(service)
    lab.rest()
    answered = [one.latency_ms for one in lone.answers]
    figures = {"lone_ms": median(answered) if answered else None, "normal": summarise(normal)}
    return Before(_in_words(lab, figures), figures)


def _in_words(lab: Lab, legacy: dict[str, Any]) -> str:
    lone_ms, normal, patience = legacy["lone_ms"], legacy["normal"], lab.scale.patience
    alone = (
        f"no lone apply in {patience:.0f} s"
        if lone_ms is None
        else f"{lone_ms:,.0f} ms for a lone apply (median)"
    )
    if normal["answered"] < normal["requests"]:
        return (
            f"{alone}; at {RATE:.0f}/s {normal['answered']:,} of {normal['requests']:,} answered "
            f"{patience:.0f} s after the last was sent"
        )
    return f"{alone}; p95 {normal['p95']:,.0f} ms at {RATE:.0f}/s"


def _bound(_scale: Scale) -> str:
    return f"p95 under {BOUND_MS:.0f} ms, alone and at {RATE:.0f}/s"


CLAIM = Claim(
    number=2,
    name="One validation",
    statement="95 of 100 validations take less than 100 ms, alone and under the normal load.",
    method=(
        "One client asks for one code after the other; then 50 requests a second, whether or not "
        "answers come, each timed from when it was due. The p95 is the median of those of "
        f"{WINDOWS} consecutive windows."
    ),
    bound=_bound,
    measure=measure,
    before=before,
)
