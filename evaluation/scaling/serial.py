"""What one document can take: batches straight at the store, in turn and at once."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from statistics import median
from typing import Any, NamedTuple

from evaluation.lab import OURS, Lab
from evaluation.load import RESULT, LoadFailed
from evaluation.processes import ROOT
from evaluation.scaling import meters
from evaluation.scaling.batches import READY, Done, hot_code
from evaluation.scaling.measurement import HOT, LOADS, MANY, Batch, Contest


class Cell(NamedTuple):
    """What the costs of a batch are measured for."""

    load: str
    claimants: int
    size: int


MODULE = "evaluation.scaling.batches"
# gevent patches first, as it does in a worker.
COMMAND = [sys.executable, "-m", "gevent.monkey", "--module", MODULE]
SIZES = (1, 8, 32, 128)
CLAIMANTS = {HOT: (1, 2, 8, 32, 128), MANY: (1, 2, 8, 32)}
CELLS = [Cell(load, number, size) for load in LOADS for number in CLAIMANTS[load] for size in SIZES]
ROUNDS = 3
PROCESSES = (1, 2, 4, 8)
CONTEST_SIZE, CONTEST_SECONDS = 32, 2.0
# Several times what all cells take on a quiet machine.
PATIENCE = 300.0


def batches(lab: Lab, cells: Sequence[Cell] = CELLS, rounds: int = ROUNDS) -> list[Batch]:
    """Measure batches of each load, number of claimants and size; nobody competes.

    In several rounds, of which the median counts: one pause of the machine spoils one of them.
    """
    with _started(lab, mongod=_pid(lab), cells=[*cells] * rounds) as process:
        found = [Batch(**one) for one in _result(process, "")]
    return [_median(found[place :: len(cells)]) for place in range(len(cells))]


def _median(rounds: Sequence[Batch]) -> Batch:
    costs = [field.name for field in fields(Batch) if field.name not in Cell._fields]
    return replace(
        rounds[0], **{name: median(getattr(one, name) for one in rounds) for name in costs}
    )


def contests(
    lab: Lab, numbers: Sequence[int] = PROCESSES, seconds: float = CONTEST_SECONDS
) -> list[Contest]:
    """Let so many processes at a time take from one code."""
    return [_contest(lab, number, seconds) for number in numbers]


def _contest(lab: Lab, number: int, seconds: float) -> Contest:
    code = hot_code(lab.database())
    with _all_started(lab, number, code) as processes:
        before, started = meters.read(lab.database(), _pid(lab)), time.monotonic()
        for process in processes:
            _say(process, f"{seconds}\n")
        done = [Done(**_result(process)) for process in processes]
        took = time.monotonic() - started
        spent = meters.read(lab.database(), _pid(lab)).since(before)
    made = sum(one.batches for one in done)
    return Contest(
        processes=number,
        size=CONTEST_SIZE,
        batches_per_second=made / seconds,
        document_share=spent.take_us / (took * 1e6),
        take_us=spent.take_us / made,
        record_us=spent.record_us / made,
        mongod_us=spent.cpu_us / made,
        retries=spent.conflicts / made,
        granted=sum(one.granted for one in done) / sum(one.asked for one in done),
    )


@contextmanager
def _all_started(lab: Lab, number: int, code: str) -> Iterator[list[subprocess.Popen[str]]]:
    """Start processes, and wait until each of them has run a batch and waits for the start."""
    if number == 0:
        yield []
        return
    with (
        _started(lab, code=code, size=CONTEST_SIZE) as process,
        _all_started(lab, number - 1, code) as others,
    ):
        if process.stdout is None or process.stdout.readline().strip() != READY:
            raise LoadFailed(f"{MODULE} did not start")
        yield [process, *others]


@contextmanager
def _started(lab: Lab, **asked: Any) -> Iterator[subprocess.Popen[str]]:
    asked |= {"uri": lab.mongod.uri, "database": OURS.database}
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        [*COMMAND, json.dumps(asked)], cwd=ROOT, stdin=pipe, stdout=pipe, stderr=pipe, text=True
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def _say(process: subprocess.Popen[str], text: str) -> None:
    if process.stdin is not None:
        process.stdin.write(text)
        process.stdin.flush()


def _result(process: subprocess.Popen[str], said: str | None = None) -> Any:
    output, complaint = process.communicate(said, timeout=PATIENCE)
    for line in output.splitlines():
        if line.startswith(RESULT):
            return json.loads(line.removeprefix(RESULT))
    last = complaint.strip().splitlines() or ["it said nothing"]
    raise LoadFailed(f"{MODULE} gave no result: {last[-1]}")


def _pid(lab: Lab) -> int:
    return lab.mongod.members[0].pid
