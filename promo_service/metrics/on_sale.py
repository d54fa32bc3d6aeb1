"""The uses left of the codes that are in demand, without a series for each of 50,000 codes.

Each worker remembers what its last applies have read, and the worker that is asked shows it: the
count is the database's, and under a rush every worker has read it within milliseconds. A code is
shown while it has at least a twentieth of those applies, so there are never more than 20.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from itertools import repeat

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

REMEMBERED = 1000
MOST_CODES = 20
# What nobody has asked for since is not on sale now; several scrapes long.
FORGOTTEN_AFTER = 300.0


class OnSale(Collector):
    """The uses left of the codes that are asked for most, as this worker has last read them."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: deque[tuple[float, str, int]] = deque(maxlen=REMEMBERED)

    def seen(self, code: str, left: int, requests: int) -> None:
        """Remember the uses left of a code, read for so many requests."""
        self._seen.extend(repeat((self._clock(), code, left), requests))

    def left(self) -> dict[str, int]:
        """Return the uses left by code."""
        since = self._clock() - FORGOTTEN_AFTER
        recent = [(code, left) for when, code, left in self._seen if when >= since]
        demand = Counter(code for code, _ in recent)
        # Of several entries of a code the newest stands last, and stays.
        return {code: left for code, left in recent if demand[code] * MOST_CODES >= len(recent)}

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield the metric, for a registry."""
        family = GaugeMetricFamily(
            "promo_uses_left",
            "Uses left, as last read, of codes with a limit that are in demand (at most 20)",
            labels=["code"],
        )
        for code, left in self.left().items():
            family.add_metric([code], left)
        yield family
