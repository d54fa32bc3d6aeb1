"""Claim 6: what the peak costs the database."""

from __future__ import annotations

from typing import Any

from evaluation.claims import flash_sale
from evaluation.claims.claim import Before, Claim, Finding, Unclear
from evaluation.claims.orders import popular_lines
from evaluation.lab import LEGACY, Lab
from evaluation.scale import Scale

BOUND_SHARE = 0.5
# CPU time depends on the machine; what is looked at for a request does not. A collection that is
# scanned costs thousands.
BOUND_DOCUMENTS = 10
# What is not answered costs nothing: the figures count only where the rate was held.
HELD_SHARE = 0.95
LEGACY_APPLIES = 10


def judge(share: float, documents: float, held: float) -> list[str]:
    """Return what contradicts the claim.

    `documents` are those looked at for each request, `held` is the share of the rate answered.
    """
    problems: list[str] = []
    if held < HELD_SHARE:
        problems.append(Unclear(f"only {held:.0%} of the rate was held"))
    if share >= BOUND_SHARE:
        problems.append(Unclear(f"mongod used {share:.0%} of a core"))
    if documents >= BOUND_DOCUMENTS:
        problems.append(f"mongod looked at {documents:,.0f} documents for each request")
    return problems


def measure(lab: Lab) -> Finding:
    """Compare mongod's CPU time with the wall time of the peak."""
    figures = flash_sale.rush(lab).figures()
    share, each = figures["mongod_share_of_a_core"], figures["mongod_ms"]
    documents = figures["documents_examined"]
    measured = (
        f"{share:.0%} of a core at {figures['answered_rate']:,.0f}/s; {each:.2g} ms and "
        f"{documents:.1f} documents looked at for each request"
    )
    held = figures["answered_rate"] / figures["asked_rate"]
    return Finding(measured, judge(share, documents, held), {"share": share, "ms": each})


def before(lab: Lab, figures: dict[str, Any]) -> Before:
    """Compare with mongod's CPU time for a lone legacy apply."""
    each = _legacy_ms(lab)
    if each is None:
        return Before(f"did not finish one apply in {lab.scale.patience:.0f} s", {"ms": None})
    times = each / figures["ms"]
    return Before(f"{each:,.0f} ms for a lone apply, {times:,.0f} times as much", {"ms": each})


def _legacy_ms(lab: Lab) -> float | None:
    """Return mongod's CPU time for a lone legacy apply; None when none was answered in time."""
    lines = popular_lines("apply", lab.scale.codes)
    with lab.service(LEGACY) as service:
        idle = lab.mongod_cpu()
        seen = lab.offer(service, lines, LEGACY_APPLIES, connections=1)
        used = lab.mongod_cpu() - idle
        lab.abandon(service)
    lab.rest()
    return used * 1e3 / len(seen.answers) if seen.answers else None


def _bound(scale: Scale) -> str:
    return (
        f"under {BOUND_SHARE:.0%} of one core at {scale.flash_rate:,.0f}/s, and under "
        f"{BOUND_DOCUMENTS} documents looked at for each request"
    )


CLAIM = Claim(
    number=6,
    name="The database at the peak",
    statement="At that rate, the database uses less than half of one core.",
    method=(
        "mongod's own CPU time (user and system, as the kernel accounts it) over the wall time of "
        "the load of claim 5."
    ),
    bound=_bound,
    measure=measure,
    before=before,
)
