"""What a claim is, and what was found of it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from evaluation.lab import Lab
from evaluation.scale import Scale

# What an overloaded machine does to requests that a healthy service would have granted.
TOO_LATE = frozenset({"503 UNAVAILABLE", "no answer"})


class Unclear(str):
    """A problem that a busy machine, or chance, can cause as well: it is looked at once more."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Finding:
    """What was measured in one sentence, and what contradicts the claim."""

    measured: str
    problems: Sequence[str]
    figures: dict[str, Any] = field(default_factory=dict)

    @property
    def is_unclear(self) -> bool:
        """Whether there are problems, and each of them is one that the machine can cause."""
        return bool(self.problems) and all(isinstance(one, Unclear) for one in self.problems)


@dataclass(frozen=True, slots=True)
class Before:
    """What the legacy service did in the same place."""

    text: str
    figures: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Claim:
    """One thing that the service is said to do, and how anybody can see whether it does.

    `before` is given the figures of what was measured, to compare with them.
    """

    number: int
    name: str
    statement: str
    method: str
    bound: Callable[[Scale], str]
    measure: Callable[[Lab], Finding]
    before: Callable[[Lab, dict[str, Any]], Before]


@dataclass(frozen=True, slots=True)
class Verdict:
    """A claim with what was found; it holds when nothing contradicts it.

    `first` is what was found before it was measured once more; nothing of it is left out.
    """

    claim: Claim
    finding: Finding
    before: Before
    seconds: float
    first: Finding | None = None

    @property
    def holds(self) -> bool:
        """Whether nothing that was found contradicts the claim."""
        return not self.finding.problems

    @property
    def figures(self) -> dict[str, Any]:
        """All figures, those of the legacy service under its name."""
        return self.finding.figures | {"legacy": self.before.figures}

    @property
    def repeated(self) -> str:
        """Why it was measured twice, in words; nothing where it was not."""
        return (
            f"second attempt; the first one: {'; '.join(self.first.problems)}" if self.first else ""
        )


def counted(outcomes: dict[str, int]) -> str:
    """Write outcomes with their numbers, the most frequent one first."""
    by_number = sorted(outcomes.items(), key=lambda each: -each[1])
    return ", ".join(f"{count:,} x {name}" for name, count in by_number)


def unexpected(outcomes: dict[str, int], right: Collection[str], saying: str) -> list[str]:
    """Return the problem with outcomes that are not right, if there are any."""
    wrong = {name: count for name, count in outcomes.items() if name not in right}
    kind = Unclear if TOO_LATE.issuperset(wrong) else str
    return [kind(f"{saying}: {counted(wrong)}")] if wrong else []
