"""Orders as clients send them, and what they may conclude from the answers."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from tests.support.history import Attempt, Outcome


@dataclass(frozen=True, slots=True)
class Order:
    """A wish to apply a code, which may be sent many times."""

    code: str
    user: str
    order: str | None
    amount: float = 100

    def body(self) -> bytes:
        """Return the body of the request."""
        fields: dict[str, Any] = {
            "code": self.code,
            "userId": self.user,
            "orderAmount": self.amount,
        }
        if self.order is not None:
            fields["orderId"] = self.order
        return json.dumps(fields).encode()

    def answered(
        self, status: int, body: bytes, start: float, end: float, *, replayed: bool
    ) -> Attempt:
        """Read an answer."""
        known = (self.code, self.user, self.order, self.amount)
        if status == 200:
            return Attempt(*known, Outcome.OK, start, end, body=body, replayed=replayed)
        reason = json.loads(body)["code"]
        if status == 503:
            return Attempt(*known, Outcome.UNKNOWN, start, end, reason)
        return Attempt(*known, Outcome.REFUSED, start, end, reason)

    def unanswered(self, start: float, end: float) -> Attempt:
        """Return what is known when no answer came."""
        return Attempt(self.code, self.user, self.order, self.amount, Outcome.UNKNOWN, start, end)
