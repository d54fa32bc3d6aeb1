"""The plots of the report, each with what it shows in plain language."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from evaluation.claims.flash_sale import PERCENTILES
from evaluation.report.document import Evaluation
from evaluation.report.svg import Plot, Point, Series, draw
from evaluation.trends import percentile

WIDE, NARROW = (760, 330), (380, 300)
MOST_DOTS = 1_500
MEGABYTE = 1e6
# Of what was offered: the generator shares the cores, and is a little late.
KEPT_UP = 0.95


@dataclass(frozen=True, slots=True)
class Chart:
    """A plot with its headline and its text; `name` is that of its file."""

    name: str
    headline: str
    text: str
    plot: Plot

    @property
    def wide(self) -> str:
        """The plot for a wide window."""
        return draw(self.plot, *WIDE)

    @property
    def narrow(self) -> str:
        """The plot for a narrow window."""
        return draw(self.plot, *NARROW)


def charts(evaluation: Evaluation) -> Iterator[Chart]:
    """Make the plots for which there are figures."""
    validation, peak = evaluation.figures(2), evaluation.figures(5)
    memory, burst = evaluation.figures(3), evaluation.figures(1)
    if validation.get("legacy"):
        yield _over_time(validation)
        yield _distribution(validation, peak)
    if evaluation.ladder:
        yield _throughput(evaluation.ladder)
    if memory.get("legacy"):
        yield _memory(memory)
    if burst.get("legacy"):
        yield _sale(burst)


def _over_time(figures: dict[str, Any]) -> Chart:
    after, before = figures["normal"], figures["legacy"]["normal"]
    seconds = max(after["due"][-1], before["due"][-1])
    unanswered = before["requests"] - before["answered"]
    missing = (
        f" {unanswered:,} of the {before['requests']:,} legacy requests were never answered: "
        "their dots show how long they had waited when the measurement ended."
        if unanswered
        else ""
    )
    return Chart(
        "latency-over-time",
        f"Latency over time, at {figures['rate']:.0f} requests a second",
        "Each dot is one request, timed from the moment at which it should have been sent; a step "
        "up the scale is ten times as long. A service that keeps up draws a level band. One that "
        f"does not draws a line that climbs with its queue.{missing}",
        Plot(
            "Latency of each request over time, before and after",
            "seconds",
            "milliseconds, each line ten times the one below",
            [
                Series("before: legacy apply", "before", _sampled(before), dots=True),
                Series("after: validate", "after", _sampled(after), dots=True),
                Series("100 ms", "limit", [(0, 100), (seconds, 100)]),
            ],
            log_y=True,
        ),
    )


def _sampled(figures: dict[str, Any]) -> list[Point]:
    points = list(zip(figures["due"], figures["latency_ms"], strict=True))
    return points[:: max(1, math.ceil(len(points) / MOST_DOTS))]


def _distribution(validation: dict[str, Any], peak: dict[str, Any]) -> Chart:
    series = [
        Series("before: legacy apply at 50/s", "before", _tail(validation["legacy"]["normal"])),
        Series("after: validate at 50/s", "after", _tail(validation["normal"])),
    ]
    if peak:
        points = [(_nines(p), peak["percentiles"][str(p)]) for p in PERCENTILES]
        name = f"after: apply at {peak['sent_rate']:,.0f}/s"
        series.append(Series(name, "other", points))
    return Chart(
        "latency-distribution",
        "Latency distribution",
        "How long the quickest half, nine of ten, 99 of 100 requests took. The further right, the "
        "rarer the request; the steeper a line ends, the worse is a bad day of a customer.",
        Plot(
            "Latency by percentile, before and after",
            "of the requests took at most this",
            "milliseconds, each line ten times the one below",
            series,
            log_y=True,
            x_ticks=[(_nines(p), f"{p:g}%") for p in (50, 90, 99, 99.9)],
        ),
    )


def _tail(figures: dict[str, Any]) -> list[Point]:
    return [(_nines(p), percentile(figures["latency_ms"], p)) for p in PERCENTILES]


def _nines(p: float) -> float:
    return -math.log10(1 - p / 100)


def _throughput(ladder: dict[str, list[dict[str, Any]]]) -> Chart:
    after, before = ladder["ours"], ladder["legacy"]
    most = max(rung["offered"] for rung in after)
    best = max(rung["granted"] for rung in after)
    limit = (
        "the service kept up with all of it"
        if best >= KEPT_UP * most
        else f"the service is at its limit on this machine: {best:,.0f} a second"
    )
    return Chart(
        "throughput",
        "Throughput against offered load",
        "On the dashed line every request is granted as it comes. Where a curve leaves it, a "
        f"service is at its limit, and should stay level and not fall. Here {limit}, with the load "
        "generator and the database on the same cores.",
        Plot(
            "Requests granted a second against requests offered a second",
            "requests offered a second",
            "requests granted a second",
            [
                Series("everything granted", "limit", [(0, 0), (most, most)]),
                Series("before", "before", [(r["offered"], r["granted"]) for r in before]),
                Series("after", "after", [(r["offered"], r["granted"]) for r in after]),
            ],
        ),
    )


def _memory(figures: dict[str, Any]) -> Chart:
    service, leak, legacy = figures["service"], figures["leak"], figures["legacy"]
    slope = service["trends"]["resident"]
    return Chart(
        "memory",
        "Memory against requests",
        "Dots are what all workers together held more than after the first segment; lines are "
        f"fitted to all but the first quarter. The service's line rises by {slope['slope']:+.2f} "
        f"bytes a request, with 95% confidence by less than {slope['upper']:.2f}. The same service "
        f"with a planted leak rises by {leak['trends']['resident']['slope']:,.0f}, and so shows "
        "that a leak would be seen; the legacy service by "
        f"{legacy['trends']['resident']['slope']:,.0f}.",
        Plot(
            "Resident memory against requests served",
            "requests served",
            "MB more than at the start",
            [
                *_samples(f"before: {legacy['requests'][-1]:,} requests", "before", legacy),
                *_samples(f"planted leak: {leak['requests'][-1]:,} requests", "other", leak),
                *_samples("after", "after", service),
            ],
        ),
    )


def _samples(name: str, role: str, figures: dict[str, Any]) -> list[Series]:
    requests, resident = figures["requests"], figures["resident"]
    fit, first = figures["trends"]["resident"], resident[0]
    grown = [(n, (held - first) / MEGABYTE) for n, held in zip(requests, resident, strict=True)]
    ends = [requests[len(requests) // 4], requests[-1]]
    line = [(n, (fit["intercept"] + fit["slope"] * n - first) / MEGABYTE) for n in ends]
    return [Series(name, role, grown, dots=True), Series("", role, line)]


def _sale(figures: dict[str, Any]) -> Chart:
    after = figures["sales"][-1]
    before = figures["legacy"]["legacy_empty"]
    end = max([*after["granted_at"], *before["granted_at"]])
    return Chart(
        "uses",
        f"Uses recorded against the limit: {figures['requests']:,} users, {figures['uses']} uses",
        f"All ask at the same moment for a code with {figures['uses']} uses. The service grants "
        f"exactly these and then refuses: {after['recorded']:,} recorded. The legacy service, on "
        f"an empty database, has recorded {before['recorded']:,} after {before['seconds']:.1f} s: "
        "a request that has counted the uses does not see those that others record before it "
        "records its own.",
        Plot(
            "Uses granted over time against the limit of the code",
            "seconds",
            "uses granted so far",
            [
                Series("before", "before", _steps_of(before["granted_at"], end)),
                Series("after", "after", _steps_of(after["granted_at"], end)),
                Series("limit", "limit", [(0, figures["uses"]), (end, figures["uses"])]),
            ],
        ),
    )


def _steps_of(times: Sequence[float], end: float) -> list[Point]:
    counted = accumulate([1] * len(times))
    points = [(0.0, 0.0), *((time, float(n)) for time, n in zip(times, counted, strict=True))]
    every = max(1, len(points) // 200)
    return [*points[::every], points[-1], (end, float(len(times)))]
