"""What all measurements share: the seeded mongod, the services, and load on them."""

from __future__ import annotations

import json
import os
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil
from pymongo import MongoClient
from pymongo.database import Database

from evaluation import prepared
from evaluation.faults import Fault
from evaluation.instrumented import INTERNALS
from evaluation.load.offered import Offer, Offered, offer
from evaluation.processes import LEGACY_DATABASE, VARIANTS, Service, ServiceFailed, Variant
from evaluation.scale import Scale
from promo_service.embedded import EmbeddedMongod

Document = dict[str, Any]
Say = Callable[[str], None]

PREFIX = "/api/promo-codes"
# The least of a production: with one worker nothing shows what processes do to each other.
WORKERS = max(2, len(os.sched_getaffinity(0)))
CONNECTIONS = 64
SETTLE_SECONDS = 0.3
REST_SECONDS = 15.0
REST_STEP = 0.3
IDLE_SHARE = 0.1
ATTEMPTS = 500

OURS = VARIANTS["ours"]
OBSERVED = replace(OURS, app="evaluation.instrumented:create_app()")
LEGACY = VARIANTS["legacy"]
# Where 2,000,000 uses are too many for the legacy service to show anything else.
LEGACY_ON_NOTHING = replace(LEGACY, database="legacy_empty")


def leaking(size: int) -> Variant:
    """Return the service with a leak of that many bytes a request."""
    return replace(OURS, app=f"evaluation.instrumented:create_app(leaked_bytes={size})")


@dataclass(slots=True)
class Lab:
    """One mongod for all measurements; `say` tells a reader what is going on."""

    scale: Scale
    mongod: EmbeddedMongod
    client: MongoClient[Document]
    folder: Path
    say: Say
    # A mistake that every service of ours has, to see that it is noticed.
    fault: Fault | None = None
    # Measured once and of use to several claims.
    kept: dict[str, Any] = field(default_factory=dict)
    _files: Iterator[int] = field(default_factory=count)

    def database(self, variant: Variant = OURS) -> Database[Document]:
        """Return the database that a variant works on."""
        return self.client[variant.database]

    @contextmanager
    def service(
        self, variant: Variant = OURS, workers: int = WORKERS, uri: str | None = None
    ) -> Iterator[Service]:
        """Run a service on the seeded mongod, or on another one."""
        fault = self.fault if variant.name == OURS.name else None
        if fault is not None:
            variant = replace(variant, app=fault.app)
        log = self.folder / f"{variant.name}-{next(self._files)}.log"
        with Service(variant, uri or self.mongod.uri, workers, log) as service:
            if fault is not None:
                fault.spoil(self.database(variant))
            yield service

    def offer(
        self,
        service: Service,
        lines: Sequence[str],
        requests: int,
        *,
        rate: float | None = None,
        connections: int = CONNECTIONS,
        drain: float | None = None,
    ) -> Offered:
        """Offer lines of `operation body` to a service; wait for answers as long as patience is."""
        bodies = self.folder / f"{next(self._files)}.txt"
        bodies.write_text("\n".join(lines) + "\n")
        wait = self.scale.patience if drain is None else drain
        done = offer(Offer(service.url(PREFIX), bodies, requests, rate, connections, wait))
        bodies.unlink()
        return done

    def rest(self) -> None:
        """Wait until mongod is idle: it may still work for a service that was killed."""
        deadline = time.monotonic() + REST_SECONDS
        used = self.mongod_cpu()
        while time.monotonic() < deadline:
            time.sleep(REST_STEP)
            before, used = used, self.mongod_cpu()
            if used - before <= IDLE_SHARE * REST_STEP:
                return

    def abandon(self, service: Service) -> None:
        """Kill a service that would work on for minutes on what nobody waits for any more."""
        for process in service.processes:
            with suppress(psutil.NoSuchProcess):
                process.kill()

    def mongod_cpu(self) -> float:
        """Return the CPU seconds that mongod has used so far."""
        times = psutil.Process(self.mongod.members[0].pid).cpu_times()
        return float(times.user + times.system)


@contextmanager
def opened(scale: Scale, say: Say, report: Callable[[int, int], None]) -> Iterator[Lab]:
    """Start a mongod on a copy of the seeded data, which is made first where there is none."""
    with ExitStack() as stack:
        databases = [OURS.database, LEGACY_DATABASE]
        mongod = stack.enter_context(
            prepared.seeded_mongod(scale.codes, scale.uses, databases, report)
        )
        folder = Path(stack.enter_context(TemporaryDirectory()))
        client = stack.enter_context(MongoClient[Document](mongod.uri, w="majority"))
        yield Lab(scale, mongod, client, folder, say)


def internals(service: Service) -> list[Document]:
    """Ask each worker of an observed service for what it holds; one entry for each.

    The workers share a listening socket: one asks until every one of them has answered.
    """
    workers = {process.pid for process in service.processes[1:]}
    shown: dict[int, Document] = {}
    for _ in range(ATTEMPTS):
        # Who has answered is not made to count again.
        url = f"{service.url(INTERNALS)}?{','.join(map(str, shown))}"
        with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310 - our own
            one = json.loads(answer.read())
        shown.setdefault(one["pid"], one)
        if workers <= shown.keys():
            return [shown[pid] for pid in sorted(workers)]
    raise ServiceFailed(f"only {len(shown)} of {len(workers)} workers answered")


def settle() -> None:
    """Wait for connections to close and for what is under way to end."""
    time.sleep(SETTLE_SECONDS)
