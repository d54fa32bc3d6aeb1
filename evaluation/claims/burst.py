"""Claim 1: a thousand requests for one code at the same moment."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from bson import ObjectId

from evaluation.claims.claim import Claim, Finding, counted
from evaluation.claims.orders import apply_line, new_promo, uses_of
from evaluation.lab import LEGACY, LEGACY_ON_NOTHING, OURS, Lab, abandon
from evaluation.load.offered import Offered
from evaluation.processes import Service, Variant
from evaluation.scale import Scale

REQUESTS = 1_000
USES = 500
BOUND_SECONDS = 5.0
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
    promo_id, seen = _rush(lab, service, variant, lab.scale.patience)
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


def judge(sales: list[Sale], spoilt: int = 0) -> list[str]:
    """Return what contradicts the claim; so many rounds may be spoilt, but none oversold."""
    problems = [
        f"round {number} sold {sale.recorded} uses of {USES}"
        for number, sale in enumerate(sales, 1)
        if sale.recorded > USES
    ]
    bad = {number: text for number, sale in enumerate(sales, 1) if (text := _flaws(sale))}
    if len(bad) > spoilt:
        problems += [f"round {number}: {text}" for number, text in bad.items()]
    return problems


def _flaws(sale: Sale) -> str:
    flaws = []
    if sale.seconds >= BOUND_SECONDS:
        flaws.append(f"took {sale.seconds:.1f} s")
    if sale.outcomes != RIGHT:
        flaws.append(f"was answered {counted(sale.outcomes)}")
    if sale.recorded != USES:
        flaws.append(f"recorded {sale.recorded} uses of {USES}")
    return "; ".join(flaws)


def measure(lab: Lab) -> Finding:
    """Hold the sale several times, and once each with the legacy service on both databases."""
    with lab.service() as service:
        sell(lab, service, OURS)  # opens the connections and fills the caches
        sales = [sell(lab, service, OURS) for _ in range(lab.scale.burst_rounds)]
    patience = lab.scale.patience
    before = {
        LEGACY.database: _legacy_sale(lab, LEGACY, patience),
        LEGACY_ON_NOTHING.database: _legacy_sale(lab, LEGACY_ON_NOTHING, 4 * patience),
    }
    slowest = max(sales, key=lambda sale: sale.seconds)
    figures: dict[str, Any] = {
        "requests": REQUESTS,
        "uses": USES,
        "sales": [asdict(sale) for sale in sales],
        "legacy": {name: asdict(sale) for name, sale in before.items()},
    }
    measured = (
        f"{REQUESTS:,} answered in {slowest.seconds:.2f} s in the slowest of {len(sales)} "
        f"rounds; uses recorded of {USES}: {', '.join(str(sale.recorded) for sale in sales)}"
    )
    return Finding(measured, judge(sales, lab.scale.burst_spoilt), _before(before), figures)


def _legacy_sale(lab: Lab, variant: Variant, drain: float) -> Sale:
    with lab.service(variant) as service:
        promo_id, seen = _rush(lab, service, variant, drain)
        abandon(service)
    # Counting is a scan here too: not beside those that nobody waits for any more.
    lab.rest()
    return _sale(seen, _recorded(lab, variant, promo_id))


def _before(sales: dict[str, Sale]) -> str:
    real, nothing = sales[LEGACY.database], sales[LEGACY_ON_NOTHING.database]
    return (
        f"{_ending(real)}; on an empty database it {_ending(nothing)} and sold "
        f"{nothing.recorded} of {USES} uses"
    )


def _ending(sale: Sale) -> str:
    if sale.answered == REQUESTS:
        return f"took {sale.seconds:.1f} s"
    return f"did not finish in {sale.seconds:.0f} s ({sale.answered:,} answered)"


def _bound(scale: Scale) -> str:
    spared = f"; {scale.burst_spoilt} slow round is forgiven" if scale.burst_spoilt else ""
    return f"under {BOUND_SECONDS:.0f} s, exactly {USES} uses sold, no other answer{spared}"


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
)
