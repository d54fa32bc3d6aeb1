"""A promo code on sale at one or more services, who clicks on it, and what they are answered."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Self

from pymongo.database import Database

from tests.support import unique_code
from tests.support.client import Request, Response, send
from tests.support.documents import promo_document, use_document, user
from tests.support.ledger import Books, books, violations
from tests.support.service import Service

Document = dict[str, Any]


@dataclass(frozen=True)
class Sale:
    """One promo code, and the services that sell it."""

    database: Database[Document]
    services: Sequence[Service]
    promo: Document

    @classmethod
    def open(
        cls, database: Database[Document], services: Sequence[Service], **changes: Any
    ) -> Self:
        """Insert a promo with these changes and a code of its own."""
        promo = promo_document(unique_code(), **changes)
        database["promo_codes"].insert_one(promo)
        return cls(database, services, promo)

    def add_uses(self, users: Iterable[int], **changes: Any) -> None:
        """Record a use of each user, as the legacy service did; the count stays as it is."""
        uses = [use_document(self.promo["_id"], user(number), **changes) for number in users]
        self.database["promo_usage"].insert_many(uses)

    def click(self, number: int, *, at: int = 0, key: str | None = None, **fields: Any) -> Request:
        """Return the request of the n-th user to apply the code, at the n-th service."""
        body = {"code": self.promo["code"], "userId": user(number), "orderAmount": 100} | fields
        headers = {} if key is None else {"Idempotency-Key": key}
        return Request(f"{self.services[at].api}/apply", body, headers)

    def clicks(self, users: Iterable[int], **fields: Any) -> list[Request]:
        """Return a click of each user, dealt out to the services in turn."""
        places = len(self.services)
        return [self.click(user, at=n % places, **fields) for n, user in enumerate(users)]

    def ask(self, number: int, *, at: int = 0, **fields: Any) -> Response:
        """Send a click and return the answer."""
        return send(self.click(number, at=at, **fields))

    def ask_until_answered(self, number: int, *, at: int = 0, **fields: Any) -> Response:
        """Send a click again while it is answered 503, as the shop should.

        A process waits for another's claim whose outcome is not known, until it has run out.
        """
        for _ in range(4):
            answer = self.ask(number, at=at, **fields)
            if answer.status != 503:
                break
        return answer

    def books(self) -> Books:
        """Return how many uses are recorded and taken."""
        return books(self.database, self.promo["_id"])

    def violations(self) -> list[str]:
        """Return what contradicts I1, I2 and I3."""
        return violations(self.database, self.promo["_id"])


def outcomes(answers: Iterable[Response]) -> Counter[str]:
    """Count the machine codes of answers; a success has none and is called OK."""
    return Counter(answer.json.get("code", "OK") for answer in answers)


def is_replayed(answer: Response) -> bool:
    """Tell whether an answer says that it repeats an earlier one."""
    return answer.headers["Idempotent-Replayed"] == "true"


def is_double_success(clicks: Sequence[Response]) -> bool:
    """Tell whether two clicks were answered alike, and exactly one of them as a repetition."""
    first, second = clicks
    same = first.status == second.status == 200 and first.body == second.body
    return same and sorted(map(is_replayed, clicks)) == [False, True]
