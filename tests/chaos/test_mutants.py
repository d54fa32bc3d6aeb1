"""That the mutants still fit the service, and that one is caught; `make mutants` tries them all."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from promo_service.embedded import EmbeddedMongod
from tests.chaos.mistakes import MUTANTS, Mutant
from tests.chaos.mutants import PAGE, ROOT, violations
from tests.chaos.trials import TRIALS


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_replaces_something_that_is_there_exactly_once(mutant: Mutant) -> None:
    assert (ROOT / "promo_service" / mutant.module).read_text().count(mutant.old) == 1
    assert mutant.trial in TRIALS


def test_the_page_shows_every_mutant_and_none_that_was_not_caught() -> None:
    rows = [line.split(" | ") for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    assert [row[0].removeprefix("| ") for row in rows[2:]] == [mutant.name for mutant in MUTANTS]
    assert not any("none" in row[-1] for row in rows)
    assert f"{len(MUTANTS)} of {len(MUTANTS)} mistakes were noticed." in PAGE.read_text()


def _of(trial: str) -> Iterator[Mutant]:
    return (mutant for mutant in MUTANTS if mutant.trial == trial)


def test_a_trial_is_clean_without_a_mutant_and_not_with_one(mongod: EmbeddedMongod) -> None:
    port = mongod.members[0].port
    assert violations(None, "overtaken", port) == []
    assert violations(next(_of("overtaken")), "overtaken", port) != []
