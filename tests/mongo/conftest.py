"""Two stores on one migrated database: two processes of the service."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from pymongo import MongoClient
from pymongo.database import Database

from promo_service.database import connect
from promo_service.embedded import EmbeddedMongod
from promo_service.store import Store
from tests.support.commands import Commands

Document = dict[str, Any]

CLAIM_SECONDS = 60


@pytest.fixture(scope="module")
def commands() -> Commands:
    """Provide what `service_client` sends."""
    return Commands()


@pytest.fixture(scope="module")
def service_client(mongod: EmbeddedMongod, commands: Commands) -> Iterator[MongoClient[Document]]:
    """Provide a client as the service opens it."""
    with pytest.MonkeyPatch.context() as patch:
        commands.watch(patch)
        client = connect(mongod.uri, pool_size=4, timeout=10)
    with client:
        yield client


@pytest.fixture
def ours(service_client: MongoClient[Document], service_database: Database[Document]) -> Store:
    """Provide the store of this process."""
    return Store(service_client, service_database.name, CLAIM_SECONDS)


@pytest.fixture
def theirs(service_client: MongoClient[Document], service_database: Database[Document]) -> Store:
    """Provide the store of another process."""
    return Store(service_client, service_database.name, CLAIM_SECONDS)
