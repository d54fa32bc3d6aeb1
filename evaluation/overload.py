"""Three times what can be served, with load shedding and without: `python -m evaluation.overload`.

Half of the capacity is offered all the time, in an open loop; for a while, so much more comes on
top that it is three times the capacity.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click

from evaluation import prepared
from evaluation.claims.orders import apply_line, new_promo
from evaluation.lab import OURS, WORKERS, Lab, opened
from evaluation.load.offered import Answered
from evaluation.report.charts import Chart
from evaluation.report.excerpts import standalone
from evaluation.report.svg import Plot, Point, Series
from evaluation.scale import QUICK
from evaluation.slowed import capacity
from evaluation.trends import percentile

COMMAND_SECONDS = 0.2
USUAL, OVERLOAD = 0.5, 3.0
# As many requests as are on their way at three times the capacity, and fewer in all than gunicorn
# lets in.
CONNECTIONS = 3_000
BEFORE, DURING, AFTER = 8.0, 15.0, 15.0
PEAK_OFFERED, PEAK_SECONDS = 1.1, 15.0
# The load takes a moment to arrive everywhere: it is measured where it lasts.
SETTLED = 3.0
GRANTED = "200"
DEADLINE_MS = 2_000


@dataclass(frozen=True, slots=True)
class Run:
    """All requests of a run, by the time at which they were due, and what was recorded."""

    requests: list[Answered]
    recorded: int

    def granted(self) -> list[Answered]:
        """Return those that were told yes."""
        return [one for one in self.requests if one.outcome == GRANTED]

    def goodput(self, start: float, end: float) -> float:
        """Return how many were told yes in each second between these times."""
        return sum(start <= one.ended < end for one in self.granted()) / (end - start)

    def latency(self, start: float, end: float, p: float) -> float | None:
        """Return a percentile, in ms, of those told yes that were due between these times."""
        values = [one.latency_ms for one in self.granted() if start <= one.due < end]
        return percentile(values, p) if values else None


def measure_peak(lab: Lab) -> float:
    """Return how many applies a second are granted where just a few more are offered."""
    asked = [apply_line(new_promo(lab.database(), "PEAK", max_uses=10_000_000)["code"])]
    rate = PEAK_OFFERED * capacity(COMMAND_SECONDS) * WORKERS
    with lab.service(replace(OURS, app=f"evaluation.slowed:create_app({COMMAND_SECONDS})")) as it:
        requests = int(rate * PEAK_SECONDS)
        seen = lab.offer(it, asked, requests, rate=rate, connections=CONNECTIONS, drain=10)
    return Run(seen.requests, 0).goodput(SETTLED, PEAK_SECONDS)


def measure(lab: Lab, peak: float, *, shedding: bool) -> Run:
    """Offer the usual load, with the overload on top for a while."""
    app = f"evaluation.slowed:create_app({COMMAND_SECONDS}, shedding={shedding})"
    promo = new_promo(lab.database(), "OVERLOAD", max_uses=10_000_000)
    asked = [apply_line(promo["code"])]
    with lab.service(replace(OURS, app=app)) as service, ThreadPoolExecutor(2) as both:

        def offer(share: float, seconds: float, connections: int) -> list[Answered]:
            rate = share * peak
            requests = int(rate * seconds)
            return lab.offer(
                service, asked, requests, rate=rate, connections=connections, drain=10
            ).requests

        usual = both.submit(offer, USUAL, BEFORE + DURING + AFTER, CONNECTIONS // 5)
        time.sleep(BEFORE)
        more = both.submit(offer, OVERLOAD - USUAL, DURING, CONNECTIONS)
        late = [
            replace(one, due=one.due + BEFORE, sent=one.sent + BEFORE, ended=one.ended + BEFORE)
            for one in more.result()
        ]
        requests = sorted([*usual.result(), *late], key=lambda one: one.due)
    return Run(requests, lab.database()["promo_usage"].count_documents({"promoId": promo["_id"]}))


def figures(run: Run, peak: float) -> dict[str, Any]:
    """Return what is said of a run."""
    during, end = (BEFORE + SETTLED, BEFORE + DURING), BEFORE + DURING
    usual = run.latency(0, BEFORE, 95)
    return {
        "peak": peak,
        "offered_in_overload": OVERLOAD * peak,
        "goodput_in_overload": run.goodput(*during),
        "p95_before_ms": usual,
        "p95_in_overload_ms": run.latency(*during, 95),
        "p95_5s_after_ms": run.latency(end + 5, end + AFTER, 95),
        "outcomes": dict(Counter(one.outcome for one in run.requests)),
        "recorded_without_an_answer": run.recorded - len(run.granted()),
        "late": sum(one.latency_ms > 1.1 * DEADLINE_MS for one in run.requests),
    }


def charts(runs: dict[str, Run]) -> Iterator[Chart]:
    """Draw what was granted, and how late, over time."""
    seconds = range(int(BEFORE + DURING + AFTER))
    roles = {"with shedding": "after", "without": "before"}
    goodput = [
        Series(name, roles[name], [(float(s), run.goodput(s, s + 1)) for s in seconds])
        for name, run in runs.items()
    ]
    latency = [
        Series(name, roles[name], list(_p95(run, seconds)), dots=True) for name, run in runs.items()
    ]
    load = f"{OVERLOAD:.0f} times the capacity from second {BEFORE:.0f} to {BEFORE + DURING:.0f}"
    what = "Applies granted in each second"
    yield Chart("goodput", f"{what}, at {load}", "", Plot(what, "seconds", "granted/s", goodput))
    what = "p95 of those granted"
    yield Chart("latency", f"{what}, at {load}", "", Plot(what, "seconds", "ms", latency))


def _p95(run: Run, seconds: Sequence[int]) -> Iterator[Point]:
    for second in seconds:
        value = run.latency(second, second + 1, 95)
        if value is not None:
            yield float(second), value


@click.command()
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    default=prepared.FOLDER / "overload",
    help="Where overload.json and the plots go.  [default: .evaluation/overload]",
)
def main(output: Path) -> None:
    """Overload the service, with load shedding and without, and write figures and plots."""
    runs: dict[str, Run] = {}
    with opened(QUICK, click.echo, lambda _done, _total: None) as lab:
        peak = measure_peak(lab)
        click.echo(f"peak: {peak:.0f} applies/s", err=True)
        for name, shedding in (("with shedding", True), ("without", False)):
            click.echo(f"{name}: {BEFORE + DURING + AFTER:.0f} s ...", err=True)
            runs[name] = measure(lab, peak, shedding=shedding)
    found = {name: figures(run, peak) for name, run in runs.items()}
    output.mkdir(parents=True, exist_ok=True)
    (output / "overload.json").write_text(json.dumps(found, indent=1))
    for chart in charts(runs):
        (output / f"{chart.name}.svg").write_text(standalone(chart))
    click.echo(json.dumps(found, indent=1))
    wrong = found["with shedding"]["recorded_without_an_answer"]
    sys.exit(1 if wrong < 0 else 0)


if __name__ == "__main__":
    main()
