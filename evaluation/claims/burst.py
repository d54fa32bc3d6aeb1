"""Claim 1: a thousand requests for one code at the same moment."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from bson import ObjectId

from evaluation.claims.claim import TOO_LATE, Before, Claim, Finding, Unclear, counted
from evaluation.claims.orders import apply_line, new_promo, uses_of
from evaluation.lab import LEGACY, LEGACY_ON_NOTHING, OURS, Lab
from evaluation.load.offered import Offered
from evaluation.processes import Service, Variant
from evaluation.scale import Scale

REQUESTS = 1_000
USES = 500
BOUND_SECONDS = 5.0
# Longer than the bound, so that what is too slow is seen to end.
WAIT_SECONDS = 10.0
GRANTED = "200"
RIGHT = {GRANTED: USES, "400 USAGE_LIMIT_REACHED": REQUESTS - USES}


@dataclass(frozen=True, slots=True)
class Sale:
    """A code with 500 uses that 1000 users asked for at the same moment."""

    seconds: float
    answered: int
    outcomes: dict[str, int]
    recorded: int
    # When each success was answered, in seconds from the start.
    granted_at: list[float]


def sell(lab: Lab, service: Service, variant: Variant) -> Sale:
    """Offer a new code with 500 uses to 1000 users at once."""
    promo_id, seen = _rush(lab, service, variant, WAIT_SECONDS)
    return _sale(seen, _recorded(lab, variant, promo_id))


def _rush(lab: Lab, service: Service, variant: Variant, drain: float) -> tuple[ObjectId, Offered]:
    promo = new_promo(lab.database(variant), "SALE", max_uses=USES)
    lines = [apply_line(promo["code"])]
    return promo["_id"], lab.offer(service, lines, REQUESTS, connections=REQUESTS, drain=drain)


def _recorded(lab: Lab, variant: Variant, promo_id: ObjectId) -> int:
    return uses_of(lab.database(variant), [promo_id])[promo_id]


def _sale(seen: Offered, recorded: int) -> Sale:
    granted = sorted(one.ended for one in seen.requests if one.outcome == GRANTED)
    return Sale(seen.seconds, len(seen.answers), dict(seen.outcomes), recorded, granted)


def judge(sales: list[Sale]) -> list[str]:
    """Return what contradicts the claim."""
    return [
        (Unclear if _is_late_at_most(sale) else str)(f"round {number}: {flaws}")
        for number, sale in enumerate(sales, 1)
        if (flaws := _flaws(sale))
    ]


def _flaws(sale: Sale) -> str:
    flaws = []
    if sale.seconds >= BOUND_SECONDS:
        flaws.append(f"took {sale.seconds:.1f} s")
    if sale.outcomes != RIGHT:
        flaws.append(f"was answered {counted(sale.outcomes)}")
    if sale.recorded != USES:
        flaws.append(f"sold {sale.recorded} uses of {USES}")
    return "; ".join(flaws)


def _is_late_at_most(sale: Sale) -> bool:
    """Whether every answer given was right, and those missing can explain what was not sold."""
    late = sum(sale.outcomes.get(name, 0) for name in TOO_LATE)
    granted = sale.outcomes.get(GRANTED, 0)
    return (
        set(sale.outcomes) <= RIGHT.keys() | TOO_LATE
        and granted <= sale.recorded <= USES <= sale.recorded + late
    )


def measure(lab: Lab) -> Finding:
    """Hold the sale several times."""
    with lab.service() as service:
        sell(lab, service, OURS)  # opens the connections and fills the caches
        sales = [sell(lab, service, OURS) for _ in range(lab.scale.burst_rounds)]
    slowest = max(sales, key=lambda sale: sale.seconds)
    figures: dict[str, Any] = {
        "requests": REQUESTS,
        "uses": USES,
        "sales": [asdict(sale) for sale in sales],
    }
    measured = (
        f"{REQUESTS:,} answered in {slowest.seconds:.2f} s in the slowest of {len(sales)} "
        f"rounds; uses recorded of {USES}: {', '.join(str(sale.recorded) for sale in sales)}"
    )
    return Finding(measured, judge(sales), figures)


def before(lab: Lab, _figures: dict[str, Any]) -> Before:
    """Hold the sale once each with the legacy service on both databases."""
    patience = lab.scale.patience
    real = _legacy_sale(lab, LEGACY, patience)
    nothing = _legacy_sale(lab, LEGACY_ON_NOTHING, 4 * patience)
    text = (
        f"{_ending(real)}; on an empty database it {_ending(nothing)} and sold "
        f"{nothing.recorded} of {USES} uses"
    )
    sales = {LEGACY.database: asdict(real), LEGACY_ON_NOTHING.database: asdict(nothing)}
    return Before(text, sales)


def _legacy_sale(lab: Lab, variant: Variant, drain: float) -> Sale:
    with lab.service(variant) as service:
        promo_id, seen = _rush(lab, service, variant, drain)
        lab.abandon(service)
    # Counting is a scan here too: not beside those that nobody waits for any more.
    lab.rest()
    return _sale(seen, _recorded(lab, variant, promo_id))


def _ending(sale: Sale) -> str:
    if sale.answered == REQUESTS:
        return f"took {sale.seconds:.1f} s"
    return f"did not finish in {sale.seconds:.0f} s ({sale.answered:,} answered)"


def _bound(_scale: Scale) -> str:
    return f"under {BOUND_SECONDS:.0f} s, exactly {USES} uses sold, no other answer"


CLAIM = Claim(
    number=1,
    name="A burst on one code",
    statement="1,000 concurrent requests for one code are all answered within 5 s.",
    method=(
        f"1,000 users with a connection each send at the same moment; the code has {USES} uses, so "
        "half of them must be refused. The time runs from the first request to the last answer."
    ),
    bound=_bound,
    measure=measure,
    before=before,
)
