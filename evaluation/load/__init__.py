"""Closed-loop load over HTTP: a number of connections, each with one request at a time."""

from __future__ import annotations

import json
import secrets
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SCRIPT = Path(__file__).with_name("requests.lua")
RESULT = "RESULT "

# In a request's body: the place of the 24 hex digits of a user who has never asked before.
FRESH_USER = "USER" * 6

# How long one answer may take before it is a timeout.
ANSWER_SECONDS = 20


class LoadFailed(Exception):
    """Raised when the load generator gives no result."""


@dataclass(frozen=True, slots=True)
class LoadResult:
    """What the clients saw; latencies in milliseconds, of every answer whatever its status."""

    statuses: dict[int, int]
    # Requests under way at the end: served like the others, but nobody waits for the answer.
    abandoned: int
    errors: int
    seconds: float
    p50: float
    p95: float
    p99: float

    @property
    def answers(self) -> int:
        """The number of answers, of every status."""
        return sum(self.statuses.values())

    @property
    def served(self) -> int:
        """The number of requests that the service has worked on."""
        return self.answers + self.abandoned

    @property
    def rate(self) -> float:
        """Answers per second."""
        return self.answers / self.seconds


def run(url: str, bodies: Path, connections: int, seconds: int, threads: int = 1) -> LoadResult:
    """POST the bodies of a file in turn; by wrk, or by the slower generator where there is none.

    Every run asks for other fresh users.
    """
    prefix = secrets.token_hex(6)
    abandoned = 0
    if shutil.which("wrk"):
        # Every connection has one request under way when wrk stops.
        abandoned = connections
        threads = min(threads, connections)
        command = ["wrk", "-t", str(threads), "-c", str(connections), "-d", f"{seconds}s"]
        command += ["--timeout", f"{ANSWER_SECONDS}s", "-s", str(SCRIPT), url]
        command += ["--", str(bodies), prefix]
    else:
        command = [sys.executable, "-m", "evaluation.load.generator", url, str(bodies), prefix]
        command += [str(connections), str(seconds)]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=seconds + 3 * ANSWER_SECONDS,
        cwd=Path(__file__).parents[2],
        check=False,
    )
    return parse(done.stdout, done.stderr, abandoned)


def parse(output: str, complaint: str = "", abandoned: int = 0) -> LoadResult:
    """Read the line of the output that bears the result."""
    for line in output.splitlines():
        if line.startswith(RESULT):
            return _result(json.loads(line.removeprefix(RESULT)), abandoned)
    said = (complaint or output).strip().splitlines() or ["it said nothing"]
    raise LoadFailed(f"the load generator gave no result: {said[-1]}")


def _result(counted: dict[str, Any], abandoned: int) -> LoadResult:
    return LoadResult(
        statuses={int(status): count for status, count in counted["statuses"].items()},
        abandoned=abandoned,
        errors=counted["errors"],
        seconds=counted["duration"] / 1e6,
        p50=counted["p50"] / 1e3,
        p95=counted["p95"] / 1e3,
        p99=counted["p99"] / 1e3,
    )
