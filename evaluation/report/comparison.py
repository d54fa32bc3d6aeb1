"""The figures that are compared directly: before, and after."""

from __future__ import annotations

from typing import Any

from evaluation.report.document import Evaluation


def comparison_rows(evaluation: Evaluation) -> list[tuple[str, str, str]]:
    """Return what was compared, before and after; only what was measured."""
    return [
        *_apply_rows(evaluation.comparison),
        *_memory_rows(evaluation.figures(3)),
        *_sale_rows(evaluation.figures(1), evaluation.scale.patience),
    ]


def _apply_rows(compared: dict[str, Any]) -> list[tuple[str, str, str]]:
    if not compared:
        return []
    before, after, seconds = compared["legacy"], compared["ours"], compared["seconds"]
    unfinished = f"did not finish in {seconds:.0f} s"

    def row(name: str, key: str, unit: str) -> tuple[str, str, str]:
        cells = [
            unfinished if value is None else f"{_digits(value)} {unit}"
            for value in (before[key], after[key])
        ]
        return name, cells[0], cells[1]

    name, old, new = row("Applies a second, 32 clients", "at_32_clients", "/s")
    if not before["answered_at_32"]:
        old = f"none in {seconds:.0f} s"
    return [
        row("Latency of one apply (median)", "median_ms", "ms"),
        (name, old.replace(" /s", "/s"), new.replace(" /s", "/s")),
        row("mongod CPU for one lone apply", "mongod_ms", "ms"),
    ]


def _digits(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _memory_rows(memory: dict[str, Any]) -> list[tuple[str, str, str]]:
    if not memory.get("legacy"):
        return []
    before, after = (_growth(memory[who]) for who in ("legacy", "service"))
    return [("Memory growth per 100,000 requests", f"{before}, empty database", after)]


def _growth(figures: dict[str, Any]) -> str:
    slope, requests = figures["trends"]["resident"]["slope"], figures["requests"][-1]
    return f"{slope * 1e5 / 1e6:+,.2f} MB (fitted over {requests:,} requests)"


def _sale_rows(burst: dict[str, Any], patience: float) -> list[tuple[str, str, str]]:
    if not burst.get("legacy"):
        return []
    uses, legacy = burst["uses"], burst["legacy"]
    nothing, real = legacy["legacy_empty"], legacy["legacy"]
    finished = real["answered"] == burst["requests"]
    there = (
        f"{real['recorded'] - uses:+,}"
        if finished
        else f"did not finish in {patience:.0f} s ({real['recorded']:,} recorded)"
    )
    before = f"{there}; {nothing['recorded'] - uses:+,} on an empty database"
    after = max(sale["recorded"] - uses for sale in burst["sales"])
    return [(f"Oversold uses in a sale of {uses}", before, f"{after:,}")]
