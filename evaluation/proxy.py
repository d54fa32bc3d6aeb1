"""A TCP proxy before mongod that loses replies: the command is run, and its answer never comes."""

from __future__ import annotations

import random
import select
import socket
import threading
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

from pymongo import MongoClient

from promo_service.embedded import HOST, EmbeddedMongod, free_port

# The name of a write command, as the first field of its BSON; replication sends none of these.
WRITES = (b"\x02insert\x00", b"\x02update\x00", b"\x02findAndModify\x00")
CHUNK = 65_536


class LossyProxy:
    """Passes everything on, but the replies to some writes, whose connection it cuts.

    `share` of the writes are hit while it is above 0; `lost` counts them.
    """

    def __init__(self, target: int, seed: int) -> None:
        self.port = free_port()
        self.share = 0.0
        self.lost = 0
        self._target = target
        self._random = random.Random(seed)
        self._listener = socket.create_server((HOST, self.port))
        self._thread = threading.Thread(target=self._accept, daemon=True)

    @property
    def address(self) -> str:
        """The host:port to connect to."""
        return f"{HOST}:{self.port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # Closing alone would not wake the thread that accepts.
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, suppress(OSError), socket.create_connection((HOST, self._target)) as server:
            for end in (client, server):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._pass_on(client, server)

    def _pass_on(self, client: socket.socket, server: socket.socket) -> None:
        losing = False
        while True:
            for source in select.select([client, server], [], [])[0]:
                data = source.recv(CHUNK)
                if not data:
                    return
                if source is server and losing:
                    self.lost += 1
                    return
                if source is client:
                    losing = self._is_hit(data)
                (server if source is client else client).sendall(data)

    def _is_hit(self, data: bytes) -> bool:
        return any(name in data for name in WRITES) and self._random.random() < self.share


def announce(mongod: EmbeddedMongod, addresses: Sequence[str]) -> None:
    """Make proxies the addresses of the members; drivers ask the members for them."""
    with MongoClient[dict[str, Any]](mongod.uri) as client:
        config = client.admin.command("replSetGetConfig")["config"]
        for member, address in zip(config["members"], addresses, strict=True):
            member["host"] = address
        config["version"] += 1
        client.admin.command("replSetReconfig", config, force=True)
