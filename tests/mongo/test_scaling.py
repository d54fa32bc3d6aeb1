"""The measurement behind docs/scaling.md, in its short form, as the page has it."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from evaluation.scaling import pages
from evaluation.scaling.__main__ import main
from evaluation.scaling.measurement import HOT, LOADS, Measurement
from evaluation.scaling.sizing import Plan, Sizing


@pytest.mark.timeout(300)
def test_the_short_measurement_of_the_page_finds_all_that_is_simulated(tmp_path: Path) -> None:
    [asked] = re.findall(r"evaluation\.scaling (measure --quick .*)", pages.PAGES[0].read_text())
    *options, output = shlex.split(asked)
    kept = tmp_path / Path(output).name
    done = CliRunner().invoke(main, [*options, str(kept)])
    assert done.exit_code == 0, done.output
    found = Measurement.read(kept)
    assert {one.load for one in found.runs} == set(LOADS)
    assert all(one.wrong == 0 and one.batch >= 1 for one in found.runs)
    assert all(one.take_us > 0 and one.mongod_us > 0 for one in found.contests)
    assert {one.load for one in found.batches} == set(LOADS)
    assert Sizing(found).answer(Plan(HOT, 100, 2)).outcome.rate > 0
