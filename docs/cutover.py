"""Puts the figures of a migration into cutover.md: `python -m docs.cutover`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from docs import blocks

PAGE = Path(__file__).with_name("cutover.md")
FIGURES = Path(__file__).with_name("migration.json")
BLOCK = "migration"

TITLES = ["", "requests", "not answered 200", "p50, ms", "p95, ms", "p99, ms", "slowest, ms"]
PHASES = {
    "before": "applies before the migration",
    "during": "during",
    "after": "after",
}


def page() -> str:
    """Return the page with the figures as they were measured."""
    made = lines(json.loads(FIGURES.read_text())) if FIGURES.exists() else []
    return blocks.renewed(PAGE.read_text(), BLOCK, made)


def lines(figures: dict[str, Any]) -> Iterator[str]:
    """Yield what was measured: a sentence, and a table."""
    asked, machine, indexes = figures["asked"], figures["machine"], figures["indexes"]
    limit = f"`--max-rate {asked['max_rate']}`" if asked["max_rate"] else "no rate given"
    yield (
        f"Measured on {figures['measured']} by `python -m evaluation.migration`, on a machine of"
        f" {machine['cores']} cores ({machine['processor']}) with database, load and"
        f" {asked['workers']} worker processes on it: {asked['codes']:,} codes and"
        f" {asked['uses']:,} uses, beside {asked['rate']:,.0f} applies/s, {limit},"
        f" killed and resumed {figures['kills']} times. The indexes were built in"
        f" {indexes['seconds']:.0f} s, the rest took {figures['seconds']:.0f} s."
    )
    yield ""
    rows = [_row("uses recorded as legacy does, while the indexes are built", indexes, "recorded")]
    rows += [_row(name, figures[phase], "200") for phase, name in PHASES.items()]
    yield from blocks.table(TITLES, rows)


def _row(name: str, felt: dict[str, Any], right: str) -> list[str]:
    others = felt["requests"] - felt["outcomes"].get(right, 0)
    times = [f"{felt[p]:,.1f}" for p in ("p50", "p95", "p99", "p100")]
    return [name, f"{felt['requests']:,}", f"{others:,}", *times]


if __name__ == "__main__":
    PAGE.write_text(page())
