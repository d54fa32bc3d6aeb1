"""A mongod for the tests, and a fresh database in it."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import TemporaryDirectory
from typing import Any

from pymongo import MongoClient
from pymongo.database import Database

from promo_service.embedded import EmbeddedMongod

Document = dict[str, Any]
# A majority write waits for the journal to reach the disk, so in memory it is several times faster.
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108 - not a fixed name


@contextmanager
def running_mongod(*, members: int = 1) -> Iterator[EmbeddedMongod]:
    """Run a mongod in a temporary folder, with `failCommand` and its like allowed."""
    with (
        TemporaryDirectory(prefix="promo-mongod-", dir=MEMORY) as folder,
        EmbeddedMongod(folder, members=members, test_commands=True) as mongod,
    ):
        yield mongod


def connect(uri: str) -> MongoClient[Document]:
    """Return a client that writes as the service does, and gives up within ten seconds."""
    return MongoClient(uri, w="majority", serverSelectionTimeoutMS=10_000, connectTimeoutMS=10_000)


@contextmanager
def fresh_database(client: MongoClient[Document]) -> Iterator[Database[Document]]:
    """Provide an empty database and drop it afterwards."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    try:
        yield client[name]
    finally:
        client.drop_database(name)
