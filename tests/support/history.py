"""Whether what clients were told of promo codes, and what is recorded, can both be true.

Pure. Clients keep every request with its outcome, and every request of a history is eligible: a
limit is the only reason to refuse it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from itertools import accumulate
from typing import NamedTuple, TypeVar

SOLD_OUT = "USAGE_LIMIT_REACHED"
USER_LIMIT = "USER_LIMIT_REACHED"


class Outcome(Enum):
    """What a client may conclude from what it saw."""

    OK = "ok"
    REFUSED = "refused"
    UNKNOWN = "unknown"  # a 503, or no answer at all


@dataclass(frozen=True, slots=True)
class Attempt:
    """One request and its outcome; `start` and `end` are seconds of the clock of `GiveBack.at`."""

    code: str
    user: str
    order: str | None
    amount: float
    outcome: Outcome
    start: float
    end: float
    reason: str = ""  # the machine code of a refusal
    body: bytes = b""  # of a success
    replayed: bool = False


@dataclass(frozen=True, slots=True)
class Promo:
    """A promo code as the database holds it at the end; `taken` is its `currentUses`."""

    code: str
    max_uses: int | None
    max_uses_per_user: int | None
    taken: int


@dataclass(frozen=True, slots=True)
class Use:
    """A use as the database holds it at the end."""

    code: str
    user: str
    order: str | None
    amount: float


@dataclass(frozen=True, slots=True)
class GiveBack:
    """A moment at which `currentUses` became smaller."""

    code: str
    at: float


class Violation(NamedTuple):
    """A broken rule; the names of the rules are those in `RULES`."""

    rule: str
    code: str
    detail: str


@dataclass(slots=True)
class _OfCode:
    """All that is known of one code; `settled` once nothing runs and reconcile has been done."""

    promo: Promo
    settled: bool
    attempts: list[Attempt] = field(default_factory=list)
    uses: list[Use] = field(default_factory=list)
    given_back: list[float] = field(default_factory=list)  # ascending

    def refused_with(self, reason: str) -> list[Attempt]:
        """Return the attempts that were refused for this reason."""
        return [a for a in self.attempts if a.outcome is Outcome.REFUSED and a.reason == reason]


def check(
    history: Iterable[Attempt],
    promos: Iterable[Promo],
    uses: Iterable[Use],
    given_back: Iterable[GiveBack] = (),
    *,
    settled: bool,
) -> list[Violation]:
    """Return every broken rule. The promos are all there are, and had no uses before the history.

    `settled` says that the history is over and reconcile has run: counters must be exact then.
    """
    of_code = {promo.code: _OfCode(promo, settled) for promo in promos}
    for attempt in history:
        of_code[attempt.code].attempts.append(attempt)
    for use in uses:
        of_code[use.code].uses.append(use)
    for event in sorted(given_back, key=lambda event: event.at):
        of_code[event.code].given_back.append(event.at)
    return [
        Violation(rule, code, detail)
        for code, known in of_code.items()
        for rule, broken in RULES.items()
        for detail in broken(known)
    ]


def _counts(known: _OfCode) -> Iterator[str]:
    promo, uses = known.promo, len(known.uses)
    if uses > promo.taken:
        yield f"{uses} uses recorded, {promo.taken} taken"
    if promo.max_uses is not None and promo.taken > promo.max_uses:
        yield f"{promo.taken} uses taken of {promo.max_uses}"


def _balance(known: _OfCode) -> Iterator[str]:
    if known.settled and known.promo.taken > len(known.uses):
        yield f"{known.promo.taken} uses taken, {len(known.uses)} recorded"


def _user_limit(known: _OfCode) -> Iterator[str]:
    limit = known.promo.max_uses_per_user
    for user, uses in Counter(use.user for use in known.uses).items():
        if limit is not None and uses > limit:
            yield f"{uses} uses of {user}, who may have {limit}"


def _one_use_per_order(known: _OfCode) -> Iterator[str]:
    for key, uses in _by_order(known.uses).items():
        if key[1] is not None and len(uses) > 1:
            yield f"{len(uses)} uses of {key}"


def _every_success_has_its_use(known: _OfCode) -> Iterator[str]:
    uses = _by_order(known.uses)
    for key, attempts in _by_order(known.attempts).items():
        promised = [a.amount for a in attempts if a.outcome is Outcome.OK]
        # Attempts of one order are one use; without an order, each is a use of its own.
        wanted = Counter(promised if key[1] is None else set(promised))
        missing = wanted - Counter(use.amount for use in uses.get(key, ()))
        if missing:
            yield f"{key} was told of uses that are not recorded: amounts {dict(missing)}"


def _every_use_was_asked_for(known: _OfCode) -> Iterator[str]:
    attempts = _by_order(known.attempts)
    for key, uses in _by_order(known.uses).items():
        asked = Counter(a.amount for a in attempts.get(key, ()) if a.outcome is not Outcome.REFUSED)
        unasked = Counter(use.amount for use in uses) - asked
        if unasked:
            yield f"uses of {key} that nobody asked for: amounts {dict(unasked)}"


def _sold_out_for_good(known: _OfCode) -> Iterator[str]:
    refusals = sorted(known.refused_with(SOLD_OUT), key=lambda a: a.start)
    starts = [refusal.start for refusal in refusals]
    # The earliest end of this refusal and all that began after it.
    ends = list(accumulate((a.end for a in reversed(refusals)), min))[::-1]
    for attempt in known.attempts:
        if attempt.outcome is not Outcome.OK or attempt.replayed:
            continue
        before = bisect_right(known.given_back, attempt.end)
        last = known.given_back[before - 1] if before else float("-inf")
        since = bisect_right(starts, last)
        if since < len(ends) and ends[since] < attempt.start:
            late = attempt.start - ends[since]
            yield f"{attempt.user} was given a use {late:.3f} s after the code was sold out"


def _exact_sell_out(known: _OfCode) -> Iterator[str]:
    last = known.given_back[-1] if known.given_back else float("-inf")
    refused = sum(attempt.start > last for attempt in known.refused_with(SOLD_OUT))
    if known.settled and refused and len(known.uses) != known.promo.max_uses:
        sold = f"{len(known.uses)} of {known.promo.max_uses} uses are sold"
        yield f"{sold}, and {refused} users were told that all are"


def _refusals_are_due(known: _OfCode) -> Iterator[str]:
    uses = Counter(use.user for use in known.uses)
    limit = known.promo.max_uses_per_user
    for user in {attempt.user for attempt in known.refused_with(USER_LIMIT)}:
        if limit is None or uses[user] < limit:
            yield f"{user} has {uses[user]} of {limit} uses, and was told that he has all"
    reasons = {a.reason for a in known.attempts if a.outcome is Outcome.REFUSED}
    for reason in reasons - {SOLD_OUT, USER_LIMIT}:
        yield f"eligible requests were refused with {reason}"


def _replays_are_identical(known: _OfCode) -> Iterator[str]:
    for key, attempts in _by_order(known.attempts).items():
        told = [a for a in attempts if a.outcome is Outcome.OK]
        if key[1] is None or not told:
            continue
        if len({attempt.body for attempt in told}) > 1:
            yield f"{key} got different answers"
        if sum(not attempt.replayed for attempt in told) > 1:
            yield f"{key} was given a use more than once"


Keyed = TypeVar("Keyed", Attempt, Use)


def _by_order(of: Sequence[Keyed]) -> dict[tuple[str, str | None], list[Keyed]]:
    found: defaultdict[tuple[str, str | None], list[Keyed]] = defaultdict(list)
    for one in of:
        found[one.user, one.order].append(one)
    return found


RULES: dict[str, Callable[[_OfCode], Iterator[str]]] = {
    "uses <= currentUses <= maxUses": _counts,
    "currentUses == uses after reconcile": _balance,
    "uses of a user <= maxUsesPerUser": _user_limit,
    "one use per order": _one_use_per_order,
    "every success has its use": _every_success_has_its_use,
    "every use was asked for": _every_use_was_asked_for,
    "sold out stays sold out": _sold_out_for_good,
    "exact sell-out": _exact_sell_out,
    "refusals are due": _refusals_are_due,
    "replays are identical": _replays_are_identical,
}
