"""Offering load at a rate, and what came of it; see `open_loop`, which does it."""

from __future__ import annotations

import json
import resource
import secrets
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from evaluation.load import RESULT, LoadFailed
from evaluation.load.open_loop import NO_ANSWER
from evaluation.processes import ROOT

# Beyond what the load itself may take: starting Python, opening connections, printing.
SPARE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Offer:
    """A load: `requests` in all, at `rate` a second, or as fast as answers come (None).

    After the last one was due, answers are awaited for `drain` seconds more; without a rate it is
    the bound of the whole.
    """

    url: str
    bodies: Path
    requests: int
    rate: float | None
    connections: int
    drain: float

    @property
    def most_seconds(self) -> float:
        """How long it can take at most."""
        return (self.requests / self.rate if self.rate else 0.0) + self.drain


@dataclass(frozen=True, slots=True)
class Answered:
    """One request: when it was due, sent and ended, in seconds from the start."""

    due: float
    sent: float
    ended: float
    outcome: str

    @property
    def latency_ms(self) -> float:
        """Milliseconds from when the request should have been sent to its end."""
        return (self.ended - self.due) * 1e3


@dataclass(frozen=True, slots=True)
class Offered:
    """What was offered, and what came of it, request by request."""

    requests: list[Answered]
    seconds: float
    asked_rate: float | None

    @property
    def outcomes(self) -> Counter[str]:
        """Count the outcomes: a status, a status with a machine code, or `no answer`."""
        return Counter(one.outcome for one in self.requests)

    @property
    def sent_rate(self) -> float:
        """Requests a second that were really sent."""
        last = max((one.sent for one in self.requests), default=0.0)
        # n requests span n - 1 intervals, and the first one was sent at 0.
        return (len(self.requests) - 1) / last if last > 0 else 0.0

    @property
    def answers(self) -> list[Answered]:
        """Those that were answered, whatever was said."""
        return [one for one in self.requests if one.outcome != NO_ANSWER]

    @property
    def answered_rate(self) -> float:
        """Answers a second."""
        return len(self.answers) / self.seconds if self.seconds else 0.0

    def wrong(self, right: Sequence[str]) -> dict[str, int]:
        """Count the outcomes that are not among the right ones."""
        return {name: count for name, count in self.outcomes.items() if name not in right}


def offer(load: Offer) -> Offered:
    """Run the generator; raises LoadFailed when it gives no result."""
    _allow_connections(load.connections)
    asked = {**asdict(load), "bodies": str(load.bodies), "prefix": secrets.token_hex(6)}
    try:
        done = subprocess.run(
            [sys.executable, "-m", "evaluation.load.open_loop", json.dumps(asked)],
            capture_output=True,
            text=True,
            timeout=load.most_seconds + SPARE_SECONDS,
            cwd=ROOT,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise LoadFailed(f"the load generator has not ended in {error.timeout:.0f} s") from error
    if not done.stdout.startswith(RESULT):
        said = done.stderr.strip().splitlines() or ["it said nothing"]
        raise LoadFailed(f"the load generator gave no result: {said[-1]}")
    record = json.loads(done.stdout.removeprefix(RESULT))
    return Offered(sorted(_requests(record), key=_by_due), record["seconds"], load.rate)


def _requests(record: dict[str, Any]) -> Iterator[Answered]:
    names = record["outcomes"]
    columns = (record["due"], record["sent"], record["ended"], record["outcome"])
    for due, sent, ended, outcome in zip(*columns, strict=True):
        yield Answered(due / 1e6, sent / 1e6, ended / 1e6, names[outcome])


def _by_due(one: Answered) -> float:
    return one.due


def _allow_connections(count: int) -> None:
    # The usual soft limit is 1024 open files; the generator inherits what is set here.
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + 512
    if soft != resource.RLIM_INFINITY and soft < wanted:
        limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
