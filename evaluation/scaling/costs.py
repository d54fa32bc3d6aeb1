"""What a batch of any size costs with any number of processes, from those that were measured."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median

from evaluation.scaling.measurement import HOT, Measurement, Run
from evaluation.scaling.simulation import Work


class Line:
    """A value between the measured ones: on the straight line through its neighbours.

    Beyond the last one, the line through the last two goes on.
    """

    def __init__(self, points: Mapping[float, float]) -> None:
        self._xs = sorted(points)
        self._points = points

    def at(self, x: float) -> float:
        """Return the height of the line."""
        if len(self._xs) == 1:
            return self._points[self._xs[0]]
        place = min(max(1, bisect_right(self._xs, x)), len(self._xs) - 1)
        left, right = self._xs[place - 1], self._xs[place]
        share = (x - left) / (right - left)
        return self._points[left] + share * (self._points[right] - self._points[left])


class Grid:
    """A value by claimants and size of the batch."""

    def __init__(self, points: Mapping[tuple[int, int], float]) -> None:
        self._rows = {
            claimants: Line({size: y for (other, size), y in points.items() if other == claimants})
            for claimants, _ in points
        }

    def at(self, claimants: float, size: float) -> float:
        """Return the value; never less than nothing."""
        line = Line({claimants: row.at(size) for claimants, row in self._rows.items()})
        return max(0.0, line.at(claimants))


@dataclass(frozen=True, slots=True)
class Costs:
    """The costs of one load, in microseconds and bytes; `request_us` is for HTTP and the rules."""

    request_us: float
    commit_us: float
    service_us: Grid
    mongod_us: Grid
    read_us: Grid
    take_us: Grid
    record_us: Grid
    journal_bytes: Grid

    @classmethod
    def of(cls, measurement: Measurement, load: str) -> Costs:
        """Read the costs of a load.

        What a request costs beside its batch is told by the run without a limit: a process that
        has much to do does more of it at a time.
        """
        cells = [one for one in measurement.batches if one.load == load]

        def grid(name: str) -> Grid:
            return Grid({(one.claimants, one.size): getattr(one, name) for one in cells})

        service = grid("service_us")
        (busy,) = [one for one in measurement.runs if one.load == load and one.rate is None]
        of_batch = service.at(claimants(busy), busy.batch) / busy.batch
        return cls(
            request_us=max(0.0, busy.service_us - of_batch),
            # A larger take waits for a larger piece of the journal; the middle is good enough.
            commit_us=median(one.commit_us for one in cells),
            service_us=service,
            mongod_us=grid("mongod_us"),
            read_us=grid("read_us"),
            take_us=grid("take_us"),
            record_us=grid("record_us"),
            journal_bytes=grid("journal_bytes"),
        )

    def work(self, claimants: float, size: int) -> Work:
        """Return what a batch takes, in seconds."""
        return Work(
            service=self.service_us.at(claimants, size) / 1e6,
            read=self.read_us.at(claimants, size) / 1e6,
            take=self.take_us.at(claimants, size) / 1e6,
            record=self.record_us.at(claimants, size) / 1e6,
            commit=self.commit_us / 1e6,
        )


def claimants(run: Run) -> int:
    """Return how many processes have claims on a code at a time: few share one of many codes."""
    return run.workers if run.load == HOT else 1


def reckoned(costs: Costs, run: Run) -> tuple[float, float]:
    """Return what a request of a run should have cost: CPU of the service and of mongod, in us."""
    number = claimants(run)
    service = costs.request_us + costs.service_us.at(number, run.batch) / run.batch
    return service, costs.mongod_us.at(number, run.batch) / run.batch
