"""Creating, reading, listing and switching off promo codes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from bson import ObjectId
from gevent.lock import BoundedSemaphore

from promo_service.database import Document, deadline
from promo_service.errors import DatabaseUnavailable, NotFound, Unavailable
from promo_service.store import Store


class Catalog:
    """The operations that are not redemptions; at most `operations` of them are at the database."""

    def __init__(
        self, store: Store, now: Callable[[], datetime], *, timeout: float, operations: int
    ) -> None:
        self._store = store
        self._now = now
        self._timeout = timeout
        self._slots = BoundedSemaphore(operations)

    def create(self, fields: dict[str, Any]) -> Document:
        """Store a new promo code; return it in the order in which Node wrote it, `_id` last.

        Raises DuplicateCode when a promo with its code is active.
        """
        now = self._now()
        with self._operation():
            return self._store.create(
                {**fields, "createdAt": now, "updatedAt": now, "currentUses": 0}
            )

    def read(self, code: str) -> Document:
        """Return the promo with this code, active or not; raises NotFound."""
        with self._operation():
            document = self._store.find_by_code(code)
        if document is None:
            raise NotFound("There is no such promo code")
        return document

    def active(self) -> Iterator[list[Document]]:
        """Yield all active promo codes, some hundreds at a time.

        Each piece has the deadline of a request; raises Unavailable when the database does not
        answer.
        """
        pieces = self._store.active()
        while True:
            with self._operation():
                piece = next(pieces, None)
            if piece is None:
                return
            yield piece

    def deactivate(self, promo_id: str, admin_id: str | None) -> None:
        """Switch a promo code off; raises NotFound."""
        with self._operation():
            changed = self._store.deactivate(ObjectId(promo_id), admin_id, self._now())
        if not changed:
            raise NotFound("There is no such promo code")

    def missing_indexes(self) -> list[str]:
        """Ask the database what the migration has still to make; raises Unavailable."""
        with self._operation():
            return self._store.missing_indexes()

    @contextmanager
    def _operation(self) -> Iterator[None]:
        if not self._slots.acquire(timeout=self._timeout):
            raise Unavailable("Too many requests are waiting")
        try:
            with deadline(self._timeout):
                yield
        except DatabaseUnavailable as error:
            raise Unavailable("The database could not answer in time") from error
        finally:
            self._slots.release()
