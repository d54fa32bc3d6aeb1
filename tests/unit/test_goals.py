"""Whether the goals of the benchmarks are read off pairs of rounds, and said to be missed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from evaluation.goals import GOALS, main, page
from evaluation.scenarios import SCENARIOS

FIGURES: dict[str, dict[str, float]] = {
    "ours": {"rate": 3000, "p50": 10, "service_us": 300, "mongod_us": 100, "commands": 0.1},
    "naive": {"rate": 500, "p50": 10, "service_us": 1500, "mongod_us": 1500, "commands": 4},
    "empty": {"rate": 9000, "p50": 1, "service_us": 250, "mongod_us": 1, "commands": 0},
}


def results(**changes: float) -> dict[str, Any]:
    """Return the results of a run, with other figures of ours in every scenario."""
    figures = FIGURES | {"ours": FIGURES["ours"] | changes}
    variants = {
        name: {
            "medians": dict.fromkeys(("p95", "p99", "batch_size"), 1.0) | kept,
            "rounds": [kept, kept],
        }
        for name, kept in figures.items()
    }
    return {
        "started": "2026-01-01T00:00:00+00:00",
        "commit": "abc",
        "machine": {"cores": 2},
        "versions": {"python": "3.11", "mongod": "6.0", "pymongo": "4"},
        "options": {
            "workers": 2,
            "connections": 128,
            "rounds": 2,
            "seconds": 5,
            "codes": 50_000,
            "uses": 2_000_000,
        },
        "scenarios": dict.fromkeys(SCENARIOS, variants),
    }


def test_a_run_that_reaches_all_goals_says_so() -> None:
    written = "\n".join(page(results(), ""))
    assert written.count("| yes |") == len(GOALS)
    assert "**no**" not in written


@pytest.mark.parametrize(
    ("change", "missed"),
    [
        ({"rate": 2400}, ["`hot`: requests/s against naive"]),
        ({"service_us": 376}, ["`hot`: service CPU a request against the empty endpoint"]),
        ({"mongod_us": 126}, ["`hot`: mongod CPU a request, naive against ours"]),
        ({"commands": 0.31}, ["`hot`: database commands a request"]),
        ({"p50": 10.6}, ["`lone`: p50 against naive"]),
    ],
)
def test_what_is_missed_is_named(change: dict[str, float], missed: list[str]) -> None:
    lines = [line for line in page(results(**change), "") if "**no**" in line]
    assert [line.split(" | ")[0].removeprefix("| ") for line in lines] == missed


def test_a_figure_is_the_median_of_pairs_and_not_of_each_side() -> None:
    run = results()
    hot = {name: dict(kept) for name, kept in run["scenarios"]["hot"].items()}
    rates = {"ours": [100, 200, 900], "naive": [10, 100, 100]}
    for name, values in rates.items():
        hot[name]["rounds"] = [FIGURES[name] | {"rate": rate} for rate in values]
    rounds = {"hot": {name: kept["rounds"] for name, kept in hot.items()}}
    assert GOALS[0].measured(rounds) == 9  # of 10, 2 and 9


def test_an_incomplete_run_is_refused(tmp_path: Path) -> None:
    run = results()
    run["scenarios"] = {"hot": run["scenarios"]["hot"]}
    path = tmp_path / "results.json"
    path.write_text(json.dumps(run))
    done = CliRunner().invoke(main, [str(path)])
    assert done.exit_code == 1
    assert "not of a complete run" in done.output
