"""What the pages say of the figures: tables, sentences and the plot, between marks in the pages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from docs.blocks import renewed
from docs.blocks import table as lines_of_table
from evaluation.processes import ROOT
from evaluation.report.charts import Chart
from evaluation.report.excerpts import standalone
from evaluation.report.svg import Plot, Series
from evaluation.scaling.costs import reckoned
from evaluation.scaling.measurement import HOT, MANY, Measurement, Run
from evaluation.scaling.simulation import simulate
from evaluation.scaling.sizing import HEADROOM, Answer, Plan, Sizing

SCALING, OPERATIONS = PAGES = (ROOT / "docs" / "scaling.md", ROOT / "docs" / "operations.md")
PLOT = ROOT / "docs" / "plots" / "scaling.svg"

FAR, FARTHER = 20_000.0, 200_000.0
SIZED = (200.0, 2_000.0, FAR)
PARTS = (4, 16)
SHOWN_SIZES = (8, 128)
# Of the driver, beside its pool, in each process.
MONITORING, POOL = 2, 8
NAMES = {HOT: "one code", MANY: "many codes"}
POWERS = range(11)
SLOW_COMMIT_US = 5_000.0
CHECK_SECONDS = 20.0

Row = Sequence[str]

PLAN_HEADINGS = (
    "", "requests/s", "processes", "held", "batch", "service, cores", "mongod, cores",
    "document busy", "journal, MB/s", "p50, ms", "p95, ms",
)  # fmt: skip


def write(measurement: Measurement) -> None:
    """Renew the pages and the plot."""
    for path, text in rendered(measurement).items():
        path.write_text(text)


def rendered(measurement: Measurement) -> dict[Path, str]:
    """Return the pages as they should be, and the plot."""
    sizing = Sizing(measurement)
    made = {
        SCALING: {
            "about": _about(measurement),
            "runs": runs(measurement, sizing),
            "batches": batches(measurement),
            "contests": contests(measurement),
            "limits": limits(sizing),
            "plans": plans(sizing),
        },
        OPERATIONS: {"sizing": sized(measurement, sizing)},
    }
    pages = {}
    for page, blocks in made.items():
        pages[page] = page.read_text()
        for name, block in blocks.items():
            pages[page] = renewed(pages[page], name, block.splitlines())
    return pages | {PLOT: standalone(chart(sizing))}


def table(rows: Sequence[Row]) -> str:
    """Write a table in Markdown; the first row is its head."""
    head, *others = rows
    return "\n".join(lines_of_table(head, others))


def runs(measurement: Measurement, sizing: Sizing) -> str:
    """Show what a request has cost over HTTP, and what it should have cost by its batches."""
    rows: list[Row] = [
        ("", "workers", "requests/s", "batch", "(simulated)", "service, us", "(reckoned)",
         "mongod, us", "(reckoned)", "generator, us", "commands", "conflicts in 1,000",
         "busiest worker", "p50, ms", "p95, ms")
    ]  # fmt: skip
    for one in measurement.runs:
        service, mongod = reckoned(sizing.costs(one.load), one)
        limit = "" if one.rate else ", all it can"
        rows.append(
            (
                NAMES[one.load],
                str(one.workers),
                f"{one.answered_rate:,.0f}{limit}",
                f"{one.batch:.1f}",
                _simulated_batch(one, sizing),
                f"{one.service_us:,.0f}",
                f"({service:,.0f})",
                f"{one.mongod_us:,.0f}",
                f"({mongod:,.0f})",
                f"{one.generator_us:,.0f}",
                f"{one.commands:.2f}",
                f"{one.conflicts * 1e3:.1f}",
                f"{one.busiest:.0%}",
                f"{one.p50_ms:,.0f}",
                f"{one.p95_ms:,.0f}",
            )
        )
    return table(rows)


def _simulated_batch(run: Run, sizing: Sizing) -> str:
    if run.rate is None:
        return ""
    shop = sizing.shop(Plan(run.load, run.rate, run.workers))
    return f"({simulate(shop, seconds=CHECK_SECONDS, warm_up=1).batch:.1f})"


def batches(measurement: Measurement) -> str:
    """Show what a batch costs with more and more claims on its codes."""
    rows: list[Row] = [
        ("", "processes", "batch", "service, us", "mongod, us", "read, us", "take, us",
         "record, us", "journal, KB")
    ]  # fmt: skip
    for one in measurement.batches:
        if one.size in SHOWN_SIZES:
            figures = (one.service_us, one.mongod_us, one.read_us, one.take_us, one.record_us)
            rows.append(
                (
                    NAMES[one.load],
                    str(one.claimants),
                    str(one.size),
                    *(f"{each:,.0f}" for each in figures),
                    f"{one.journal_bytes / 1e3:,.0f}",
                )
            )
    return table(rows)


def contests(measurement: Measurement) -> str:
    """Show what processes do to each other that take from one code at once."""
    rows: list[Row] = [
        ("processes", "batches/s", "uses/s", "take, us", "record, us", "document busy",
         "conflicts a batch", "mongod, us a batch", "granted at once")
    ]  # fmt: skip
    rows += [
        (
            str(one.processes),
            f"{one.batches_per_second:,.0f}",
            f"{one.batches_per_second * one.size * one.granted:,.0f}",
            f"{one.take_us:,.0f}",
            f"{one.record_us:,.0f}",
            f"{one.document_share:.0%}",
            f"{one.retries:.2f}",
            f"{one.mongod_us:,.0f}",
            f"{one.granted:.0%}",
        )
        for one in measurement.contests
    ]
    return table(rows)


def limits(sizing: Sizing) -> str:
    """Say where the limits lie, and which they are."""
    alone, alone_many = (sizing.ceiling(Plan(load, 1, 1)) for load in (HOT, MANY))
    processes, most = sizing.most(HOT)
    twice = sizing.ceiling(Plan(HOT, 1, 2 * processes))
    one = f"answers at most {_rate(alone)} for one code and {_rate(alone_many)} for many"
    share = f"with {HEADROOM:.0%} of that as the bound, {_rate(HEADROOM * most)}"
    document = f"takes most from {processes} processes: {_rate(most)}, when it is never idle"
    lines = [
        f"- One process {one}.",
        f"- One document {document}; {share}.",
        f"- Twice as many processes get {_rate(twice)} out of it.",
    ]
    for parts in PARTS:
        processes, most = sizing.most(HOT, parts)
        lines.append(
            f"- In {parts} parts a code takes {_rate(most)}, from {processes:,} processes."
        )
    return "\n".join(lines)


def _rate(rate: float) -> str:
    """Write a rate with the digits that mean something."""
    return f"{float(f'{rate:.2g}'):,.0f}/s"


def plans(sizing: Sizing) -> str:
    """Show what the rates take, and what changes do about it."""
    return table([PLAN_HEADINGS, *(plan_row(name, answer) for name, answer in _answers(sizing))])


def _answers(sizing: Sizing) -> Iterator[tuple[str, Answer]]:
    usual, far, farther = (Plan(HOT, rate, 1) for rate in (2_000.0, FAR, FARTHER))
    yield NAMES[HOT], sizing.fewest(usual)
    fewest = sizing.fewest(far)
    yield NAMES[HOT], fewest
    slow = replace(fewest.plan, commit_us=SLOW_COMMIT_US)
    yield f"the same, {SLOW_COMMIT_US / 1e3:.0f} ms to the majority", sizing.answer(slow)
    spread = replace(fewest.plan, processes=4 * fewest.plan.processes)
    yield "the same on four times the processes", sizing.answer(spread)
    yield NAMES[HOT], sizing.fewest(farther)
    for parts in PARTS:
        if HEADROOM * sizing.most(HOT, parts)[1] > FARTHER:
            yield f"the same in {parts} parts", sizing.fewest(replace(farther, parts=parts))
            break
    for rate in (2_000.0, FAR, FARTHER):
        yield NAMES[MANY], sizing.fewest(Plan(MANY, rate, 1))


def plan_row(name: str, answer: Answer) -> Row:
    """Write one answer."""
    plan, seen = answer.plan, answer.outcome
    return (
        name,
        f"{plan.rate:,.0f}",
        f"{plan.processes:,}",
        "yes" if answer.held else f"no, {_rate(seen.rate)}" if seen.refused else "no headroom",
        f"{seen.batch:.0f}",
        f"{answer.service_cores:,.1f}",
        f"{answer.mongod_cores:,.1f}",
        f"{seen.document_share:.0%}" if plan.load == HOT else "",
        f"{answer.journal_megabytes:,.0f}",
        f"{seen.p50 * 1e3:,.0f}",
        f"{seen.p95 * 1e3:,.0f}",
    )


def sized(measurement: Measurement, sizing: Sizing) -> str:
    """Show cores and connections for usual rates."""
    rows: list[Row] = [
        ("requests/s", "all for", "workers", "cores they use", "cores of the primary", "batch",
         "connections", "p95, ms")
    ]  # fmt: skip
    for rate in SIZED:
        for load in (HOT, MANY):
            answer = sizing.fewest(Plan(load, rate, 1))
            workers = answer.plan.processes
            rows.append(
                (
                    f"{rate:,.0f}",
                    NAMES[load],
                    f"{workers:,}",
                    f"{answer.service_cores:,.1f}",
                    f"{answer.mongod_cores:,.1f}",
                    f"{answer.outcome.batch:.0f}",
                    f"{workers * (POOL + MONITORING):,}",
                    f"{answer.outcome.p95 * 1e3:,.0f}",
                )
            )
    return f"{cost_of_a_request(measurement)}\n\n{table(rows)}"


def cost_of_a_request(measurement: Measurement) -> str:
    """Say what a request costs where there is much to do, and where there is little."""
    rows: list[Row] = [
        ("a request, all for", "workers", "requests/s", "service, us", "mongod, us", "batch")
    ]
    for one in measurement.runs:
        if one.rate is None or one.workers == 2:
            figures = (one.answered_rate, one.service_us, one.mongod_us, one.batch)
            rows.append((NAMES[one.load], str(one.workers), *(f"{each:,.0f}" for each in figures)))
    return table(rows)


def chart(sizing: Sizing) -> Chart:
    """Draw the highest rate against the number of processes."""
    dots = [
        (float(n), sizing.answer(Plan(HOT, _plenty(sizing, 2**n), 2**n)).outcome.rate)
        for n in POWERS[:9:2]
    ]
    what = "The most that can be answered, by the number of worker processes"
    return Chart(
        "scaling",
        what,
        "",
        Plot(
            what,
            "worker processes",
            "requests/s, each line ten times the one below",
            [
                Series("many codes", "other", _curve(sizing, MANY)),
                Series(f"one code in {PARTS[1]} parts", "before", _curve(sizing, HOT, PARTS[1])),
                Series("one code", "after", _curve(sizing, HOT)),
                Series("", "limit", [(0, FAR), (POWERS[-1], FAR)]),
                Series("", "limit", [(0, FARTHER), (POWERS[-1], FARTHER)]),
                Series("one code, simulated", "limit", dots, dots=True),
            ],
            log_y=True,
            x_ticks=[(float(n), f"{2**n:,}") for n in POWERS],
        ),
    )


def _curve(sizing: Sizing, load: str, parts: int = 1) -> list[tuple[float, float]]:
    return [(float(n), sizing.ceiling(Plan(load, 1.0, 2**n, parts))) for n in POWERS]


def _plenty(sizing: Sizing, processes: int) -> float:
    return 1.3 * sizing.ceiling(Plan(HOT, 1.0, processes))


def _about(measurement: Measurement) -> str:
    about = measurement.about
    machine = about["machine"]
    return (
        f"Measured {about['started'][:10]} on {about['commit']}: {machine['cores']} cores "
        f"({machine['processor']}), service, mongod {about['mongod']} (a replica set of one) and "
        f"load on them; {about['codes']:,} codes, {about['uses']:,} uses."
    )
