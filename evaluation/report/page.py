"""The report for people: one HTML file that loads nothing from elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from evaluation.report.charts import Chart
from evaluation.report.comparison import comparison_rows
from evaluation.report.document import Evaluation, machine
from evaluation.report.excerpts import PLOT_STYLE

FOLDER = Path(__file__).parent


def page(evaluation: Evaluation, plots: Sequence[Chart]) -> str:
    """Write the page."""
    templates = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    held = sum(verdict.holds for verdict in evaluation.verdicts)
    return templates.get_template("page.html").render(
        style=PLOT_STYLE + (FOLDER / "style.css").read_text(),
        started=evaluation.started,
        held=held,
        verdicts=evaluation.verdicts,
        scale=evaluation.scale,
        rows=comparison_rows(evaluation),
        charts=plots,
        machine=machine(),
        versions=evaluation.versions(),
        revision=evaluation.revision,
        command=evaluation.command,
    )
