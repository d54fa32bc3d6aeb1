"""What schedules and failovers say of themselves in docs/chaos.md."""

from __future__ import annotations

from pathlib import Path

import pytest

from evaluation import reconciling
from tests.chaos import failover, results
from tests.chaos.results import PAGE, Result, keep, read, summary
from tests.support.history import Violation


def result(seed: int, **changes: object) -> Result:
    """Return the result of a schedule of 30 s."""
    fields: dict[str, object] = {
        "seed": str(seed),
        "faults": {"primary killed": 1, "delays": 2},
        "outcomes": {"ok": 1000, "refused": 500, "unknown": 100},
        "seconds": 30.0,
        "gave_back": 3,
        "reconciled": 2,
        "sold_out": 7,
        "violations": [],
    }
    return Result(**(fields | changes))  # type: ignore[arg-type]


def test_what_was_kept_is_read_by_seed_from_several_files(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    wrong = result(10, violations=[Violation("exact sell-out", "CODE", "9 of 10")])
    for each, path in ((wrong, first), (result(9), second), (result(2), first)):
        keep(each, path)
    found = read([first, second])
    assert [each.seed for each in found] == ["2", "9", "10"]
    assert found[0] == result(2)
    assert len(found[2].violations) == 1


def test_a_seed_that_was_played_twice_does_not_count_twice(tmp_path: Path) -> None:
    for seed in (1, 2, 1):
        keep(result(seed), tmp_path / "file")
    with pytest.raises(ValueError, match="more than once: 1"):
        read([tmp_path / "file"])


def test_the_summary_has_the_sums() -> None:
    broken = [Violation("exact sell-out", "CODE", "9 of 10")] * 2
    lines = summary([result(1), result(2), result(7, violations=broken, outcomes={"ok": 8})])
    assert lines[2] == "| 1 to 2, 7 | 3 | 3,208 | 2,008 | 1,000 | 200 | 2 | 2 |"
    assert lines[-2:] == ["| delays | 6 |", "| primary killed | 3 |"]


@pytest.mark.parametrize("block", [failover.BLOCK, reconciling.BLOCK, results.BLOCK])
def test_the_page_has_each_block_once(block: str) -> None:
    assert PAGE.read_text().count(f"<!-- {block}: begin -->") == 1
