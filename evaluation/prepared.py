"""The seeded database, kept between runs: each run works on a copy of its own."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil
from pymongo import MongoClient

from evaluation import dataset
from evaluation.dataset import Document, Report
from evaluation.processes import LEGACY_DATABASE, ROOT
from promo_service.embedded import EmbeddedMongod, find_mongod
from promo_service.indexes import REQUIRED_INDEXES
from promo_service.migrations import migrate

_LOG = logging.getLogger(__name__)

FOLDER = ROOT / ".evaluation"
# Raise it when the seeded documents change.
DATA_VERSION = 1
COMPLETE = "complete"
# The production data does not fit into the cache of a development database.
CACHE_GB = 1.0


@contextmanager
def seeded_mongod(
    codes: int, uses: int, databases: Sequence[str], report: Report, cache_gb: float = CACHE_GB
) -> Iterator[EmbeddedMongod]:
    """Run a mongod on a copy of the seeded data, which is made first where there is none."""
    original = _original(codes, uses, databases, report)
    _remove_abandoned()
    with tempfile.TemporaryDirectory(prefix=f"run-{os.getpid()}-", dir=FOLDER) as folder:
        shutil.copytree(original, folder, dirs_exist_ok=True)
        with EmbeddedMongod(folder, cache_gb=cache_gb) as mongod:
            yield mongod


def _original(codes: int, uses: int, databases: Sequence[str], report: Report) -> Path:
    path = FOLDER / "-".join(["data", _layout(), f"{codes}x{uses}", *sorted(databases)])
    if not (path / COMPLETE).exists():
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True)
        with EmbeddedMongod(path, cache_gb=CACHE_GB) as mongod:
            with MongoClient[Document](mongod.uri) as client:
                for database in databases:
                    dataset.seed(client[database], codes, uses, report)
            _migrate(mongod.uri, databases)
        # Only now is everything on disk.
        (path / COMPLETE).touch()
    return path


def _layout() -> str:
    # Data that was made with other indexes, or by another version of mongod, which may not be able
    # to read it, is not found, and made again.
    indexes = [index.document for models in REQUIRED_INDEXES.values() for index in models]
    made = repr((DATA_VERSION, _mongod_version(), indexes))
    return hashlib.sha256(made.encode()).hexdigest()[:8]


def _mongod_version() -> str:
    command = [find_mongod(), "--version"]
    first, *_ = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split(
        "\n"
    )
    return first.rpartition(".")[0]  # without the number of its patch


def _remove_abandoned() -> None:
    # The copies of runs that were killed.
    for path in FOLDER.glob("run-*"):
        if not psutil.pid_exists(int(path.name.split("-")[1])):
            shutil.rmtree(path)


def _migrate(uri: str, databases: Sequence[str]) -> None:
    with MongoClient[Document](uri) as client:
        for database in databases:
            # The legacy service runs on what it had in production: no index but `_id`.
            if database != LEGACY_DATABASE:
                migrate(client[database], _LOG.info)
