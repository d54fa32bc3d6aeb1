"""Puts the figures of a migration into cutover.md: `python -m docs.cutover`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PAGE = Path(__file__).with_name("cutover.md")
FIGURES = Path(__file__).with_name("migration.json")
BLOCK = re.compile(r"(?<=<!-- migration -->\n).*?(?=<!-- /migration -->)", re.DOTALL)

PHASES = {
    "before": "applies before the migration",
    "during": "during",
    "after": "after",
}


def page() -> str:
    """Return the page with the figures as they were measured."""
    made = table(json.loads(FIGURES.read_text())) + "\n" if FIGURES.exists() else ""
    return BLOCK.sub(lambda _: made, PAGE.read_text())


def table(figures: dict[str, Any]) -> str:
    """Return what was measured: a sentence, and a table."""
    return "\n".join(_lines(figures))


def _lines(figures: dict[str, Any]) -> Iterator[str]:
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
    yield "| | requests | not answered 200 | p50, ms | p95, ms | p99, ms | slowest, ms |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    yield _row("uses recorded as legacy does, while the indexes are built", indexes, "recorded")
    for phase, name in PHASES.items():
        yield _row(name, figures[phase], "200")


def _row(name: str, felt: dict[str, Any], right: str) -> str:
    others = felt["requests"] - felt["outcomes"].get(right, 0)
    times = " | ".join(f"{felt[p]:,.1f}" for p in ("p50", "p95", "p99", "p100"))
    return f"| {name} | {felt['requests']:,} | {others:,} | {times} |"


if __name__ == "__main__":
    PAGE.write_text(page())
