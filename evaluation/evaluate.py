"""The command line of the evaluation: `python -m evaluation.evaluate --help`."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from evaluation import before_after, judging, ladder, prepared
from evaluation.claims import CLAIMS, Verdict
from evaluation.lab import Lab, opened
from evaluation.load import LoadFailed
from evaluation.processes import ServiceFailed
from evaluation.report import write_report
from evaluation.report.document import Evaluation
from evaluation.scale import FULL, QUICK, Scale
from promo_service.errors import MongodError

EXIT_FALSE = 1
EXIT_CANNOT_RUN = 3
Figures = dict[str, Any]

UNITS = {"s": 1, "m": 60, "h": 3600}
SOAK = 3
RATE = 50
MINUTE = 60
FEWEST_MINUTES = 8


def to_seconds(text: str) -> float:
    """Read a duration such as 90s, 30m or 8h; raises ValueError."""
    if text[-1:] not in UNITS or not text[:-1].replace(".", "", 1).isdigit():
        raise ValueError(f"{text!r} is not a duration such as 30m or 8h")
    return float(text[:-1]) * UNITS[text[-1]]


def _to_duration(
    _context: click.Context, _option: click.Parameter, text: str | None
) -> float | None:
    try:
        return None if text is None else to_seconds(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


@click.command(
    epilog="Exit codes: 0 every claim holds, 1 some do not, 2 wrong usage, "
    "3 something could not be started, or died."
)
@click.option("--quick", is_flag=True, help="Less data and fewer requests: under 3 minutes.")
@click.option(
    "--duration",
    callback=_to_duration,
    metavar="TIME",
    help="Play the memory claim in real time, at 50/s, for so long: 30m, 8h.",
)
@click.option(
    "--scenario",
    "numbers",
    multiple=True,
    type=click.IntRange(min(CLAIMS), max(CLAIMS)),
    help="Only this claim; may be repeated.  [default: all, and the comparison]",
)
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where report.json and report.html go.  [default: .evaluation/report, or quick-report]",
)
def main(
    quick: bool, duration: float | None, numbers: tuple[int, ...], output: Path | None
) -> None:
    """Show, on this machine, what was wrong with the legacy service and that it is right now.

    Starts everything itself: mongod with seeded data, the services under gunicorn as in
    production, and the load. Measures the seven claims, before and after, and writes a report.
    """
    scale = chosen_scale(quick=quick, duration=duration)
    # A quick look does not replace the figures of hours.
    folder = output or prepared.FOLDER / ("quick-report" if quick else "report")
    evaluation = Evaluation(scale=scale, command=_command())
    try:
        with opened(scale, _say, _say_seeded) as lab:
            evaluation.mongod = lab.client.server_info()["version"]
            for measured in _measure(lab, numbers, evaluation):
                # What takes hours may be stopped: the report holds what there is.
                path = write_report(evaluation, folder)
                click.echo(measured)
    except (LoadFailed, MongodError, ServiceFailed) as error:
        click.echo(f"evaluate: {error}", err=True)
        sys.exit(EXIT_CANNOT_RUN)
    click.echo(f"\nReport: {path}")
    sys.exit(0 if _summarise(evaluation.verdicts) else EXIT_FALSE)


def _measure(lab: Lab, numbers: Sequence[int], evaluation: Evaluation) -> Iterator[str]:
    """Measure what was asked for, and the comparison with all; yield what was found in words."""
    # The longest comes last.
    for number in sorted(set(numbers or CLAIMS), key=lambda each: (each == SOAK, each)):
        if number == SOAK and not numbers:
            yield from _compare(lab, evaluation)
        claim = CLAIMS[number]
        _announce(f"{claim.number}. {claim.name}: {claim.statement}")
        verdict = judging.judge(claim, lab)
        evaluation.verdicts.append(verdict)
        evaluation.verdicts.sort(key=lambda each: each.claim.number)
        yield _described(verdict)


def _compare(lab: Lab, evaluation: Evaluation) -> Iterator[str]:
    _announce("Before against after: single applies, and 32 clients")
    evaluation.comparison, said = _measured_or_said(before_after.measure, lab)
    yield said
    _announce("Throughput against offered load")
    evaluation.ladder, said = _measured_or_said(ladder.climb, lab)
    yield said


def _measured_or_said(measure: Callable[[Lab], Figures], lab: Lab) -> tuple[Figures, str]:
    """Measure what is no claim: where it fails, the claims are judged all the same."""
    lab.rest()
    try:
        return measure(lab), "   done"
    except judging.OUR_TROUBLE as error:
        return {}, click.style(f"   !!! {judging.CANNOT}: {error}", fg="red")


def chosen_scale(*, quick: bool, duration: float | None) -> Scale:
    """Return the sizes that were asked for.

    In real time a segment of the soak is a minute, and there are enough of them for a slope.
    """
    scale = QUICK if quick else FULL
    if duration is None:
        return scale
    requests = int(RATE * max(duration, FEWEST_MINUTES * MINUTE))
    return replace(scale, soak_requests=requests, soak_segment=RATE * MINUTE, real_time=True)


def _described(verdict: Verdict) -> str:
    finding, colour = verdict.finding, "green" if verdict.holds else "red"
    word = "holds" if verdict.holds else "FAILS"
    lines = [click.style(f"   {word}: {finding.measured}", fg=colour)]
    lines += [click.style(f"   !!! {problem}", fg="red") for problem in finding.problems]
    lines += [f"   {verdict.repeated}"] if verdict.repeated else []
    return "\n".join([*lines, f"   before: {verdict.before.text}  ({verdict.seconds:.0f} s)"])


def _announce(text: str) -> None:
    click.secho(f"\n{text}", bold=True)


def _summarise(verdicts: Sequence[Verdict]) -> bool:
    held = sum(verdict.holds for verdict in verdicts)
    click.secho(f"{held} of {len(verdicts)} claims hold", bold=True)
    return held == len(verdicts)


def _command() -> str:
    return " ".join(["python -m evaluation.evaluate", *sys.argv[1:]])


def _say(text: str) -> None:
    click.echo(f"   {text}", err=True)


def _say_seeded(done: int, total: int) -> None:
    click.echo(f"\rseeding {done / total:4.0%} of {total:,} documents", nl=done == total, err=True)


if __name__ == "__main__":
    # An exception, so that everything that was started is stopped.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    main()
