"""The database commands of an apply, how each is made to happen, and what can become of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from pymongo.database import Database

from tests.support import unique_code
from tests.support.documents import ABSENT, promo_document, use_document, user
from tests.support.ledger import Books
from tests.support.orders import Order
from tests.support.wire import Command, Fate

Document = dict[str, Any]

# The deadline of a request that is not meant to be answered, and how long its command is held back.
HASTY_SECONDS = 1.0
HELD_SECONDS = 1.5

READ = Command("aggregate", "promo_codes")
FIND_PROMOS = Command("find", "promo_codes")
FIND_USES = Command("find", "promo_usage")
UPDATE = Command("update", "promo_codes")
TAKE_LEFT = Command("findAndModify", "promo_codes")
INSERT = Command("insert", "promo_usage")
COUNT = Command("aggregate", "promo_usage")


@dataclass(frozen=True)
class Fault:
    """What becomes of a command, and of the driver's next attempts at it."""

    name: str
    fate: Fate
    times: int = 1
    seconds: float = 0.0
    writes_only: bool = False


FAULTS = [
    Fault("fails before", Fate.REFUSE),
    Fault("fails after", Fate.FAIL),
    Fault("reply lost", Fate.LOSE),
    Fault("reply lost twice", Fate.LOSE, times=2),
    Fault("write concern error", Fate.DOUBT, writes_only=True),
    Fault("deadline", Fate.PASS, seconds=HELD_SECONDS),
]


@dataclass
class Stage:
    """The promos of one row, who asks for them, and what happens beside that."""

    database: Database[Document]
    promos: list[Document] = field(default_factory=list)
    orders: list[Order] = field(default_factory=list)
    # Asked and answered before the fault.
    earlier: list[Order] = field(default_factory=list)
    # Done by another process at the moment at which a record arrives.
    meanwhile: Callable[[], None] | None = None

    @property
    def codes(self) -> list[str]:
        """The codes of the row."""
        return [promo["code"] for promo in self.promos]

    def sell(self, askers: Sequence[int], **changes: Any) -> Document:
        """Insert a promo for which these users ask, with one order each."""
        promo = promo_document(unique_code(), **changes)
        self.database["promo_codes"].insert_one(promo)
        self.promos.append(promo)
        self.orders += [Order(promo["code"], user(number), "an order") for number in askers]
        return promo

    def books(self) -> Books:
        """Return how many uses are recorded and taken, of all promos together."""
        ids = {"$in": [promo["_id"] for promo in self.promos]}
        recorded = self.database["promo_usage"].count_documents({"promoId": ids})
        promos = self.database["promo_codes"].find({"_id": ids})
        return Books(recorded, sum(promo.get("currentUses", 0) for promo in promos))


def _one(stage: Stage) -> None:
    stage.sell([1], maxUses=2)


def _several(stage: Stage) -> None:
    stage.sell([1, 2, 3], maxUses=4)


def _several_codes(stage: Stage) -> None:
    stage.sell([1], maxUses=2)
    stage.sell([2], maxUses=2)


def _too_few(stage: Stage) -> None:
    stage.sell([1, 2, 3], maxUses=2)


def _too_few_of_one_code(stage: Stage) -> None:
    stage.sell([1], maxUses=2)
    stage.sell([2, 3], maxUses=1)


def _again(stage: Stage) -> None:
    _one(stage)
    stage.earlier += stage.orders


def _uncounted(stage: Stage) -> None:
    stage.sell([1], maxUses=2, currentUses=ABSENT)


def _overtaken(stage: Stage) -> None:
    promo = stage.sell([1], maxUses=3)
    stage.meanwhile = partial(_record_elsewhere, stage.database, promo)


def _record_elsewhere(database: Database[Document], promo: Document) -> None:
    database["promo_codes"].update_one({"_id": promo["_id"]}, {"$inc": {"currentUses": 1}})
    use = use_document(promo["_id"], user(1), useSlot=0, orderId="an order")
    database["promo_usage"].insert_one(use)


@dataclass(frozen=True)
class Step:
    """A database command of an apply, and how to make it happen."""

    name: str
    command: Command
    stage: Callable[[Stage], None]
    skip: int = 0  # so many of the same name come before it
    writes: bool = True


STEPS = [
    Step("read one code", READ, _one, writes=False),
    Step("read the promos of several codes", FIND_PROMOS, _several_codes, writes=False),
    Step("read the uses of several codes", FIND_USES, _several_codes, writes=False),
    Step("count a code for the first time", COUNT, _uncounted, writes=False),
    Step("set its count", UPDATE, _uncounted),
    Step("take uses of one code", UPDATE, _several),
    Step("take uses of several codes", UPDATE, _several_codes),
    Step("see what was taken of several", FIND_PROMOS, _too_few_of_one_code, skip=1, writes=False),
    Step("take what is left", TAKE_LEFT, _too_few),
    Step("record one use", INSERT, _one),
    Step("record several uses", INSERT, _several),
    Step("give back what was refused", UPDATE, _overtaken, skip=1),
    Step("read a repetition on a majority", FIND_USES, _again, writes=False),
]


def matrix() -> list[tuple[Step, Fault]]:
    """Return all combinations that there are."""
    return [(s, f) for s in STEPS for f in FAULTS if s.writes or not f.writes_only]
