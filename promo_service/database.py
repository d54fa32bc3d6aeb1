"""The connection to MongoDB: a bounded pool, deadlines, and what the driver's errors mean."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, ParamSpec, TypeVar

import pymongo
from pymongo import MongoClient
from pymongo.errors import ConfigurationError, ConnectionFailure, OperationFailure

from promo_service.errors import DatabaseUnavailable, SettingsError

log = logging.getLogger(__name__)

Document = dict[str, Any]
P = ParamSpec("P")
T = TypeVar("T")

DUPLICATE_KEY = 11000


def connect(uri: str, *, pool_size: int, timeout: float) -> MongoClient[Document]:
    """Return the process's client: a bounded pool, no wait longer than `timeout` seconds.

    Call it after the fork, in the worker. Every limit is set: PyMongo's own defaults are a pool
    of 100 without a bound on waiting for it, and 30 s to find a server. Raises SettingsError when
    the driver cannot read the URI.
    """
    milliseconds = int(timeout * 1000)
    try:
        return MongoClient(
            uri,
            appname="promo-service",
            maxPoolSize=pool_size,
            minPoolSize=min(2, pool_size),
            maxConnecting=2,
            waitQueueTimeoutMS=milliseconds,
            serverSelectionTimeoutMS=milliseconds,
            connectTimeoutMS=milliseconds,
            retryWrites=True,
            retryReads=True,
        )
    except (ConfigurationError, ValueError) as error:  # a port out of range is a ValueError
        raise SettingsError(f"MONGODB_URI cannot be used: {error}") from error


def deadline(seconds: float) -> AbstractContextManager[None]:
    """Bound all database work inside by `seconds`; valid in the greenlet that opens it only."""
    # To PyMongo, 0 is no deadline at all and less is a mistake.
    return pymongo.timeout(max(seconds, 1e-6))


def translated(method: Callable[P, T]) -> Callable[P, T]:
    """Turn what the driver reports into DatabaseUnavailable, and let bugs of ours through."""

    @functools.wraps(method)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return method(*args, **kwargs)
        except ConnectionFailure as error:
            log.warning("database out of reach in %s: %s", method.__name__, error)
            raise DatabaseUnavailable(str(error)) from error
        except OperationFailure as error:
            if not error.timeout and not error.has_error_label("RetryableWriteError"):
                log.error("database refused %s", method.__name__, exc_info=error)
            raise DatabaseUnavailable(str(error)) from error

    return call
