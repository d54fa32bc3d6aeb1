"""Load where there is no wrk: does what requests.lua does, at several times its cost."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import gevent
from geventhttpclient import HTTPClient

from evaluation.load import ANSWER_SECONDS, FRESH_USER, RESULT

HEADERS = {"Content-Type": "application/json"}


@dataclass(slots=True)
class Tally:
    """What the clients have seen so far; latencies in microseconds."""

    latencies: list[int] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    errors: int = 0


def main(arguments: Sequence[str]) -> None:
    """Run the load that the command line asks for, and print its result."""
    url, file, prefix, connections, seconds = arguments
    bodies = request_bodies(Path(file).read_text().splitlines(), prefix)
    tally = Tally()
    start = time.monotonic()
    end = start + float(seconds)
    # A generator cannot be entered twice at a time, but `next` never switches greenlets here.
    clients = [gevent.spawn(_client, url, bodies, end, tally) for _ in range(int(connections))]
    gevent.joinall(clients, raise_error=True)
    sys.stdout.write(RESULT + json.dumps(summary(tally, time.monotonic() - start)) + "\n")


def request_bodies(lines: Sequence[str], prefix: str) -> Iterator[bytes]:
    """Yield the lines in turn for ever, with a user who has never asked before in each."""
    for user, line in enumerate(cycle(lines), 1):
        yield line.replace(FRESH_USER, f"{prefix}{user:012x}").encode()


def summary(tally: Tally, seconds: float) -> dict[str, Any]:
    """Return the result in the form in which requests.lua prints it."""
    ordered = sorted(tally.latencies) or [0]

    def percentile(p: int) -> int:
        return ordered[min(len(ordered) * p // 100, len(ordered) - 1)]

    return {
        "duration": int(seconds * 1e6),
        "errors": tally.errors,
        "p50": percentile(50),
        "p95": percentile(95),
        "p99": percentile(99),
        "statuses": tally.statuses,
    }


def _client(url: str, bodies: Iterator[bytes], end: float, tally: Tally) -> None:
    target = urlsplit(url)
    client = HTTPClient(
        target.hostname or "",
        target.port,
        connection_timeout=ANSWER_SECONDS,
        network_timeout=ANSWER_SECONDS,
    )
    while (sent := time.monotonic()) < end:
        try:
            response = client.post(target.path, next(bodies), HEADERS)
            response.read()
        except OSError:
            tally.errors += 1
            continue
        tally.latencies.append(int((time.monotonic() - sent) * 1e6))
        tally.statuses[response.status_code] += 1
    client.close()


if __name__ == "__main__":
    main(sys.argv[1:])
