"""What the benchmarks should show, and what they have shown: `python -m evaluation.goals --help`.

Each figure is the median of pairs: two variants that took their turns one after the other.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import ge, le
from pathlib import Path
from statistics import median
from typing import Any

import click

from docs.blocks import fill, table
from evaluation.figures import COLUMNS
from evaluation.processes import ROOT

DOCUMENT = ROOT / "docs" / "performance.md"
BLOCK = "evaluation"
SHOWN = ("rate", "p50", "p95", "p99", "service_us", "mongod_us", "commands", "batch_size")

# Rounds by scenario and variant; each is a mapping of figures.
Rounds = Mapping[str, Mapping[str, Sequence[Mapping[str, float]]]]


@dataclass(frozen=True, slots=True)
class Goal:
    """A figure and its bound; the figure is a quotient of two, or one by itself."""

    name: str
    scenario: str
    figure: str
    bound: float
    better: Callable[[float, float], bool]
    # Variant and, where it is another one, scenario.
    of: tuple[str, str | None] = ("ours", None)
    by: tuple[str, str | None] | None = ("naive", None)

    def measured(self, rounds: Rounds) -> float:
        """Return the median over the rounds."""
        above = self._values(rounds, *self.of)
        below = self._values(rounds, *self.by) if self.by else [1.0] * len(above)
        return median(a / b for a, b in zip(above, below, strict=True))

    def _values(self, rounds: Rounds, variant: str, scenario: str | None) -> list[float]:
        return [one[self.figure] for one in rounds[scenario or self.scenario][variant]]

    def row(self, rounds: Rounds) -> list[str]:
        """Return a line of the table."""
        value = self.measured(rounds)
        word = "yes" if self.better(value, self.bound) else "**no**"
        sign = "at least" if self.better is ge else "at most"
        return [self.name, f"{sign} {self.bound:g}", f"{value:.2f}", word]


GOALS = (
    Goal("`hot`: requests/s against naive", "hot", "rate", 5, ge),
    Goal(
        "`hot`: service CPU a request against the empty endpoint",
        "hot",
        "service_us",
        1.5,
        le,
        by=("empty", None),
    ),
    Goal(
        "`hot`: mongod CPU a request, naive against ours",
        "hot",
        "mongod_us",
        12,
        ge,
        of=("naive", None),
        by=("ours", None),
    ),
    Goal("`hot`: database commands a request", "hot", "commands", 0.3, le, by=None),
    Goal("`soldout`: requests/s against naive", "soldout", "rate", 4, ge),
    Goal("`replay`: requests/s against naive", "replay", "rate", 4, ge),
    Goal("`zipf`: requests/s against naive", "zipf", "rate", 2, ge),
    Goal("`spread`: requests/s against naive", "spread", "rate", 1.5, ge),
    Goal("`lone`: p50 against naive", "lone", "p50", 1.05, le),
    Goal("`hot` against `spread`: requests/s", "hot", "rate", 1, ge, by=("ours", "spread")),
)


def page(results: Mapping[str, Any], sale: str) -> list[str]:
    """Return the lines of the block: the goals, then the medians of every scenario."""
    rounds = {
        scenario: {variant: kept["rounds"] for variant, kept in variants.items()}
        for scenario, variants in results["scenarios"].items()
    }
    lines = [
        _about(results),
        "",
        *table(["figure", "goal", "measured", "reached"], [goal.row(rounds) for goal in GOALS]),
        "",
        *(["`make flash-sale`, another run:", "", "```", sale.strip(), "```", ""] * bool(sale)),
    ]
    for scenario, variants in results["scenarios"].items():
        lines += [*_medians(scenario, variants), ""]
    return lines[:-1]


def _about(results: Mapping[str, Any]) -> str:
    options, versions = results["options"], results["versions"]
    return (
        f"`make bench` on {results['started'][:10]}, commit {results['commit']}: "
        f"{results['machine']['cores']} cores for all, {options['workers']} workers each, "
        f"{options['connections']} connections, {options['rounds']} rounds of "
        f"{options['seconds']} s, {options['codes']:,} codes and {options['uses']:,} uses; "
        f"Python {versions['python']}, mongod {versions['mongod']}, PyMongo {versions['pymongo']}."
    )


def _medians(scenario: str, variants: Mapping[str, Any]) -> list[str]:
    columns = [each for each in COLUMNS if each[0] in SHOWN]
    heads = [f"`{scenario}`", *(heading for _, heading, _ in columns)]
    rows = [
        [name, *(_cell(kept["medians"][figure], write) for figure, _, write in columns)]
        for name, kept in variants.items()
    ]
    return table(heads, rows)


def _cell(value: float | None, write: Callable[[float], str]) -> str:
    return "" if value is None else write(value)


@click.command()
@click.argument("results", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--sale",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="What `make flash-sale` has printed.",
)
@click.option("--write", is_flag=True, help="Into the block of docs/performance.md.")
def main(results: Path, sale: Path | None, write: bool) -> None:
    """Compare the results of a complete `make bench`, a file in .evaluation, with the goals."""
    try:
        found = json.loads(results.read_text())
        block = page(found, sale.read_text() if sale else "")
    except (KeyError, ValueError) as error:
        click.echo(f"goals: {results} is not of a complete run: {error}", err=True)
        sys.exit(1)
    click.echo("\n".join(block))
    if write:
        fill(DOCUMENT, BLOCK, block)


if __name__ == "__main__":
    main()
