"""The report of an evaluation: for people, for machines, and in parts for other documents."""

from __future__ import annotations

import json
from pathlib import Path

from evaluation.report.charts import charts
from evaluation.report.document import Evaluation
from evaluation.report.excerpts import standalone, tables
from evaluation.report.page import page

TABLES = "tables.md"


def write_report(evaluation: Evaluation, folder: Path) -> Path:
    """Write report.html, report.json, tables.md and the plots; return the path of the page."""
    folder.mkdir(parents=True, exist_ok=True)
    document = json.dumps(evaluation.as_plain(), separators=(",", ":"))
    (folder / "report.json").write_text(document + "\n")
    (folder / TABLES).write_text(tables(evaluation))
    plots = list(charts(evaluation))
    for chart in plots:
        (folder / f"{chart.name}.svg").write_text(standalone(chart))
    path = folder / "report.html"
    path.write_text(page(evaluation, plots))
    return path
