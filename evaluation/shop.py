"""The flash sale of locustfile.py, with everything on this machine: `python -m evaluation.shop`.

Starts mongod with the seeded data, the service as in production, and locust; says what was offered
and served at the peak, and what a request has cost each of the three.
"""

from __future__ import annotations

import csv
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from urllib.request import urlopen

import click
import psutil

from evaluation import measure, prepared
from evaluation.dataset import CODES, USES
from evaluation.processes import ROOT, VARIANTS, Service, ServiceFailed
from promo_service.embedded import EmbeddedMongod, die_with_parent
from promo_service.errors import MongodError

OURS = VARIANTS["ours"]
EXIT_MISSED = 1
EXIT_CANNOT_RUN = 3
# The goals: what is served of what is offered, and its 95th percentile.
LEAST_SHARE = 0.99
MOST_P95_MS = 100.0
# What mongod takes by itself on a machine of 9 GB. With 1 GB there is no room for what changes
# between two checkpoints: it writes pages back all the time, and the p95 is several times as high.
CACHE_GB = 4.0
# From the start of locust to its first request, and from its last one to its end.
SPARE_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Second:
    """A line of locust's history: totals so far, and the 95th percentile of the last seconds."""

    at: float
    requests: int
    failures: int
    p95: float


@dataclass(frozen=True, slots=True)
class Peak:
    """What locust saw while it held the peak; rates in requests/s, `p95` in milliseconds.

    `of_service` is the p95 of what the service has measured itself, `us` what a request has cost.
    """

    offered: float
    served: float
    failures: int
    p95: float
    of_service: float
    us: dict[str, float]

    @property
    def holds(self) -> bool:
        """Whether the goals are reached."""
        enough = self.served >= LEAST_SHARE * self.offered
        return enough and not self.failures and self.p95 < MOST_P95_MS

    def __str__(self) -> str:
        share = self.served / self.offered
        return (
            f"{self.served:,.0f} requests/s served of {self.offered:,.0f} offered ({share:.1%}), "
            f"{self.failures} failures, p95 {self.p95:.0f} ms (median of the windows of 10 s), "
            f"of which the service has seen {self.of_service:.0f} ms\n"
            "CPU a request: " + ", ".join(f"{name} {us:.0f} us" for name, us in self.us.items())
        )


def read_history(path: Path) -> list[Second]:
    """Read the lines of all requests together, one a second."""
    with path.open() as file:
        rows = [row for row in csv.DictReader(file) if row["Name"] == "Aggregated"]
    return [
        Second(
            float(row["Timestamp"]),
            int(row["Total Request Count"]),
            int(row["Total Failure Count"]),
            float(row["95%"]) if row["95%"] != "N/A" else 0.0,
        )
        for row in rows
    ]


@dataclass(frozen=True, slots=True)
class Profile:
    """The load: `ramp` seconds up to `rate` requests/s, `hold` seconds there, and down again."""

    rate: float
    ramp: float
    hold: float

    def phase(self, seconds: float) -> int:
        """Tell how many of its two corners have been passed after so many seconds."""
        return (seconds >= self.ramp) + (seconds >= self.ramp + self.hold)


def since_start(history: list[Second], at: float) -> float:
    """Return the seconds of load until then: before it, codes are made for it."""
    return at - next((second.at for second in history if second.requests), at)


@dataclass(frozen=True, slots=True)
class Meters:
    """What only goes forward: requests, CPU seconds of each party, and answers by their time."""

    requests: int
    cpu: dict[str, float]
    within: dict[float, float]

    def us_since(self, earlier: Meters) -> dict[str, float]:
        """Return what a request has cost each party since then, in us of CPU."""
        requests = self.requests - earlier.requests
        return {name: (cpu - earlier.cpu[name]) / requests * 1e6 for name, cpu in self.cpu.items()}

    def p95_since(self, earlier: Meters) -> float:
        """Return the 95th percentile, in ms, of what the service has answered since then."""
        within = {bound: n - earlier.within.get(bound, 0) for bound, n in self.within.items()}
        return measure.quantile(within, 0.95) * 1e3


