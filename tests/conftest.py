"""The fixtures that every test may use. A missing mongod is a failure, not a skip."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from pymongo import MongoClient
from pymongo.database import Database

from promo_service.embedded import EmbeddedMongod
from promo_service.migrations import migrate
from tests.support.mongo import connect, fresh_database, running_mongod
from tests.support.service import Service

Document = dict[str, Any]
StartService = Callable[..., Service]


@pytest.fixture(scope="session")
def mongod() -> Iterator[EmbeddedMongod]:
    """Run a replica set of one member for all tests of the session."""
    with running_mongod() as mongod:
        yield mongod


@pytest.fixture(scope="session")
def client(mongod: EmbeddedMongod) -> Iterator[MongoClient[Document]]:
    """Provide a client with majority writes."""
    with connect(mongod.uri) as client:
        yield client


@pytest.fixture
def database(client: MongoClient[Document]) -> Iterator[Database[Document]]:
    """Provide an empty database to one test."""
    with fresh_database(client) as database:
        yield database


@pytest.fixture(scope="module")
def service_database(client: MongoClient[Document]) -> Iterator[Database[Document]]:
    """Provide a migrated database that the services of one module share: use unique codes."""
    with fresh_database(client) as database:
        migrate(database, report=lambda _line: None)
        yield database


@pytest.fixture(scope="module")
def start_service(
    mongod: EmbeddedMongod,
    service_database: Database[Document],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[StartService]:
    """Provide a function that starts services with `workers` and `environ` for one module."""
    folder = tmp_path_factory.mktemp("service")
    with ExitStack() as running:

        def start(**options: Any) -> Service:
            log = folder / f"{len(list(folder.iterdir()))}.log"
            service = Service(mongod.uri, service_database.name, log, **options)
            return running.enter_context(service)

        yield start


@pytest.fixture(scope="module")
def service(start_service: StartService) -> Service:
    """Provide one service process to all tests of a module."""
    return start_service()


@pytest.fixture(scope="module")
def two_services(start_service: StartService) -> tuple[Service, Service]:
    """Provide two service processes on one database, which share nothing else.

    Their deadline is one that a machine that does other work too can keep: what is tested with
    them is that the books are right; how long it takes is a benchmark's business.
    """
    patient = {"PROMO_REQUEST_TIMEOUT_MS": "20000"}
    return start_service(environ=patient), start_service(environ=patient)
