"""What was measured, as it is kept in a file: all that the simulation knows of the service."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

# The loads: everybody asks for one code, or every request for another one.
HOT, MANY = "hot", "many"
LOADS = (HOT, MANY)


@dataclass(frozen=True, slots=True)
class Batch:
    """What one batch costs where `claimants` processes have claims on its codes.

    They take turns, so that none of them waits for another one. `take_us` is how long mongod works
    on the take: for one hot code, the time in which nobody else can take. `commit_us` is the time
    that a take waits beside: for the journal, the majority and the network.
    """

    load: str
    claimants: int
    size: int
    service_us: float
    mongod_us: float
    read_us: float
    take_us: float
    record_us: float
    commit_us: float
    journal_bytes: float
    sent_bytes: float


@dataclass(frozen=True, slots=True)
class Contest:
    """Processes that take from one code at once, each as fast as it can.

    `document_share` is the part of the time in which mongod worked on takes, `retries` are the
    write conflicts of a batch, `granted` is the share of what was asked for.
    """

    processes: int
    size: int
    batches_per_second: float
    document_share: float
    take_us: float
    record_us: float
    mongod_us: float
    retries: float
    granted: float


@dataclass(frozen=True, slots=True)
class Run:
    """The service with that many workers under a load over HTTP; costs are those of a request.

    Without a `rate` as much was offered as was answered. `busiest` is the share of the CPU time of
    all workers that one of them used.
    """

    load: str
    workers: int
    rate: float | None
    answered_rate: float
    wrong: int
    p50_ms: float
    p95_ms: float
    service_us: float
    mongod_us: float
    generator_us: float
    batch: float
    commands: float
    conflicts: float
    busiest: float


@dataclass(frozen=True, slots=True)
class Batching:
    """How the service collects batches; times in seconds."""

    most: int
    crowd: int
    gather: float
    lanes: int
    claim_lasts: float


@dataclass(frozen=True, slots=True)
class Measurement:
    """Everything; `about` says where, when and with what versions."""

    about: dict[str, Any]
    batching: Batching
    batches: Sequence[Batch]
    contests: Sequence[Contest]
    runs: Sequence[Run]

    def write(self, path: Path) -> None:
        """Keep it, with as many digits as mean anything."""
        path.write_text(json.dumps(_rounded(asdict(self)), indent=1) + "\n")

    @classmethod
    def read(cls, path: Path) -> Measurement:
        """Read what was kept."""
        kept = json.loads(path.read_text())
        return cls(
            about=kept["about"],
            batching=Batching(**kept["batching"]),
            batches=[Batch(**one) for one in kept["batches"]],
            contests=[Contest(**one) for one in kept["contests"]],
            runs=[Run(**one) for one in kept["runs"]],
        )


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _rounded(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(one) for one in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value
