"""What a claim is, and what was found of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from evaluation.lab import Lab
from evaluation.scale import Scale


@dataclass(frozen=True, slots=True)
class Finding:
    """What was measured in one sentence, what contradicts the claim, and what was before."""

    measured: str
    problems: Sequence[str]
    before: str
    figures: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Claim:
    """One thing that the service is said to do, and how anybody can see whether it does."""

    number: int
    name: str
    statement: str
    method: str
    bound: Callable[[Scale], str]
    measure: Callable[[Lab], Finding]


@dataclass(frozen=True, slots=True)
class Verdict:
    """A claim with what was found; it holds when nothing contradicts it."""

    claim: Claim
    finding: Finding
    seconds: float

    @property
    def holds(self) -> bool:
        """Whether nothing that was found contradicts the claim."""
        return not self.finding.problems


def counted(outcomes: dict[str, int]) -> str:
    """Write outcomes with their numbers, the most frequent one first."""
    by_number = sorted(outcomes.items(), key=lambda each: -each[1])
    return ", ".join(f"{count:,} x {name}" for name, count in by_number)
