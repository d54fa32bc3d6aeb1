"""What the service sends to mongod, watched from inside its process."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from pymongo import MongoClient
from pymongo.monitoring import (
    CommandFailedEvent,
    CommandListener,
    CommandStartedEvent,
    CommandSucceededEvent,
)

from promo_service import database

Document = dict[str, Any]


class Commands(CommandListener):
    """Every command, in order; each of them is one round trip."""

    def __init__(self) -> None:
        self._sent: list[Document] = []

    def watch(self, patch: pytest.MonkeyPatch) -> None:
        """Watch every client that the service opens from now on."""
        patch.setattr(database, "MongoClient", partial(MongoClient, event_listeners=[self]))

    def take(self) -> list[Document]:
        """Return what was sent since the last call."""
        sent, self._sent = self._sent, []
        return sent

    def names(self) -> list[str]:
        """Return the names of what was sent since the last call."""
        return [next(iter(command)) for command in self.take()]

    def started(self, event: CommandStartedEvent) -> None:
        """Keep a command."""
        self._sent.append(dict(event.command))

    def succeeded(self, event: CommandSucceededEvent) -> None:
        """Ignore an answer."""

    def failed(self, event: CommandFailedEvent) -> None:
        """Ignore an error."""
