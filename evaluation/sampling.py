"""Which code a request asks for: every code alike, or a few of them most of the time."""

from __future__ import annotations

import random
from bisect import bisect_left
from itertools import accumulate


def uniform(size: int, count: int, seed: int) -> list[int]:
    """Draw `count` ranks below `size`, every rank as likely as any other."""
    generator = random.Random(seed)
    return [generator.randrange(size) for _ in range(count)]


def zipf(size: int, count: int, seed: int, s: float = 1.0) -> list[int]:
    """Draw `count` ranks below `size`, rank r (from 0) with a probability of 1 / (r + 1)**s."""
    generator = random.Random(seed)
    cumulated = list(accumulate((rank + 1) ** -s for rank in range(size)))
    total = cumulated[-1]
    return [bisect_left(cumulated, generator.random() * total) for _ in range(count)]