def judge(history: list[Second], profile: Profile, begin: Meters, end: Meters) -> Peak:
    """Look at the seconds of the peak, and at what has been spent from its begin to its end."""
    held = [second for second in history if profile.phase(since_start(history, second.at)) == 1]
    first, last = held[0], held[-1]
    served = (last.requests - first.requests) / (last.at - first.at)
    failures = history[-1].failures
    p95 = median(second.p95 for second in held)
    return Peak(profile.rate, served, failures, p95, end.p95_since(begin), end.us_since(begin))


@contextmanager
def _locust(url: str, profile: Profile, to: Path) -> Iterator[psutil.Process]:
    options = {"--peak": profile.rate, "--ramp": profile.ramp, "--hold": profile.hold}
    command = [sys.executable, "-m", "locust", "--headless", "--only-summary"]
    command += ["--load", "flash-sale", "--csv", str(to), "--host", url]
    command += [text for name, value in options.items() for text in (name, str(value))]
    with _log(to).open("wb") as log:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            preexec_fn=die_with_parent(),  # noqa: PLW1509 - it makes one system call
        )
    try:
        yield psutil.Process(process.pid)
    finally:
        process.kill()
        process.wait()


def _log(to: Path) -> Path:
    return to.with_suffix(".log")


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def play(mongod: EmbeddedMongod, service: Service, profile: Profile, to: Path) -> Peak:
    """Play the sale; return its peak.

    Raises ServiceFailed when locust does not get as far as the end of the peak.
    """
    server = psutil.Process(mongod.members[0].pid)
    path = to.with_name(f"{to.name}_stats_history.csv")
    corners: list[Meters] = []
    deadline = time.monotonic() + 2 * profile.ramp + profile.hold + SPARE_SECONDS
    with _locust(service.url(""), profile, to) as locust:
        while locust.status() != psutil.STATUS_ZOMBIE and time.monotonic() < deadline:
            history = read_history(path) if path.exists() else []
            since = since_start(history, history[-1].at) if history else 0.0
            if profile.phase(since) > len(corners):
                spent = {"mongod": _cpu(server), "locust": _cpu(locust)}
                spent |= {"service": service.cpu_seconds()}
                corners.append(Meters(history[-1].requests, spent, _answered(service)))
            time.sleep(0.1)
    if len(corners) < 2:
        raise ServiceFailed(f"locust did not hold the peak: {_log(to).read_text()[-2000:]}")
    return judge(read_history(path), profile, *corners)


def _answered(service: Service) -> dict[float, float]:
    with urlopen(service.url("/metrics"), timeout=10) as answer:  # noqa: S310 - of the loopback
        return measure.answered_within(answer.read().decode())


@click.command(
    epilog="Exit codes: 0 the goals are reached, 1 they are not, 2 wrong usage, "
    "3 something could not be started, or died."
)
@click.option("--rate", default=2000.0, show_default=True, help="Requests/s at the peak.")
@click.option("--ramp", default=15.0, show_default=True, help="Seconds up to it, and down again.")
@click.option("--hold", default=60.0, show_default=True, help="Seconds at the peak.")
@click.option("--workers", default=len(os.sched_getaffinity(0)), help="Processes of the service.")
def main(rate: float, ramp: float, hold: float, workers: int) -> None:
    """Play the flash sale of locustfile.py, with everything on this machine."""
    token = secrets.token_hex()
    os.environ |= {"PROMO_ADMIN_TOKENS": token, "PROMO_LOAD_ADMIN_TOKEN": token}
    try:
        with TemporaryDirectory() as folder, _started(workers, Path(folder)) as (mongod, service):
            peak = play(mongod, service, Profile(rate, ramp, hold), Path(folder) / "locust")
    except (MongodError, ServiceFailed) as error:
        click.echo(f"shop: {error}", err=True)
        sys.exit(EXIT_CANNOT_RUN)
    click.echo(peak)
    sys.exit(0 if peak.holds else EXIT_MISSED)


@contextmanager
def _started(workers: int, folder: Path) -> Iterator[tuple[EmbeddedMongod, Service]]:
    with (
        prepared.seeded_mongod(CODES, USES, [OURS.database], _say_seeded, CACHE_GB) as mongod,
        Service(OURS, mongod.uri, workers, folder / "service.log") as service,
    ):
        yield mongod, service


def _say_seeded(done: int, total: int) -> None:
    click.echo(f"\rseeding {done / total:4.0%} of {total:,} documents", nl=done == total, err=True)


if __name__ == "__main__":
    # An exception, so that everything that was started is stopped.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    main()
