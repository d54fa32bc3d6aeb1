"""The history checker: a clean history is accepted, and each broken rule is named."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.support.history import (
    RULES,
    SOLD_OUT,
    USER_LIMIT,
    Attempt,
    GiveBack,
    Outcome,
    Promo,
    Use,
    check,
)

Case = tuple[list[Attempt], Promo, list[Use], list[float]]

FULL = Promo("C", max_uses=2, max_uses_per_user=1, taken=2)
OPEN = Promo("C", max_uses=None, max_uses_per_user=2, taken=1)


def ok(user: str, order: str | None = "o", at: float = 0, **changes: object) -> Attempt:
    made = Attempt("C", user, order, 100, Outcome.OK, at, at + 1, body=b"10% off")
    return replace(made, **changes)  # type: ignore[arg-type] # the fields are named by the tests


def refused(user: str, reason: str, at: float = 0, order: str | None = "o") -> Attempt:
    return Attempt("C", user, order, 100, Outcome.REFUSED, at, at + 1, reason)


def lost(user: str, order: str | None = "o", at: float = 0) -> Attempt:
    return Attempt("C", user, order, 100, Outcome.UNKNOWN, at, at + 1)


def use(user: str, order: str | None = "o", amount: float = 100) -> Use:
    return Use("C", user, order, amount)


CLEAN: dict[str, Case] = {
    "sold out": ([ok("a"), ok("b"), refused("c", SOLD_OUT, 3)], FULL, [use("a"), use("b")], []),
    "refused beside the last success": (
        [ok("a"), refused("c", SOLD_OUT, 0), ok("b", at=0.5)],
        FULL,
        [use("a"), use("b")],
        [],
    ),
    "sold after a use was given back": (
        [ok("a"), refused("c", SOLD_OUT, 3), ok("b", at=9), refused("d", SOLD_OUT, 11)],
        FULL,
        [use("a"), use("b")],
        [8],
    ),
    "replayed when sold out": (
        [ok("a"), ok("b"), refused("c", SOLD_OUT, 3), ok("a", at=5, replayed=True)],
        FULL,
        [use("a"), use("b")],
        [],
    ),
    "lost and recorded": ([lost("a")], OPEN, [use("a")], []),
    "lost and repeated": ([lost("a"), ok("a", at=3, replayed=True)], OPEN, [use("a")], []),
    "lost and not recorded": ([lost("a"), ok("b")], OPEN, [use("b")], []),
    "no orders": (
        [ok("a", None), ok("a", None), lost("a", None), refused("a", USER_LIMIT)],
        replace(OPEN, taken=2),
        [use("a", None), use("a", None)],
        [],
    ),
}

BROKEN: list[tuple[str, str, Case]] = [
    (
        "uses <= currentUses <= maxUses",
        "more recorded than taken",
        ([ok("a"), ok("b")], replace(FULL, taken=1), [use("a"), use("b")], []),
    ),
    (
        "uses <= currentUses <= maxUses",
        "more taken than there are",
        ([ok(u) for u in "abc"], replace(FULL, taken=3), [use(u) for u in "abc"], []),
    ),
    ("currentUses == uses after reconcile", "a leak", ([ok("a")], FULL, [use("a")], [])),
    (
        "uses of a user <= maxUsesPerUser",
        "two of one",
        ([ok("a"), ok("a", "p")], FULL, [use("a"), use("a", "p")], []),
    ),
    ("one use per order", "two of one", ([ok("a"), lost("a")], FULL, [use("a"), use("a")], [])),
    ("every success has its use", "none", ([ok("a"), ok("b")], OPEN, [use("b")], [])),
    (
        "every success has its use",
        "another amount",
        ([ok("a")], OPEN, [use("a", amount=7)], []),
    ),
    (
        "every success has its use",
        "one for two without an order",
        ([ok("a", None), ok("a", None)], OPEN, [use("a", None)], []),
    ),
    ("every use was asked for", "by nobody", ([], OPEN, [use("a")], [])),
    (
        "every use was asked for",
        "of somebody who was refused",
        (
            [refused("a", SOLD_OUT, 9), ok("b")],
            replace(FULL, max_uses_per_user=2),
            [use("a"), use("b")],
            [],
        ),
    ),
    (
        "every use was asked for",
        "more often without an order",
        ([ok("a", None)], replace(OPEN, taken=2), [use("a", None), use("a", None)], []),
    ),
    (
        "sold out stays sold out",
        "a success began later",
        ([ok("a"), refused("c", SOLD_OUT, 3), ok("b", at=5)], FULL, [use("a"), use("b")], []),
    ),
    (
        "sold out stays sold out",
        "refused again since the give-back",
        (
            [ok("a"), refused("c", SOLD_OUT, 9), ok("b", at=12)],
            FULL,
            [use("a"), use("b")],
            [8],
        ),
    ),
    (
        "exact sell-out",
        "one is left",
        ([ok("a"), refused("c", SOLD_OUT, 3)], replace(FULL, taken=1), [use("a")], []),
    ),
    (
        "exact sell-out",
        "one is left again",
        ([ok("a"), refused("c", SOLD_OUT, 3)], replace(FULL, taken=1), [use("a")], [2]),
    ),
    ("refusals are due", "a user below his limit", ([refused("a", USER_LIMIT)], OPEN, [], [])),
    ("refusals are due", "no limit", ([refused("a", "INVALID_CODE")], OPEN, [], [])),
    (
        "replays are identical",
        "another answer",
        ([ok("a"), ok("a", at=3, replayed=True, body=b"free")], OPEN, [use("a")], []),
    ),
    (
        "replays are identical",
        "not called a replay",
        ([ok("a"), ok("a", at=3)], OPEN, [use("a")], []),
    ),
]


def broken_rules(case: Case, *, settled: bool = True) -> set[str]:
    history, promo, uses, given_back = case
    events = [GiveBack("C", at) for at in given_back]
    return {found.rule for found in check(history, [promo], uses, events, settled=settled)}


@pytest.mark.parametrize("case", CLEAN.values(), ids=CLEAN)
def test_a_clean_history_is_accepted(case: Case) -> None:
    history, promo, uses, given_back = case
    balanced = replace(promo, taken=len(uses))
    assert broken_rules((history, balanced, uses, given_back)) == set()


@pytest.mark.parametrize(
    ("rule", "case"),
    [(rule, case) for rule, _, case in BROKEN],
    ids=[f"{rule}: {how}" for rule, how, _ in BROKEN],
)
def test_a_broken_rule_is_named(rule: str, case: Case) -> None:
    assert rule in broken_rules(case)


def test_every_rule_has_a_history_that_breaks_it() -> None:
    assert {rule for rule, _, _ in BROKEN} == set(RULES)


def test_a_leak_and_an_open_sale_are_no_faults_before_reconcile() -> None:
    case: Case = ([ok("a"), refused("c", SOLD_OUT, 3)], FULL, [use("a")], [])
    assert broken_rules(case, settled=False) == set()


def test_codes_are_judged_each_by_itself() -> None:
    other = replace(FULL, code="D", taken=0)
    [found] = check([ok("a")], [FULL, other], [use("a")], settled=True)
    assert (found.rule, found.code) == ("currentUses == uses after reconcile", "C")
