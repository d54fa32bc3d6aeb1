"""How much is answered when more and more is offered."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from evaluation.claims import flash_sale
from evaluation.lab import LEGACY, OURS, Lab
from evaluation.processes import Variant
from evaluation.trends import percentile

GRANTED = "200"
DRAIN_SECONDS = 3.0


def climb(lab: Lab) -> dict[str, list[dict[str, Any]]]:
    """Offer each rate of the ladder to the service, the lowest and the highest to the legacy."""
    rates = lab.scale.ladder
    return {
        OURS.name: _climb(lab, OURS, rates),
        LEGACY.name: _climb(lab, LEGACY, (rates[0], rates[-1])),
    }


def _climb(lab: Lab, variant: Variant, rates: Sequence[float]) -> list[dict[str, Any]]:
    asked = flash_sale.lines(lab, variant)
    rungs = []
    with lab.service(variant) as service:
        for rate in rates:
            requests = int(rate * lab.scale.ladder_seconds)
            seen = lab.offer(
                service,
                asked,
                requests,
                rate=rate,
                connections=flash_sale.CONNECTIONS,
                drain=DRAIN_SECONDS,
            )
            granted = [one for one in seen.requests if one.outcome == GRANTED]
            # Answers that came late count, and so does the time that they were late by.
            seconds = max([lab.scale.ladder_seconds, *(one.ended for one in granted)])
            latencies = [one.latency_ms for one in seen.requests]
            rungs.append(
                {
                    "offered": rate,
                    "sent": seen.sent_rate,
                    "granted": len(granted) / seconds,
                    "p95": percentile(latencies, 95),
                }
            )
            lab.say(f"{variant.name}: {rate:,.0f}/s offered, {rungs[-1]['granted']:,.0f}/s granted")
            if variant is LEGACY:
                # What it still works on would spoil the next rung.
                lab.abandon(service)
                lab.rest()
                service.restart()
    return rungs
