"""Parts of the report that stand alone: its tables in Markdown, each plot as an SVG file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from docs.blocks import table
from evaluation.report.charts import WIDE, Chart
from evaluation.report.comparison import comparison_rows
from evaluation.report.document import Evaluation, machine

PLOT_STYLE = (Path(__file__).parent / "plot.css").read_text()
# Above the plot: its headline, and what its colours mean.
HEAD = 64
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif"
CHARACTER = 7.5


def tables(evaluation: Evaluation) -> str:
    """Write where the figures come from, the verdicts, and what was compared, in Markdown."""
    rows = comparison_rows(evaluation)
    parts = [_origin(evaluation), verdict_table(evaluation)]
    parts += [_written(("before against after", "before", "after"), rows)] if rows else []
    return "\n".join(parts)


def _origin(evaluation: Evaluation) -> str:
    scale, where = evaluation.scale, machine()
    return (
        f"From a run of `{evaluation.command}` on {evaluation.started:%-d %B %Y} "
        f"({evaluation.revision}): "
        f"{scale.codes:,} codes and {scale.uses:,} uses; {where['cores']} cores "
        f"({where['processor']}), which the database, the load and {where['workers']} worker "
        "processes share. *Before* is a port of the legacy service, faults included, on the same "
        "data.\n"
    )


def verdict_table(evaluation: Evaluation) -> str:
    """Write the verdicts as a table in Markdown."""
    rows = []
    for verdict in evaluation.verdicts:
        word = "holds" if verdict.holds else "**fails**"
        measured = "; ".join(filter(None, [verdict.finding.measured, verdict.repeated]))
        rows.append((verdict.claim.statement, measured, verdict.before.text, word))
    return _written(("claim", "measured", "before", "verdict"), rows)


def _written(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "".join(f"{line}\n" for line in table(titles, rows))


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
