"""Whether each claim fails when it is wrong: `python -m evaluation.planted --help`.

A verdict that cannot be FAILS says nothing. So a fault is planted in the service for each claim,
and the claim is measured as in a quick look.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import click

from docs import blocks
from evaluation.claims import CLAIMS, Verdict
from evaluation.evaluate import EXIT_CANNOT_RUN, EXIT_FALSE
from evaluation.faults import FAULTS, Fault
from evaluation.judging import judge
from evaluation.lab import Lab, opened
from evaluation.load import LoadFailed
from evaluation.processes import ServiceFailed
from evaluation.scale import QUICK
from promo_service.errors import MongodError

# One round shows a sleep as well as three.
SCALE = replace(QUICK, burst_rounds=1, lone_requests=50)


def is_noticed(fault: Fault, verdict: Verdict) -> bool:
    """Whether the claim fails, and because of the fault."""
    return any(fault.complaint in problem for problem in verdict.finding.problems)


def table(noticed: list[tuple[Fault, Verdict]]) -> str:
    """Write what became of each fault as a table in Markdown."""
    rows = []
    for fault, verdict in noticed:
        word = "fails" if is_noticed(fault, verdict) else "**not noticed**"
        because = "; ".join(verdict.finding.problems) or verdict.finding.measured
        rows.append([f"{fault.claim}. {verdict.claim.name}", fault.what, word, because])
    return "\n".join([*blocks.table(["claim", "planted", "verdict", "because"], rows), ""])


def _plant(lab: Lab, faults: list[Fault]) -> Iterator[tuple[Fault, Verdict]]:
    for fault in faults:
        lab.kept.clear()
        lab.fault = fault
        yield fault, judge(CLAIMS[fault.claim], lab, compare=False)


@click.command(
    epilog="Exit codes: 0 every fault was noticed, 1 some were not, 2 wrong usage, 3 something "
    "could not be started, or died."
)
@click.option(
    "--scenario",
    "numbers",
    multiple=True,
    type=click.IntRange(min(CLAIMS), max(CLAIMS)),
    help="Only the fault of this claim; may be repeated.",
)
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the table to this file too.",
)
def main(numbers: tuple[int, ...], output: Path | None) -> None:
    """Plant a fault in the service for each claim, and see that the claim fails because of it."""
    started = time.monotonic()
    # The dropped index stays away, so that one comes last.
    faults = sorted(FAULTS, key=lambda each: bool(each.dropped_index))
    faults = [fault for fault in faults if not numbers or fault.claim in numbers]
    seen: list[tuple[Fault, Verdict]] = []
    try:
        with opened(SCALE, lambda _text: None, lambda _done, _total: None) as lab:
            for fault, verdict in _plant(lab, faults):
                seen.append((fault, verdict))
                word = "noticed" if is_noticed(fault, verdict) else "NOT NOTICED"
                click.echo(f"{fault.claim}. {fault.what}: {word} ({verdict.seconds:.0f} s)")
    except (LoadFailed, MongodError, ServiceFailed) as error:
        click.echo(f"planted: {error}", err=True)
        sys.exit(EXIT_CANNOT_RUN)
    written = table(sorted(seen, key=lambda each: each[0].claim))
    click.echo(f"\n{written}")
    if output is not None:
        output.write_text(written)
    missed = sum(not is_noticed(*each) for each in seen)
    click.echo(f"{len(seen) - missed} of {len(seen)} noticed in {time.monotonic() - started:.0f} s")
    sys.exit(EXIT_FALSE if missed else 0)


if __name__ == "__main__":
    # An exception, so that everything that was started is stopped.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    main()
