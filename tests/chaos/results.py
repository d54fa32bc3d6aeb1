"""What came of schedules: kept in files, a line each, and summed up in docs/chaos.md.

`python -m tests.chaos.results FILE...` writes the table from the files of `--results`.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path

import click

from docs.blocks import fill, table
from tests.support.history import Violation

PAGE = Path(__file__).parents[2] / "docs" / "chaos.md"
BLOCK = "runs"


@dataclass(frozen=True)
class Result:
    """One schedule: what was done, what came of it, and what was wrong.

    `seconds` are of the whole schedule: with its share of a reconcile of several.
    """

    seed: str
    faults: dict[str, int]
    outcomes: dict[str, int]
    seconds: float
    gave_back: int
    reconciled: int
    sold_out: int
    violations: list[Violation]

    @property
    def claims(self) -> int:
        """The number of requests that were sent."""
        return sum(self.outcomes.values())

    def __str__(self) -> str:
        counts = ", ".join(f"{number:,} {what}" for what, number in sorted(self.outcomes.items()))
        faults = ", ".join(f"{name} {number}x" for name, number in self.faults.items())
        return (
            f"seed {self.seed}: {self.claims:,} claims in {self.seconds:.0f} s ({counts}); "
            f"{faults}; {self.gave_back} give-backs, {self.reconciled} by reconcile; "
            f"{self.sold_out} codes sold out; {len(self.violations)} violations"
        )


def keep(result: Result, path: Path) -> None:
    """Add a result to a file."""
    with path.open("a") as file:
        file.write(json.dumps(asdict(result)) + "\n")


def read(paths: Iterable[Path]) -> list[Result]:
    """Read the results of all files, by seed; raises ValueError where one seed was played twice."""
    lines = [line for path in paths for line in path.read_text().splitlines()]
    results = [Result(**json.loads(line)) for line in lines]
    twice = [seed for seed, n in Counter(result.seed for result in results).items() if n > 1]
    if twice:
        raise ValueError(f"played more than once: {', '.join(twice)}")
    return sorted(results, key=lambda result: int(result.seed))


def summary(results: Sequence[Result]) -> list[str]:
    """Return the lines of the documents: the sums, and how often each fault was played."""
    outcomes, faults = Counter[str](), Counter[str]()
    for result in results:
        outcomes.update(result.outcomes)
        faults.update(result.faults)
    titles = ["seeds", "schedules", "claims", "ok", "refused", "unknown", "minutes", "violations"]
    numbers = [
        len(results),
        outcomes.total(),
        *(outcomes[name] for name in ("ok", "refused", "unknown")),
        round(sum(result.seconds for result in results) / 60),
        sum(len(result.violations) for result in results),
    ]
    given_back = (
        f"{sum(result.sold_out for result in results):,} codes were sold out. Uses were given back "
        f"{sum(result.gave_back for result in results):,} times, "
        f"{sum(result.reconciled for result in results):,} of them by `reconcile`."
    )
    return [
        *table(titles, [[", ".join(_runs(results)), *(f"{number:,}" for number in numbers)]]),
        "",
        given_back,
        "",
        *table(["fault", "played"], [[name, f"{n:,}"] for name, n in sorted(faults.items())]),
    ]


def _runs(results: Sequence[Result]) -> Iterator[str]:
    """Yield the seeds, those that follow one another as `first to last`."""
    numbered = enumerate(int(result.seed) for result in results)
    for _, run in groupby(numbered, key=lambda pair: pair[1] - pair[0]):
        seeds = [seed for _, seed in run]
        yield str(seeds[0]) if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
def main(files: tuple[Path, ...]) -> None:
    """Sum up what FILES hold, in docs/chaos.md; the exit status is 1 when anything was violated."""
    results = read(files)
    lines = summary(results)
    fill(PAGE, BLOCK, lines)
    click.echo("\n".join(lines))
    sys.exit(any(result.violations for result in results))


if __name__ == "__main__":
    main()
