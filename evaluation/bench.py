"""The command line of the benchmarks: `python -m evaluation.bench --help`."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

import click

from evaluation import dataset, prepared
from evaluation.comparison import Plan, compare
from evaluation.load import LoadFailed
from evaluation.processes import VARIANTS, ServiceFailed, Variant
from evaluation.results import Results
from evaluation.scenarios import SCENARIOS, Scenario
from promo_service.errors import MongodError

CORES = len(os.sched_getaffinity(0))
EXIT_WRONG = 1
EXIT_CANNOT_RUN = 3


def _to_variants(_context: click.Context, _option: click.Parameter, value: str) -> list[Variant]:
    names = value.split(",")
    unknown = [name for name in names if name not in VARIANTS]
    if unknown:
        raise click.BadParameter(f"{', '.join(unknown)}: choose from {', '.join(VARIANTS)}")
    return [VARIANTS[name] for name in names]


def _to_scenarios(
    _context: click.Context, _option: click.Parameter, names: tuple[str, ...]
) -> list[Scenario]:
    return [SCENARIOS[name] for name in names or SCENARIOS]


def _to_pinned(_context: click.Context, _option: click.Parameter, value: bool) -> bool:
    if value and CORES < 2:
        raise click.BadParameter("there is only one core")
    return value


@click.command(
    epilog="Exit codes: 0 all answers and all books were right, 1 some were not, "
    "2 wrong usage, 3 something could not be started or died."
)
@click.option(
    "--scenario",
    "scenarios",
    multiple=True,
    type=click.Choice(list(SCENARIOS)),
    callback=_to_scenarios,
    help="A load to run; may be repeated.  [default: all]",
)
@click.option(
    "--variants",
    default="ours,naive,empty",
    show_default=True,
    callback=_to_variants,
    help=f"What to compare, comma separated; there are {', '.join(VARIANTS)}.",
)
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(1))
@click.option(
    "--seconds", default=5, show_default=True, type=click.IntRange(1), help="Length of a round."
)
@click.option("--connections", default=128, show_default=True, type=click.IntRange(1))
@click.option(
    "--workers",
    default=CORES,
    show_default="number of cores",
    type=click.IntRange(1),
    help="Worker processes of each service.",
)
@click.option("--codes", default=dataset.CODES, show_default=True, type=click.IntRange(1))
@click.option("--uses", default=dataset.USES, show_default=True, type=click.IntRange(0))
@click.option(
    "--pin",
    "pinned",
    is_flag=True,
    callback=_to_pinned,
    help="Give half of the cores to the services, the others to mongod and the load.",
)
def main(**options: Any) -> None:
    """Measure requests/s, latency, CPU and database work of the service and its yardsticks.

    Starts everything itself: mongod with seeded data, each service under gunicorn as in
    production, and the load (wrk, or a slower generator where there is none). In each scenario
    the variants take turns. The tables show medians; all rounds go to .evaluation/<time>.json.
    After each round the uses recorded are compared with the counters, limits and answers.
    """
    plan = Plan(**options)
    results = Results(plan.as_plain())
    failure = None
    try:
        compare(plan, results)
    except (MongodError, ServiceFailed, LoadFailed) as error:
        failure = error
    if results.rounds:
        click.echo(f"All rounds: {results.write(prepared.FOLDER)}")
    for problem in results.problems:
        click.secho(f"!!! {problem}", fg="red", err=True)
    if failure:
        click.echo(f"bench: {failure}", err=True)
        sys.exit(EXIT_CANNOT_RUN)
    sys.exit(EXIT_WRONG if results.problems else 0)


if __name__ == "__main__":
    # An exception, so that everything that was started is stopped.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    main()
