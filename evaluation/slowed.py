"""The service on a database that takes long for each command, with or without load shedding.

So its capacity is known and small: on one machine, a load that is several times what two cores can
serve could not even be sent.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from unittest import mock

import gevent
from bson import ObjectId
from flask import Flask

from promo_service import app as composition
from promo_service import redeem
from promo_service.batcher import Batcher
from promo_service.claims import Claim
from promo_service.settings import Settings
from promo_service.store import Snapshot, Store

COMMANDS = 3


class SlowStore(Store):
    """Waits before each of the commands of an apply."""

    seconds = 0.0

    def read(self, users_by_code: Any) -> dict[str, Snapshot]:
        """Read, later."""
        gevent.sleep(self.seconds)
        return super().read(users_by_code)

    def take(self, claims: Sequence[Claim], now: datetime) -> dict[ObjectId, list[bytes]]:
        """Take, later."""
        gevent.sleep(self.seconds)
        return super().take(claims, now)

    def record(self, uses: Sequence[dict[str, Any]]) -> set[int]:
        """Record, later."""
        gevent.sleep(self.seconds)
        return super().record(uses)


class Hopeful(Batcher[Any, Any, Any]):
    """Takes in everybody, whether or not there is hope of an answer in time."""

    def _expected_seconds(self, _key: Any) -> float:
        return 0.0


def capacity(command_seconds: float) -> float:
    """Return how many applies of one code a second one process can answer."""
    return redeem.MAX_BATCH / (COMMANDS * command_seconds)


def create_app(command_seconds: float, *, shedding: bool = True) -> Flask:
    """Build the service from the environment, on a database that is so slow."""
    SlowStore.seconds = command_seconds
    with mock.patch.object(composition, "Store", SlowStore):
        if shedding:
            return composition.create_app(Settings.from_env())
        with (
            mock.patch.object(redeem, "Batcher", Hopeful),
            mock.patch.object(composition, "MAX_WAITING", 1_000_000),
        ):
            return composition.create_app(Settings.from_env())
