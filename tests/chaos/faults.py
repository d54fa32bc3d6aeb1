"""What is done to the service, to mongod and to the network between them, and undone again."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import psutil
from pymongo import MongoClient
from pymongo.errors import PyMongoError

from tests.support.faults import NOT_ON_MAJORITY, failing
from tests.support.replica_set import ReplicaSet
from tests.support.service import Service
from tests.support.wire import Command, Fate

Document = dict[str, Any]

HOT_COMMANDS = ["aggregate", "find", "update", "findAndModify", "insert"]
FAILURES: list[Document] = [
    {"closeConnection": True},
    {"errorCode": 8000},  # reported
    {"errorCode": 6},  # tried again by the driver
    {"errorCode": 10107, "closeConnection": False},  # not the primary
    {"writeConcernError": NOT_ON_MAJORITY},
    {"blocked_for": 0.3},
    {"blocked_for": 3.0},  # beyond every deadline
]


@dataclass(frozen=True)
class Scene:
    """The services and the servers that faults are done to, and the dice."""

    services: Sequence[Service]
    servers: ReplicaSet
    rng: random.Random

    def a_service(self) -> Service:
        """Return one of the services."""
        return self.rng.choice(self.services)

    def pause(self, least: float, most: float) -> None:
        """Wait for some time between these seconds."""
        time.sleep(self.rng.uniform(least, most))


class Share:
    """Gives a fate to a share of all commands, each after some seconds."""

    def __init__(self, fate: Fate, share: float, seconds: float, rng: random.Random) -> None:
        self._fate = fate
        self._share = share
        self._seconds = seconds
        self._rng = rng
        self._lock = threading.Lock()

    def __call__(self, _command: Command) -> Fate:
        """Decide about one command."""
        with self._lock:
            hit = self._rng.random() < self._share
        if not hit:
            return Fate.PASS
        time.sleep(self._seconds)
        return self._fate


def kill_worker(scene: Scene) -> None:
    """Kill a worker with SIGKILL; its master starts another one."""
    pids = scene.a_service().worker_pids()
    if pids:
        with suppress(ProcessLookupError):
            os.kill(scene.rng.choice(pids), signal.SIGKILL)


def kill_master(scene: Scene) -> None:
    """Kill a gunicorn master with SIGKILL and start the service again, as a supervisor would.

    Its workers see within a second that it is gone, and hold the port until they have ended.
    """
    service = scene.a_service()
    workers = psutil.Process(service.pid).children()
    os.kill(service.pid, signal.SIGKILL)
    service.stop()
    psutil.wait_procs(workers, timeout=60)
    service.start()
    service.wait_until_healthy(60)


def reload(scene: Scene) -> None:
    """Replace all workers of a service, one after the other."""
    os.kill(scene.a_service().pid, signal.SIGHUP)
    scene.pause(0.5, 2)


def restart(scene: Scene) -> None:
    """Stop a service with requests in flight and start it again."""
    service = scene.a_service()
    service.stop()
    service.start()
    service.wait_until_healthy(60)


def kill_primary(scene: Scene) -> None:
    """Kill the primary, and start it again while or after another one is elected."""
    primary = scene.servers.primary()
    primary.kill()
    scene.pause(0.2, 4)
    primary.restart()


def step_down(scene: Scene) -> None:
    """Make the primary give up."""
    # Where the last election is still going on there is nobody to step down.
    with (
        suppress(PyMongoError),
        MongoClient[Document](scene.servers.uri, serverSelectionTimeoutMS=10_000) as client,
    ):
        client.admin.command("replSetStepDown", 5, secondaryCatchUpPeriodSecs=2)
    scene.pause(0.5, 2)


def freeze_primary(scene: Scene) -> None:
    """Stop the primary in its tracks, for less or for longer than an election takes."""
    primary = scene.servers.primary()
    primary.freeze()
    try:
        scene.pause(0.5, 12)
    finally:
        primary.thaw()


def fail_command(scene: Scene) -> None:
    """Let mongod fail some of the commands of the hot path in one way."""
    failure = scene.rng.choice(FAILURES)
    commands = scene.rng.sample(HOT_COMMANDS, scene.rng.randint(1, len(HOT_COMMANDS)))
    port = scene.servers.primary().port
    with (
        MongoClient[Document]("127.0.0.1", port, directConnection=True) as client,
        failing(client, commands, times=scene.rng.randint(1, 30), **failure),
    ):
        scene.pause(0.5, 1.5)


def _on_the_wire(fate: Fate, seconds: float = 0.0) -> Callable[[Scene], None]:
    def fault(scene: Scene) -> None:
        rng = random.Random(scene.rng.random())
        scene.servers.decide(Share(fate, scene.rng.choice([0.02, 0.1, 0.5]), seconds, rng))
        try:
            scene.pause(0.5, 1.5)
        finally:
            scene.servers.decide()

    return fault


FAULTS: dict[str, Callable[[Scene], None]] = {
    "worker killed": kill_worker,
    "master killed": kill_master,
    "workers replaced": reload,
    "service restarted": restart,
    "primary killed": kill_primary,
    "primary stepped down": step_down,
    "primary frozen": freeze_primary,
    "failCommand": fail_command,
    "replies lost": _on_the_wire(Fate.LOSE),
    "connections cut": _on_the_wire(Fate.CUT),
    "commands refused": _on_the_wire(Fate.REFUSE),
    "errors after the fact": _on_the_wire(Fate.FAIL),
    "write concern errors": _on_the_wire(Fate.DOUBT),
    "delays": _on_the_wire(Fate.PASS, seconds=0.2),
    "long delays": _on_the_wire(Fate.PASS, seconds=3),
}


def draw(rng: random.Random, number: int) -> list[str]:
    """Choose the faults of a schedule: no two alike before all have had their turn."""
    names = list(FAULTS)
    rng.shuffle(names)
    return [names[n % len(names)] for n in range(number)]
