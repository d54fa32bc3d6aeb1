"""The command line: `python -m evaluation.scaling --help`."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
from pymongo import MongoClient

from evaluation import dataset, prepared
from evaluation.lab import OURS, Lab
from evaluation.load import LoadFailed
from evaluation.processes import ROOT, ServiceFailed
from evaluation.report.document import PACKAGES, machine
from evaluation.results import commit
from evaluation.scale import QUICK
from evaluation.scaling import pages, serial, served
from evaluation.scaling.measurement import HOT, LOADS, MANY, Batching, Measurement
from evaluation.scaling.sizing import Plan, Sizing
from promo_service import app, batcher, redeem
from promo_service.errors import MongodError
from promo_service.settings import Settings

Document = dict[str, Any]

KEPT = ROOT / "docs" / "scaling.json"
EXIT_WRONG, EXIT_CANNOT_RUN = 1, 3
# For a look whether everything works: its figures say nothing.
QUICK_CELLS = [one for one in serial.CELLS if one.claimants <= 2 and one.size <= 8]
QUICK_NUMBERS, QUICK_WORKERS, QUICK_SECONDS = (1, 2), (2,), 0.5
QUICK_CODES, QUICK_USES = 200, 2_000


@click.group()
def main() -> None:
    """Measure what more processes cost and bring, and reckon how far that goes."""


@main.command()
@click.option("--quick", is_flag=True, help="Little of everything: to see whether it works.")
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    default=KEPT,
    help="Where the figures go.  [default: docs/scaling.json]",
)
def measure(quick: bool, output: Path) -> None:
    """Measure everything, and renew what the pages say of it if it goes to its usual place.

    Starts everything itself: mongod with seeded data, batches straight at the store, and the
    service with 1, 2, 4 and 8 workers. Takes three minutes, and two more to seed the data once.
    """
    codes, uses = (QUICK_CODES, QUICK_USES) if quick else (dataset.CODES, dataset.USES)
    try:
        with _lab(codes, uses) as lab:
            found = _measured(lab, quick=quick)
    except (MongodError, ServiceFailed, LoadFailed) as error:
        click.echo(f"scaling: {error}", err=True)
        sys.exit(EXIT_CANNOT_RUN)
    found.write(output)
    click.echo(f"All figures: {output}")
    if output == KEPT:
        pages.write(Measurement.read(KEPT))
    if wrong := sum(run.wrong for run in found.runs):
        click.secho(f"!!! {wrong} requests were not granted", fg="red", err=True)
        sys.exit(EXIT_WRONG)


@main.command()
@click.option("--load", type=click.Choice(LOADS), default=HOT, show_default=True)
@click.option("--rate", type=click.FloatRange(1), help="Requests a second.  [default: several]")
@click.option("--processes", type=click.IntRange(1, 4096), help="[default: as many as it takes]")
@click.option(
    "--parts", type=click.IntRange(1), default=1, show_default=True, help="Documents of a hot code."
)
@click.option(
    "--commit-ms",
    type=click.FloatRange(0),
    help="How long the journal and the majority take.  [default: as measured]",
)
@click.option(
    "--figures",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    default=KEPT,
    help="What was measured.  [default: docs/scaling.json]",
)
def simulate(
    *,
    load: str,
    rate: float | None,
    processes: int | None,
    parts: int,
    commit_ms: float | None,
    figures: Path,
) -> None:
    """Say what a rate takes, from what was measured; nothing is started.

    Without --rate, prints the table of the page.
    """
    sizing = Sizing(Measurement.read(figures))
    if rate is None:
        click.echo(pages.plans(sizing))
        return
    commit_us = None if commit_ms is None else commit_ms * 1e3
    plan = Plan(load, rate, processes or 1, parts if load != MANY else 1, commit_us)
    answer = sizing.answer(plan) if processes else sizing.fewest(plan)
    click.echo(pages.table([pages.PLAN_HEADINGS, pages.plan_row("as asked", answer)]))


@main.command(name="pages")
def write_pages() -> None:
    """Renew what the pages say of the figures that are kept, and the plot."""
    pages.write(Measurement.read(KEPT))


def _measured(lab: Lab, *, quick: bool) -> Measurement:
    if quick:
        return Measurement(
            _about(lab),
            _batching(),
            serial.batches(lab, QUICK_CELLS, rounds=1),
            serial.contests(lab, QUICK_NUMBERS, QUICK_SECONDS),
            served.runs(lab, QUICK_WORKERS, QUICK_SECONDS),
        )
    lab.say("batches in turn, then at once, then over HTTP ...")
    return Measurement(
        _about(lab), _batching(), serial.batches(lab), serial.contests(lab), served.runs(lab)
    )


def _about(lab: Lab) -> Document:
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "codes": lab.scale.codes,
        "uses": lab.scale.uses,
        "machine": machine(),
        "mongod": lab.client.server_info()["version"],
        **{name: version(name) for name in PACKAGES},
    }


def _batching() -> Batching:
    settings = Settings("mongodb://none")
    return Batching(
        most=redeem.MAX_BATCH,
        crowd=batcher.CROWD,
        gather=batcher.MOST_GATHER_SECONDS,
        lanes=max(1, settings.max_pool_size // 2),
        claim_lasts=settings.request_timeout * app.CLAIM_TIMEOUTS,
    )


@contextmanager
def _lab(codes: int, uses: int) -> Iterator[Lab]:
    with ExitStack() as stack:
        # The legacy service takes no part, and needs no data.
        mongod = stack.enter_context(
            prepared.seeded_mongod(codes, uses, [OURS.database], lambda _done, _total: None)
        )
        folder = Path(stack.enter_context(TemporaryDirectory()))
        client = stack.enter_context(MongoClient[Document](mongod.uri, w="majority"))
        scale = replace(QUICK, codes=codes, uses=uses)
        yield Lab(scale, mongod, client, folder, click.echo)


if __name__ == "__main__":
    # An exception, so that everything that was started is stopped.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    main()
