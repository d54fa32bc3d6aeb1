"""The figures of a round, their medians, and the table that is printed of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from statistics import median

from evaluation.load import LoadResult
from evaluation.measure import Reading


@dataclass(frozen=True, slots=True)
class Figures:
    """One variant in one round: latencies in ms, CPU in us and commands per request.

    None is what cannot be told: a latency without an answer, batches of who has none.
    """

    rate: float
    p50: float | None
    p95: float | None
    p99: float | None
    service_us: float | None
    mongod_us: float | None
    generator_us: float | None
    commands: float | None
    batch_size: float | None
    write_conflicts: int
    connections: int
    non_2xx: int
    wrong: int

    @classmethod
    def of(
        cls, load: LoadResult, served: int, spent: Reading, connections: int, expected: int
    ) -> Figures:
        """Reckon the figures of a round in which every answer should have had one status.

        `served` is the number of requests that the service has worked on.
        """
        successes = sum(count for status, count in load.statuses.items() if 200 <= status < 300)
        return cls(
            rate=load.rate,
            p50=load.p50 if load.answers else None,
            p95=load.p95 if load.answers else None,
            p99=load.p99 if load.answers else None,
            service_us=_each(spent.service_cpu * 1e6, served),
            mongod_us=_each(spent.mongod_cpu * 1e6, served),
            generator_us=_each(spent.generator_cpu * 1e6, load.answers),
            commands=_each(sum(spent.commands.values()), served),
            batch_size=_each(spent.batched, spent.batches),
            write_conflicts=spent.write_conflicts,
            connections=connections,
            non_2xx=load.answers - successes,
            wrong=load.answers - load.statuses.get(expected, 0) + load.errors,
        )


def _each(total: float, number: float) -> float | None:
    return total / number if number else None


def medians(rounds: Sequence[Figures]) -> dict[str, float | None]:
    """Return the median of every figure; None for one that no round has."""
    columns = {name: [asdict(one)[name] for one in rounds] for name in names()}
    known = {name: [v for v in values if v is not None] for name, values in columns.items()}
    return {name: median(values) if values else None for name, values in known.items()}


def names() -> list[str]:
    """Return the names of all figures."""
    return [field.name for field in fields(Figures)]


def _whole(value: float) -> str:
    return f"{value:,.0f}"


def _one_decimal(value: float) -> str:
    return f"{value:.1f}"


def _two_decimals(value: float) -> str:
    return f"{value:.2f}"


# Figure, heading, and how it is written.
COLUMNS: tuple[tuple[str, str, Callable[[float], str]], ...] = (
    ("rate", "req/s", _whole),
    ("ratio", "x naive", _two_decimals),
    ("p50", "p50 ms", _one_decimal),
    ("p95", "p95 ms", _one_decimal),
    ("p99", "p99 ms", _one_decimal),
    ("service_us", "service us", _whole),
    ("mongod_us", "mongod us", _whole),
    ("generator_us", "load us", _whole),
    ("commands", "commands", _two_decimals),
    ("batch_size", "batch", _one_decimal),
    ("write_conflicts", "conflicts", _whole),
    ("connections", "conns", _whole),
    ("non_2xx", "non-2xx", _whole),
    ("wrong", "wrong", _whole),
)


def table(rounds: Mapping[str, Sequence[Figures]], yardstick: str = "naive") -> str:
    """Write a line of medians for each variant, its rate also as a multiple of the yardstick's."""
    rows = {variant: medians(figures) for variant, figures in rounds.items() if figures}
    base = (rows.get(yardstick) or {}).get("rate")
    cells = [["variant", *(heading for _, heading, _ in COLUMNS)]]
    for variant, row in rows.items():
        rate = row["rate"]
        row["ratio"] = rate / base if rate is not None and base else None
        cells.append([variant, *(_cell(row[name], write) for name, _, write in COLUMNS)])
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(_line(line, widths) for line in cells)


def _cell(value: float | None, write: Callable[[float], str]) -> str:
    return "-" if value is None else write(value)


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *others = (cell.rjust(width) for cell, width in zip(cells, widths, strict=True))
    return "  ".join([first.strip().ljust(widths[0]), *others])
