"""The simulation of many processes against what is known without it, and what the pages say."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from click.testing import CliRunner

from evaluation.scaling import pages
from evaluation.scaling.__main__ import KEPT, main
from evaluation.scaling.costs import Costs, Grid, Line, reckoned
from evaluation.scaling.measurement import (
    HOT,
    LOADS,
    MANY,
    Batch,
    Batching,
    Contest,
    Measurement,
    Run,
)
from evaluation.scaling.simulation import Shop, Work, ceiling, simulate
from evaluation.scaling.sizing import Plan, Sizing


@pytest.mark.parametrize("busy", [0.3, 0.6, 0.8])
def test_one_process_that_serves_one_after_the_other_is_the_queue_of_the_textbook(
    busy: float,
) -> None:
    # M/D/1, Pollaczek and Khinchine: the wait is busy * service / (2 * (1 - busy)).
    shop = Shop(busy / 0.001, 1, 0.0, lambda _: Work(service=0.001), most=1)
    outcome = simulate(shop, seconds=200, warm_up=5)
    expected = 0.001 * (1 + busy / (2 * (1 - busy)))
    assert outcome.mean == pytest.approx(expected, rel=0.04)
    assert outcome.process_share == pytest.approx(busy, rel=0.02)


def test_a_document_that_many_processes_want_is_that_queue_too() -> None:
    # So many that none of them is asked again while it waits.
    shop = Shop(600, 500, 0.0, lambda _: Work(take=0.001), documents=1, most=1)
    outcome = simulate(shop, seconds=60, warm_up=2)
    assert outcome.mean == pytest.approx(0.001 * (1 + 0.6 / (2 * 0.4)), rel=0.05)
    assert outcome.document_share == pytest.approx(0.6, rel=0.02)


def test_with_nobody_to_wait_for_a_request_takes_what_its_steps_take() -> None:
    work = Work(service=0.001, read=0.002, take=0.003, record=0.004, commit=0.005)
    shop = Shop(1, 1, 0.0005, lambda _: work, documents=1)
    outcome = simulate(shop, seconds=50, warm_up=0)
    assert outcome.p50 == pytest.approx(0.0005 + 0.001 + 0.002 + 0.003 + 0.004 + 2 * 0.005)


def test_the_time_of_a_batch_is_the_window_of_the_next_one() -> None:
    shop = Shop(2_000, 1, 0.0, lambda _: Work(read=0.02))
    outcome = simulate(shop, seconds=50, warm_up=1)
    assert outcome.batch == pytest.approx(2_000 * 0.02, rel=0.02)
    gathered = simulate(
        Shop(2_000, 1, 0.0, lambda _: Work(read=0.02), gather=0.01), seconds=50, warm_up=1
    )
    assert gathered.batch == pytest.approx(2_000 * 0.03, rel=0.02)


@pytest.mark.parametrize(
    ("changes", "limit"),
    [
        ({}, 1_000),  # the CPU of four processes, at 4 ms a request
        ({"request": 0.0}, 1_600),  # 16 of them go around in 40 ms, in each of four processes
        ({"request": 0.0, "lanes": 2}, 3_200),
        ({"request": 0.0, "documents": 1}, 800),  # 16 of them in the 20 ms of a document
        ({"request": 0.0, "documents": 2}, 1_600),
    ],
)
def test_what_is_offered_beyond_the_limit_is_refused_and_the_rest_served(
    changes: dict[str, float], limit: float
) -> None:
    options = {"request": 0.004, "documents": 0, "most": 16, "room": 64, **changes}
    shop = Shop(3 * limit, 4, work=lambda _: Work(read=0.02, take=0.02), **options)  # type: ignore[arg-type]
    assert ceiling(shop) == pytest.approx(limit)
    outcome = simulate(shop, seconds=20, warm_up=2)
    assert outcome.rate == pytest.approx(limit, rel=0.03)
    assert outcome.refused == pytest.approx(2 / 3, rel=0.03)


def test_the_same_seed_is_the_same_run() -> None:
    shop = Shop(500, 3, 0.001, lambda size: Work(read=0.001 * size), documents=1)
    one, again, other = (simulate(shop, seconds=5, warm_up=1, seed=n) for n in (1, 1, 2))
    assert one == again != other


# --- what a batch costs


def test_between_what_was_measured_a_straight_line_is_drawn_and_beyond_it_the_last_one() -> None:
    line = Line({1: 10.0, 3: 20.0, 5: 60.0})
    assert [line.at(x) for x in (1, 2, 3, 4, 5, 6, 0)] == [10, 15, 20, 40, 60, 80, 5]


def test_costs_that_are_a_plane_are_met_everywhere() -> None:
    grid = Grid({(c, size): 5.0 + 2 * c + 3 * size for c in (1, 2, 8) for size in (1, 32)})
    assert grid.at(1.5, 10) == pytest.approx(5 + 3 + 30)
    assert grid.at(50, 128) == pytest.approx(5 + 100 + 384)


def test_a_request_costs_what_is_left_of_a_busy_one_beside_its_part_of_a_batch() -> None:
    costs = Costs.of(measurement(), HOT)
    assert costs.request_us == pytest.approx(300)
    service, mongod = reckoned(costs, replace(run(HOT), workers=8, batch=4))
    assert service == pytest.approx(300 + 1_000 / 4)
    assert mongod == pytest.approx((2_000 + 40 * 4) / 4)


def test_what_was_measured_can_be_kept(tmp_path: Path) -> None:
    kept = tmp_path / "scaling.json"
    measurement().write(kept)
    assert Measurement.read(kept) == measurement()


# --- what a rate takes


def test_a_rate_is_held_by_the_fewest_processes_within_a_fourth() -> None:
    # 300 us a request, and 1,000 us a batch: seven tenths of so many processes.
    answer = Sizing(measurement()).fewest(Plan(HOT, 5_000, 1))
    assert answer.held
    assert answer.service_cores == pytest.approx(
        5_000 * 300e-6 + answer.outcome.batches_per_second * 1_000e-6, rel=0.03
    )
    assert (
        answer.service_cores / 0.7 <= answer.plan.processes <= 1.25 * answer.service_cores / 0.7 + 1
    )


def test_more_than_the_document_takes_is_held_by_nobody_unless_it_is_split() -> None:
    # A take is 100 us for each process and a request 300 us and its part of a batch: with n of
    # them n / 308 us can be asked, and 128 / (n * 100 us) can be taken.
    sizing = Sizing(measurement(take_us=lambda claimants, _: 100.0 * claimants))
    request = 300e-6 + 1_000e-6 / 128
    processes, most = sizing.most(HOT)
    assert processes == pytest.approx(math.sqrt(128 * request / 100e-6), abs=1)
    assert most == pytest.approx(math.sqrt(128 / 100e-6 / request), rel=0.05)
    asked = Plan(HOT, 2 * most, 1)
    assert not sizing.fewest(asked).held
    assert sizing.fewest(replace(asked, parts=16)).held


def test_many_codes_know_no_document_and_few_share_one_of_them() -> None:
    sizing = Sizing(measurement())
    assert sizing.shop(Plan(MANY, 1_000, 100)).documents == 0
    # 1,000 codes, 2 requests a second for each, and claims that last for 2.5 seconds.
    assert sizing.claimants(Plan(MANY, 2_000, 100)) == pytest.approx(6)
    assert sizing.claimants(Plan(MANY, 2_000, 3)) == 3
    assert sizing.claimants(Plan(HOT, 2_000, 32, parts=4)) == 8


def measurement(take_us: Callable[[int, int], float] = lambda _, size: 100.0 + size) -> Measurement:
    """Make up what might have been measured; the costs are planes."""
    return Measurement(
        about={"codes": 1_000},
        batching=Batching(most=128, crowd=4, gather=0.01, lanes=4, claim_lasts=2.5),
        batches=[
            Batch(
                load=load,
                claimants=claimants,
                size=size,
                service_us=1_000,
                mongod_us=2_000 + 40.0 * size,
                read_us=500,
                take_us=take_us(claimants, size),
                record_us=200,
                commit_us=1_000,
                journal_bytes=1_000,
                sent_bytes=1_000,
            )
            for load in LOADS
            for claimants in (1, 2, 64)
            for size in (1, 128)
        ],
        contests=[Contest(1, 32, 100, 0.1, 300, 800, 2_000, 0.0, 1.0)],
        runs=[run(load) for load in LOADS],
    )


def run(load: str) -> Run:
    """Make up a run without a limit: 40 requests in a batch, of which each costs 325 us."""
    return Run(
        load=load,
        workers=1,
        rate=None,
        answered_rate=2_000,
        wrong=0,
        p50_ms=20,
        p95_ms=40,
        service_us=325,
        mongod_us=90,
        generator_us=100,
        batch=40,
        commands=0.1,
        conflicts=0,
        busiest=1,
    )


# --- what the pages say


def test_the_pages_say_what_was_measured() -> None:
    for path, text in pages.rendered(Measurement.read(KEPT)).items():
        assert path.read_text() == text, "run python -m evaluation.scaling pages"


def test_the_plot_is_well_formed() -> None:
    assert ET.fromstring(pages.PLOT.read_text()).tag.endswith("svg")  # noqa: S314 - our own


@pytest.mark.parametrize(
    "command",
    [
        command
        for page in pages.PAGES
        for command in re.findall(
            r"python -m evaluation\.scaling (simulate[^\n`]*)", page.read_text()
        )
    ],
)
def test_the_commands_of_the_pages_that_start_nothing_answer(command: str) -> None:
    done = CliRunner().invoke(main, shlex.split(command))
    assert done.exit_code == 0, done.output
    assert re.search(r"^\| .*[1-9].* \|$", done.output, re.MULTILINE)


def test_every_command_of_the_pages_is_run_here_or_by_the_test_of_the_cut_over() -> None:
    said = re.compile(r"(?:^|`)((?:python -m|gunicorn|make|docker|kubectl) [^`\n]+)", re.MULTILINE)
    # tests/http/test_cutover.py runs all commands of its page.
    cutover = set(said.findall((pages.PAGES[0].parent / "cutover.md").read_text()))
    others = {
        command
        for page in pages.PAGES
        for command in said.findall(page.read_text())
        if not command.startswith("python -m evaluation.scaling simulate")
    }
    assert others - cutover == {
        "python -m evaluation.scaling measure",  # four minutes; its short form is run instead
        # by tests/mongo/test_scaling.py
        "python -m evaluation.scaling measure --quick --output /tmp/scaling.json",
    }
