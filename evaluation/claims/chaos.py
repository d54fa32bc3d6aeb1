"""The faults of claim 7: a replica set behind proxies, and what is done to it and the service."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil
from pymongo import MongoClient
from pymongo.errors import PyMongoError

from evaluation.processes import Service
from evaluation.proxy import LossyProxy, announce
from promo_service.embedded import EmbeddedMongod

Document = dict[str, Any]

SEED = 20_260_101
MEMBERS = 3
LOST_SHARE = 0.2
SECONDS_BETWEEN_KILLS = 1.5
# One in so many faults is a step-down: an election takes about as long as some kills.
STEP_DOWN_EVERY = 4
STEP_DOWN_SECONDS = 5


class ReplicaSet:
    """Three members that know each other, and are known, by the addresses of their proxies."""

    def __init__(self, mongod: EmbeddedMongod, proxies: list[LossyProxy]) -> None:
        self._mongod = mongod
        self.proxies = proxies
        hosts = ",".join(proxy.address for proxy in proxies)
        self.uri = f"mongodb://{hosts}/?replicaSet={mongod.replica_set}"

    @property
    def lost(self) -> int:
        """The number of replies that never came."""
        return sum(proxy.lost for proxy in self.proxies)

    def lose(self, share: float) -> None:
        """Lose the replies to this share of all writes."""
        for proxy in self.proxies:
            proxy.share = share


@contextmanager
def replica_set(folder: Path) -> Iterator[ReplicaSet]:
    """Run the members and their proxies."""
    with ExitStack() as stack:
        mongod = stack.enter_context(EmbeddedMongod(folder, members=MEMBERS))
        proxies = [
            stack.enter_context(LossyProxy(member.port, SEED + n))
            for n, member in enumerate(mongod.members)
        ]
        announce(mongod, [proxy.address for proxy in proxies])
        yield ReplicaSet(mongod, proxies)
        # Nobody reads their data again, and to stop cleanly a primary first waits for the others.
        for member in mongod.members:
            member.kill()


class Chaos:
    """Kills workers and unseats primaries for as long as the `with` runs."""

    def __init__(self, service: Service, servers: ReplicaSet) -> None:
        self.faults: Counter[str] = Counter()
        self._servers = servers
        self._master = service.processes[0]
        self._random = random.Random(SEED)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._lost_before = servers.lost

    def __enter__(self) -> Self:
        self._servers.lose(LOST_SHARE)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._over.set()
        self._thread.join()
        self._servers.lose(0)
        self.faults["replies lost"] = self._servers.lost - self._lost_before

    def _run(self) -> None:
        with MongoClient[Document](self._servers.uri, serverSelectionTimeoutMS=10_000) as client:
            number = 0
            while not self._over.wait(SECONDS_BETWEEN_KILLS):
                number += 1
                if number % STEP_DOWN_EVERY:
                    self._kill()
                else:
                    self._step_down(client)

    def _kill(self) -> None:
        with suppress(psutil.NoSuchProcess):
            workers = self._master.children()
            if workers:
                self._random.choice(workers).kill()
                self.faults["workers killed"] += 1

    def _step_down(self, client: MongoClient[Document]) -> None:
        # Where the last election is still going on there is nobody to step down.
        with suppress(PyMongoError):
            client.admin.command("replSetStepDown", STEP_DOWN_SECONDS, secondaryCatchUpPeriodSecs=2)
            self.faults["primaries unseated"] += 1
