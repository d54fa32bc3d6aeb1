"""A TCP proxy before mongod that does something to single commands, as networks and servers do."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

import bson

from evaluation.proxy import LossyProxy
from tests.support.faults import NOT_ON_MAJORITY

OP_MSG = 2013
HEADER = struct.Struct("<iiii")  # length, request, request that is answered, operation
BODY = HEADER.size + 5  # behind the flags and the kind of the first section
# An error of mongod that no driver takes for a reason to try again.
ERROR = {"ok": 0.0, "code": 8000, "codeName": "AtlasError", "errmsg": "staged"}
DELIVERY_SECONDS = 30
COLLECTIONS = ("promo_codes", "promo_usage")


class Fate(Enum):
    """What becomes of one command."""

    PASS = "is run and answered"  # noqa: S105 - a fate
    CUT = "is not run, and the connection is cut"
    REFUSE = "is not run, and answered with an error"
    FAIL = "is run, and answered with an error"
    LOSE = "is run, and the connection is cut instead of an answer"
    DOUBT = "is run, and answered with a write concern error"


class Command(NamedTuple):
    """The name of a command, and its collection."""

    name: str
    collection: str


Decide = Callable[[Command], Fate]


@dataclass
class OnNth:
    """Gives a fate to some of the commands with this name: skips some, then hits so many.

    A command that is hit waits for `before` first, and for `seconds`. One that waits is delivered
    all the same when its client has gone, and `delivered` is set when it was answered.
    """

    command: Command
    fate: Fate
    skip: int = 0
    times: int = 1
    seconds: float = 0.0
    before: Callable[[], None] = lambda: None
    seen: int = 0
    hits: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, command: Command) -> Fate:
        """Decide about one command."""
        with self._lock:
            if command != self.command:
                return Fate.PASS
            self.seen += 1
            if not self.skip < self.seen <= self.skip + self.times:
                return Fate.PASS
            self.hits += 1
        self.before()
        time.sleep(self.seconds)
        return self.fate


class CommandProxy(LossyProxy):
    """Asks `decide` for the fate of each command; whatever time that takes, the command waits."""

    def __init__(self, target: int, decide: Decide = lambda _: Fate.PASS) -> None:
        super().__init__(target, seed=0)
        self.decide = decide
        # Commands that are at this proxy or at mongod; shared by the threads of all connections.
        self._open = 0
        self._idle = threading.Condition()

    def wait_until_idle(self) -> None:
        """Return when every command has been answered, or its connection was cut."""
        with self._idle:
            if not self._idle.wait_for(lambda: self._open == 0, DELIVERY_SECONDS):
                raise TimeoutError("a command is not answered")

    def _pass_on(self, client: socket.socket, server: socket.socket) -> None:
        connection = _Connection(client, server)
        answers = threading.Thread(target=connection.pass_answers, daemon=True)
        answers.start()
        with suppress(OSError):
            while frame := _receive(client):
                self._pass_command(connection, frame)
        for end in (client, server):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        answers.join()

    def _pass_command(self, connection: _Connection, frame: bytes) -> None:
        command = _command(frame)
        if command is None:
            connection.server.sendall(frame)
            return
        with self._idle:
            self._open += 1
        try:
            connection.run(frame, self.decide(command))
        finally:
            with self._idle:
                self._open -= 1
                self._idle.notify_all()


class _Connection:
    """One connection of a driver; a thread passes its commands on, and another one the answers."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.client = client
        self.server = server
        self._asked = 0
        self._fate = Fate.PASS
        self._answered = threading.Event()

    def run(self, frame: bytes, fate: Fate) -> None:
        """Send a command to mongod, unless its fate is another, and wait for its answer."""
        _, self._asked, _, _ = HEADER.unpack_from(frame)
        self._fate = fate
        if fate is Fate.REFUSE:
            self.client.sendall(_reply(self._asked, ERROR))
        elif fate is Fate.CUT:
            self.client.shutdown(socket.SHUT_RDWR)
        else:
            self._answered.clear()
            self.server.sendall(frame)
            self._answered.wait(DELIVERY_SECONDS)

    def pass_answers(self) -> None:
        """Pass on what mongod says, until it has nothing more to say."""
        with suppress(OSError):
            while frame := _receive(self.server):
                _, _, answered, _ = HEADER.unpack_from(frame)
                ours = answered == self._asked and self._fate is not Fate.PASS
                try:
                    self._answer(frame) if ours else self.client.sendall(frame)
                finally:
                    self._answered.set()
        self._answered.set()
        with suppress(OSError):
            self.client.shutdown(socket.SHUT_RDWR)

    def _answer(self, frame: bytes) -> None:
        if self._fate is Fate.LOSE:
            self.client.shutdown(socket.SHUT_RDWR)
        elif self._fate is Fate.FAIL:
            self.client.sendall(_reply(self._asked, ERROR))
        else:
            answer = bson.decode(frame[BODY:]) | {"writeConcernError": NOT_ON_MAJORITY}
            self.client.sendall(_reply(self._asked, answer))


def _receive(source: socket.socket) -> bytes:
    """Return the next message, or nothing when the other side has closed."""
    head = _read(source, HEADER.size)
    return head + _read(source, HEADER.unpack(head)[0] - len(head)) if head else b""


def _read(source: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        some = source.recv(size - len(data))
        if not some:
            return b""
        data += some
    return bytes(data)


def _command(frame: bytes) -> Command | None:
    """Read the first field of a message, without the rest; None where it is not one of ours."""
    if HEADER.unpack_from(frame)[3] != OP_MSG or frame[BODY - 1] != 0 or frame[BODY + 4] != 2:
        return None  # an old handshake, or a command on no collection
    end = frame.index(0, BODY + 5)
    (size,) = struct.unpack_from("<i", frame, end + 1)
    collection = frame[end + 5 : end + 4 + size]
    command = Command(frame[BODY + 5 : end].decode(), collection.decode())
    return command if command.collection in COLLECTIONS else None


def _reply(asked: int, answer: dict[str, object]) -> bytes:
    body = b"\x00\x00\x00\x00\x00" + bson.encode(answer)
    return HEADER.pack(HEADER.size + len(body), 0, asked, OP_MSG) + body
