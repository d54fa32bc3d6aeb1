"""The documents say what is: what they name is there, what is made from code is up to date."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from click import Context, Group
from prometheus_client import generate_latest

from docs import api, cutover
from docs.blocks import fill, renewed, table
from promo_service import cli, settings
from promo_service.metrics import Metrics, ReconcileMetrics

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
WATCHED = [
    *sorted((ROOT / "deploy" / "prometheus").glob("*.yaml")),
    ROOT / "deploy" / "grafana" / "promo.json",
]
METRIC = re.compile(r"\b(?:promo|process|python)_[a-z0-9_]+\b")
# What else begins like a metric: the collections, the package, a part of a path.
NO_METRICS = {"promo_codes", "promo_usage", "promo_service", "promo_id", "promo_uses_of_user"}
VARIABLE = re.compile(r"\b(PROMO_[A-Z_]+|MONGODB_URI)\b")


def test_the_page_on_the_api_is_that_of_the_openapi_document() -> None:
    assert api.PAGE.read_text() == api.page(), "run python -m docs.api"


BEGIN, END = "<!-- x: begin -->\n", "<!-- x: end -->\n"


def test_only_what_is_in_the_block_is_replaced(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}old\n{END}after\n")
    for _ in range(2):
        fill(page, "x", ["new", "lines"])
    assert page.read_text() == f"before\n{BEGIN}new\nlines\n{END}after\n"


@pytest.mark.parametrize(
    "torn", ["", BEGIN, END, END + BEGIN, BEGIN + BEGIN + END, BEGIN + END + END, 2 * (BEGIN + END)]
)
def test_a_page_without_one_such_block_is_left_as_it_is(torn: str, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(torn)
    with pytest.raises(ValueError, match="no block x"):
        fill(page, "x", ["new"])
    assert page.read_text() == torn
    with pytest.raises(ValueError, match="no block y"):
        renewed(BEGIN + END, "y", [])


def test_a_table_has_a_head_and_no_more_columns_than_that() -> None:
    assert table(["a", "b"], [["1", "2|3"]]) == ["| a | b |", "| --- | --- |", "| 1 | 2\\|3 |"]


FIGURES: dict[str, Any] = {
    "measured": "2026-01-01",
    "machine": {"cores": 2, "processor": "a processor"},
    "asked": {"codes": 50_000, "uses": 2_000_000, "rate": 500.0, "max_rate": None, "workers": 2},
    "indexes": {"seconds": 12.3, "outcomes": {"recorded": 1200}},
    "seconds": 400.4,
    "kills": 3,
    "before": {"outcomes": {"200": 1200}},
    "during": {"outcomes": {"200": 1198, "503 UNAVAILABLE": 2}},
    "after": {"outcomes": {"200": 1200}},
}
FELT = {"requests": 1200, "p50": 1.0, "p95": 2.0, "p99": 3.0, "p100": 1004.0}


def test_the_table_of_a_migration_shows_every_phase() -> None:
    phases = ("indexes", "before", "during", "after")
    figures = {**FIGURES, **{phase: {**FELT, **FIGURES[phase]} for phase in phases}}
    said, _, _, _, *rows = cutover.lines(figures)
    assert "2,000,000 uses, beside 500 applies/s, no rate given, killed and resumed 3 times" in said
    assert "built in 12 s, the rest took 400 s" in said
    assert [row.split(" | ")[2] for row in rows] == ["0", "0", "2", "0"]
    assert all(row.endswith("| 1,200 | 0 | 1.0 | 2.0 | 3.0 | 1,004.0 |") for row in rows[::3])


def test_the_guide_shows_the_migration_that_was_measured() -> None:
    assert cutover.PAGE.read_text() == cutover.page(), "run python -m docs.cutover"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_to_a_file(page: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_module_that_is_named_is_there(page: Path) -> None:
    named = set(re.findall(r"`((?:\w+/)*\w+\.py)`", page.read_text()))
    there = {path.name for path in ROOT.glob("[!.]*/**/*.py")} | {p.name for p in ROOT.glob("*.py")}
    assert {name for name in named if Path(name).name not in there} == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_and_option_of_the_service_that_is_named_is_there(page: Path) -> None:
    assert isinstance(cli.main, Group)
    commands = cli.main.commands
    for name, options in re.findall(r"python -m promo_service (\w+)([^\n`#|]*)", page.read_text()):
        assert name in commands, f"{page.name} names the command {name}"
        context = Context(commands[name])
        known = {flag for param in commands[name].get_params(context) for flag in param.opts}
        assert set(re.findall(r"--[\w-]+", options)) <= known, f"{page.name}: {name} {options}"


def test_the_readme_lists_every_setting_and_no_other() -> None:
    readers = [Path(settings.__file__), ROOT / "gunicorn.conf.py"]
    read = {name for path in readers for name in VARIABLE.findall(path.read_text())}
    table = (ROOT / "README.md").read_text().partition("## Settings")[2].partition("\n## ")[0]
    assert set(VARIABLE.findall(table)) == read


def exposed() -> set[str]:
    """Return the names of all series that a service, or reconcile, can expose."""
    text = (Metrics().exposition() + generate_latest(ReconcileMetrics().registry)).decode()
    kinds = re.findall(r"^# TYPE (\w+) (\w+)$", text, re.MULTILINE)
    parts = {"histogram": ("", "_bucket", "_sum", "_count")}
    return {name + part for name, kind in kinds for part in parts.get(kind, ("",))}


@pytest.mark.parametrize("path", [*PAGES, *WATCHED], ids=lambda path: path.name)
def test_every_metric_that_is_named_is_there(path: Path) -> None:
    assert set(METRIC.findall(path.read_text())) - NO_METRICS - exposed() == set()
