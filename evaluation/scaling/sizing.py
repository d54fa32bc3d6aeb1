"""How many processes, cores and documents a rate takes, and where no number of them is enough."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache

from evaluation.scaling.costs import Costs
from evaluation.scaling.measurement import HOT, Measurement
from evaluation.scaling.simulation import Outcome, Shop, Work, ceiling, simulate

# What is busy for more of the time than this has no room for a bad second.
HEADROOM = 0.7
# Of the answers, 95% come sooner: a quarter of the deadline.
P95_SECONDS = 0.5
# Requests that a process lets wait, in batches; it would refuse the others.
ROOM = 4
SECONDS, WARM_UP = 0.8, 0.4
MOST_DOUBLINGS = 10
MOST_PROCESSES = 2**MOST_DOUBLINGS
STEP = 1.25


@dataclass(frozen=True, slots=True)
class Plan:
    """A load to simulate: one hot code in `parts` documents, or many codes.

    `commit_us` stands in the place of the time that was measured for the journal and the majority.
    """

    load: str
    rate: float
    processes: int
    parts: int = 1
    commit_us: float | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a plan: cores that are busy, and what mongod writes to its journal."""

    plan: Plan
    outcome: Outcome
    service_cores: float
    mongod_cores: float
    journal_megabytes: float

    @property
    def held(self) -> bool:
        """Whether the rate is held, with some headroom."""
        seen = self.outcome
        shares = (seen.process_share, seen.document_share)
        return not seen.refused and max(shares) <= HEADROOM and seen.p95 <= P95_SECONDS


class Sizing:
    """Answers from one measurement."""

    def __init__(self, measurement: Measurement) -> None:
        self._batching = measurement.batching
        self._codes = int(measurement.about["codes"])
        self._costs = {
            load: Costs.of(measurement, load) for load in {one.load for one in measurement.batches}
        }

    def costs(self, load: str) -> Costs:
        """Return what a batch of a load costs."""
        return self._costs[load]

    def shop(self, plan: Plan) -> Shop:
        """Return what is simulated for a plan."""
        costs, batching, claimants = self.costs(plan.load), self._batching, self.claimants(plan)
        if plan.commit_us is not None:
            costs = replace(costs, commit_us=plan.commit_us)

        @cache
        def work(size: int) -> Work:
            return costs.work(claimants, size)

        hot = plan.load == HOT
        return Shop(
            rate=plan.rate,
            processes=plan.processes,
            request=costs.request_us / 1e6,
            work=work,
            documents=plan.parts if hot else 0,
            most=batching.most,
            crowd=batching.crowd,
            gather=batching.gather,
            # One code has one batch at a time in a process.
            lanes=1 if hot else batching.lanes,
            room=ROOM * batching.most,
        )

    def claimants(self, plan: Plan) -> float:
        """Return how many processes have claims on a document at a time."""
        if plan.load == HOT:
            return max(1.0, plan.processes / plan.parts)
        others = plan.rate / self._codes * self._batching.claim_lasts
        return 1 + min(plan.processes - 1, others)

    def answer(self, plan: Plan) -> Answer:
        """Simulate a plan."""
        outcome = simulate(self.shop(plan), seconds=SECONDS, warm_up=WARM_UP)
        costs, claimants = self.costs(plan.load), self.claimants(plan)
        size, batches = outcome.batch, outcome.batches_per_second
        return Answer(
            plan=plan,
            outcome=outcome,
            service_cores=outcome.process_share * plan.processes,
            mongod_cores=batches * costs.mongod_us.at(claimants, size) / 1e6,
            journal_megabytes=batches * costs.journal_bytes.at(claimants, size) / 1e6,
        )

    def fewest(self, plan: Plan) -> Answer:
        """Return the answer with the fewest processes that hold the rate, within a fourth.

        Where none does, the last one before the document has no headroom left.
        """
        answer = self.answer(plan)
        for processes in self._numbers(plan):
            answer = self.answer(replace(plan, processes=processes))
            busy = answer.outcome
            if answer.held or (busy.process_share <= HEADROOM < busy.document_share):
                break
        return answer

    def most(self, load: str, parts: int = 1) -> tuple[int, float]:
        """Return the number of processes with the highest ceiling, and that ceiling."""
        numbers = {round(2 ** (n / 8)) for n in range(8 * MOST_DOUBLINGS + 1)}
        plans = [Plan(load, 1.0, number, parts) for number in sorted(numbers)]
        best = max(plans, key=self.ceiling)
        return best.processes, self.ceiling(best)

    def ceiling(self, plan: Plan) -> float:
        """Return the most requests a second at which nothing is busy for more than all the time."""
        return ceiling(self.shop(plan))

    def _numbers(self, plan: Plan) -> Iterator[int]:
        number = max(2, plan.parts, math.ceil(plan.rate * self.costs(plan.load).request_us / 1e6))
        while number <= MOST_PROCESSES:
            yield number
            number = math.ceil(number * STEP)
