"""The figures of a report in a document: `python -m evaluation.excerpt --help`."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import click

from docs.blocks import renewed
from evaluation import prepared
from evaluation.processes import ROOT
from evaluation.report import TABLES

BLOCK = "evaluation"
PLOTS = Path("docs/plots")


@click.command()
@click.option(
    "--report",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=prepared.FOLDER / "report",
    help="What `make evaluate` has written.  [default: .evaluation/report]",
)
@click.option("--plot", default="latency-over-time", show_default=True, help="Which plot to show.")
@click.option(
    "--document",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    default=ROOT / "README.md",
    help="The document to change.  [default: README.md]",
)
def main(report: Path, plot: str, document: Path) -> None:
    """Put the tables and a plot of a report into their block of README.md.

    Nobody copies a figure by hand.
    """
    picture = PLOTS / f"{plot}.svg"
    shown = f"![{plot.replace('-', ' ').capitalize()}, before and after]({picture})"
    try:
        tables = (report / TABLES).read_text().splitlines()
        text = renewed(document.read_text(), BLOCK, [*tables, "", shown])
        shutil.copyfile(report / picture.name, ROOT / picture)
    except (OSError, ValueError) as error:
        click.echo(f"excerpt: {document.name}: {error}", err=True)
        sys.exit(1)
    document.write_text(text)
    click.echo(f"{document.name} and {picture} show {report}")


if __name__ == "__main__":
    main()
