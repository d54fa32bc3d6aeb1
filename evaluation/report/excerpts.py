"""Parts of the report that stand alone: the verdicts in Markdown, each plot as an SVG file."""

from __future__ import annotations

from html import escape
from pathlib import Path

from evaluation.report.charts import WIDE, Chart
from evaluation.report.document import Evaluation

PLOT_STYLE = (Path(__file__).parent / "plot.css").read_text()
# Above the plot: its headline, and what its colours mean.
HEAD = 64
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif"
CHARACTER = 7.5


def verdict_table(evaluation: Evaluation) -> str:
    """Write the verdicts as a table in Markdown, with the command that made them."""
    lines = ["| claim | measured | before | verdict |", "| --- | --- | --- | --- |"]
    for verdict in evaluation.verdicts:
        finding, word = verdict.finding, "holds" if verdict.holds else "**fails**"
        cells = [verdict.claim.statement, finding.measured, finding.before, word]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join([*lines, "", f"`{evaluation.command}`, {evaluation.started:%Y-%m-%d}", ""])


def standalone(chart: Chart) -> str:
    """Write a plot with its headline and legend as a file of its own."""
    width, height = WIDE
    inner = chart.wide.replace("<svg ", f'<svg y="{HEAD}" width="{width}" height="{height}" ', 1)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height + HEAD}" '
        f'font-family="{FONT}">'
        f"<style>{PLOT_STYLE}</style>"
        f'<rect width="100%" height="100%" rx="8" fill="var(--panel)"/>'
        f'<text class="headline" x="14" y="26">{escape(chart.headline)}</text>'
        f"{_legend(chart)}{inner}</svg>\n"
    )


def _legend(chart: Chart) -> str:
    parts, x = [], 14.0
    for series in chart.plot.series:
        if series.name:
            text = f'<tspan fill="currentColor">&#9679;</tspan> {escape(series.name)}'
            parts.append(f'<text class="{series.role}" x="{x}" y="50">{text}</text>')
            x += CHARACTER * (len(series.name) + 4)
    return "".join(parts)
