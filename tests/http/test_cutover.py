"""The cut-over from the legacy service, and back: docs/cutover.md, played command by command."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest
from bson import ObjectId
from pymongo import MongoClient
from pymongo.database import Database
from pymongo.read_concern import ReadConcern

from evaluation import processes
from promo_service.embedded import EmbeddedMongod
from promo_service.reconcile import run_once
from promo_service.seed import seed
from promo_service.store import Store
from tests.support import unique_code
from tests.support.client import Response, fire, get, post
from tests.support.documents import ABSENT, utc_now
from tests.support.sale import Sale, is_replayed, outcomes
from tests.support.service import OURS, PREFIX, ROOT, Service

Document = dict[str, Any]
OpenSale = Callable[..., Sale]

GUIDE = ROOT / "docs" / "cutover.md"
LEGACY, NEW, NEW_TOO = range(3)
DAY = timedelta(days=1)
PATIENT = {"PROMO_REQUEST_TIMEOUT_MS": "20000"}


class Legacy(processes.Service):
    """An instance of the legacy service."""

    def __init__(self, uri: str, database: str, log: Path) -> None:
        variant = replace(processes.VARIANTS["legacy"], database=database)
        super().__init__(variant, uri, 1, log)
        self.api = self.url(PREFIX)


# --- the whole way


@dataclass
class Guide:
    """The document: its commands, by the heading under which they stand."""

    environ: dict[str, str]
    followed: set[str] = field(default_factory=set)
    commands: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        sections = re.split(r"^## ", GUIDE.read_text(), flags=re.MULTILINE)[1:]
        for heading, _, text in (section.partition("\n") for section in sections):
            blocks = re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
            if blocks:
                self.commands[heading] = "".join(blocks)

    def command(self, heading: str) -> str:
        """Return the commands under a heading, by its first words, and note that they are run."""
        [found] = [each for each in self.commands if each.startswith(heading)]
        self.followed.add(found)
        return self.commands[found]

    def follow(self, heading: str) -> str:
        """Run the commands under a heading and return what they say."""
        # Nobody uses the codes that it corrects here, so that half a minute of waiting is enough.
        script = re.sub(r"(reconcile.*)", r"\1 --wait 1", self.command(heading))
        done = subprocess.run(
            ["/bin/sh", "-ec", script],
            cwd=ROOT,
            env=self.environ,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture
def guide(mongod: EmbeddedMongod, database: Database[Document]) -> Guide:
    """Provide the document, and the database for its commands."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    programs = Path(sys.executable).parent
    return Guide(
        {
            **environ,
            "PATH": f"{programs}{os.pathsep}{environ['PATH']}",
            "MONGODB_URI": mongod.uri,
            "PROMO_DATABASE": database.name,
            "PROMO_REQUEST_TIMEOUT_MS": "500",  # for the wait of reconcile
        }
    )


@pytest.fixture
def start(
    mongod: EmbeddedMongod, database: Database[Document], tmp_path: Path
) -> Callable[[type], Any]:
    """Provide a function that makes instances of either service."""
    logs = (tmp_path / f"{number}.log" for number in count())

    def make(kind: type) -> Any:
        options = {"environ": PATIENT} if kind is Service else {}
        return kind(mongod.uri, database.name, next(logs), **options)

    return make


@contextmanager
def shopping(sale: Sale, users: Iterator[int]) -> Iterator[list[Response]]:
    """Let one user after the other click while the `with` runs."""
    answers: list[Response] = []
    over = threading.Event()

    def click() -> None:
        while not over.is_set():
            answers.append(sale.ask(next(users)))

    thread = threading.Thread(target=click)
    thread.start()
    try:
        yield answers
    finally:
        over.set()
        thread.join()


def sell(sale: Sale, users: Iterable[int]) -> int:
    """Let all users click at the same moment, at all places in turn; return how many got a use."""
    return statuses(fire(sale.clicks(users)))[200]


def statuses(answers: Iterable[Response]) -> Counter[int]:
    """Count the statuses of answers; the legacy service knows no machine codes."""
    return Counter(answer.status for answer in answers)


def assert_whole(database: Database[Document]) -> None:
    """Every count is that of the recorded uses, and every user's uses are numbered from 0."""
    numbers: dict[tuple[ObjectId, ObjectId], list[int]] = {}
    recorded: Counter[ObjectId] = Counter()
    for use in database["promo_usage"].find():
        recorded[use["promoId"]] += 1
        numbers.setdefault((use["promoId"], use["userId"]), []).append(use["useSlot"])
    for promo in database["promo_codes"].find():
        assert promo["currentUses"] == recorded[promo["_id"]], promo["code"]
    assert all(sorted(slots) == list(range(len(slots))) for slots in numbers.values())


def at(sale: Sale, *services: Any) -> Sale:
    """Return the sale at other services."""
    return replace(sale, services=services)


class Codes(NamedTuple):
    """The codes that are sold all the way: without a limit, scarce, and one often at rest."""

    free: Sale
    scarce: Sale
    resting: Sale


def test_the_whole_way_and_back(
    guide: Guide, database: Database[Document], start: Callable[[type], Any]
) -> None:
    seed(database, 200, 4000, lambda _: None, now=utc_now())
    limits = (None, 40, 30)
    codes = Codes(*(Sale.open(database, [], currentUses=ABSENT, maxUses=each) for each in limits))
    with start(Legacy) as legacy:
        migrate_while_legacy_serves(guide, legacy, codes)
        with start(Service) as one, start(Service) as two:
            serve_side_by_side(guide, legacy, [one, two], codes)
            legacy.stop()
            guide.follow("6.")
            assert_whole(database)
            serve_alone([one, two], codes)
            returning = sell_some(database, one)
    with start(Legacy) as legacy:
        go_back(legacy, codes)
        assert sell(at(returning, legacy), range(5, 12)) == 7
    for step in ("2.", "3."):
        guide.follow(step)
    assert returning.books() == (12, 12)
    with start(Service) as one, start(Service) as two:
        guide.follow("6.")
        assert_whole(database)
        sell_out(at(returning, one, two), left=8)
    assert_whole(database)
    assert guide.followed == set(guide.commands)


def migrate_while_legacy_serves(guide: Guide, legacy: Legacy, codes: Codes) -> None:
    """Take steps 1 to 3 under load, in which nothing fails and nothing is lost."""
    free, scarce, resting = (at(code, legacy) for code in codes)
    assert sell(scarce, range(10)) == 10
    with shopping(free, count(1)) as answers:
        assert guide.follow("1.").endswith("nothing was changed\n")
        assert guide.follow("2.").endswith("the database is up to date\n")
    assert statuses(answers) == {200: len(answers)}
    assert sell(resting, range(5)) == 5
    assert resting.books() == (5, 0)
    guide.follow("3.")
    assert free.books() == (len(answers), len(answers))
    assert resting.books() == (5, 5)


def serve_side_by_side(guide: Guide, legacy: Legacy, new: Sequence[Service], codes: Codes) -> None:
    """Sell at both services; what legacy sells, the new one does not count."""
    command = shlex.split(guide.command("4."))
    for instance in new:
        assert psutil.Process(instance.pid).cmdline()[-len(command) + 1 :] == command[1:]
        assert get(f"{instance.url}/readyz").status == 200
    free, scarce, resting = codes
    assert sell(at(scarce, legacy), range(10, 14)) == 4
    assert sell(at(scarce, *new), range(20, 60)) == 30
    assert scarce.books() == (44, 40)
    assert at(scarce, legacy).ask(60).status == 400
    assert sell(at(resting, legacy), range(5, 10)) == 5
    before = free.books()
    assert sell(at(free, legacy, *new), range(10_000, 10_060)) == 60
    assert free.books() == (before.recorded + 60, before.taken + 40)
    assert "29 uses of 3 codes added" in guide.follow("5.")
    assert resting.books() == (10, 5)


def serve_alone(new: Sequence[Service], codes: Codes) -> None:
    """Keep every limit; what was oversold stays, and sells no more."""
    assert codes.scarce.books() == (44, 44)
    refused = fire(at(codes.scarce, *new).clicks(range(100, 110)))
    assert outcomes(refused) == {"USAGE_LIMIT_REACHED": 10}
    sell_out(at(codes.resting, *new), left=20)


def sell_out(sale: Sale, left: int) -> None:
    """Sell what is left, and not one more, to a crowd in which everybody clicks twice."""
    crowd = [number for number in range(1000, 1000 + 2 * left) for _ in range(2)]
    answers = fire(sale.clicks(crowd))
    assert statuses(answers) == {200: left, 400: 3 * left}
    assert sale.violations() == []
    assert sale.books() == (sale.promo["maxUses"], sale.promo["maxUses"])


def sell_some(database: Database[Document], new: Service) -> Sale:
    """Sell 5 of 20 uses of another code."""
    sale = Sale.open(database, [new], maxUses=20)
    assert sell(sale, range(5)) == 5
    return sale


def go_back(legacy: Legacy, codes: Codes) -> None:
    """Let the legacy service read and count what the new one has written."""
    for code in (codes.scarce, codes.resting):
        read = get(f"{legacy.api}/{code.promo['code']}").json
        assert read["currentUses"] == code.books().recorded
        refused = at(code, legacy).ask(5000)
        assert refused.json["error"] == "Promo code usage limit reached"
    listed = {promo["code"] for promo in get(legacy.api).json}
    assert listed >= {code.promo["code"] for code in codes}
    served_by_the_new_one = at(codes.free, legacy).ask(10_001)
    assert "maximum number of times" in served_by_the_new_one.json["error"]
    assert at(codes.free, legacy).ask(5000).status == 200


# --- side by side: each line of the table


@pytest.fixture(scope="module")
def legacy(
    mongod: EmbeddedMongod,
    service_database: Database[Document],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Legacy]:
    """Provide an instance of the legacy service beside the new ones."""
    log = tmp_path_factory.mktemp("legacy") / "log"
    with Legacy(mongod.uri, service_database.name, log) as instance:
        yield instance


@pytest.fixture
def open_sale(
    service_database: Database[Document], legacy: Legacy, two_services: tuple[Service, Service]
) -> OpenSale:
    """Provide a function that puts a code on sale at a legacy instance and at two new ones."""

    def opened(**changes: Any) -> Sale:
        return at(Sale.open(service_database, [], **changes), legacy, *two_services)

    return opened


def reconcile(client: MongoClient[Document], sale: Sale) -> None:
    """Reconcile one code that nobody is using."""
    # Before MongoDB 5.0 a write of the legacy service does not wait for a majority, and reconcile
    # reads what a majority has. In production its wait is long enough for that.
    with client.start_session(causal_consistency=True) as session:
        nudge = client["test"].get_collection("nudge", read_concern=ReadConcern("majority"))
        nudge.insert_one({}, session=session)
        nudge.find_one({}, session=session)
    store = Store(client, sale.database.name, claim_seconds=1)
    run_once(store, wait_seconds=0, codes=[sale.promo["code"]], sleep=lambda _: None)


def test_new_instances_never_take_more_than_is_left_by_their_count(open_sale: OpenSale) -> None:
    sale = open_sale(maxUses=30)
    answers = fire(sale.clicks(range(120)))
    sold = [statuses(answers[place::3])[200] for place in range(3)]
    assert sold[NEW] + sold[NEW_TOO] == 30
    assert sale.books() == (30 + sold[LEGACY], 30)
    assert statuses(answers) == {200: sum(sold), 400: 120 - sum(sold)}


def test_a_code_is_oversold_by_what_legacy_has_recorded_since_the_count_and_no_more(
    open_sale: OpenSale, client: MongoClient[Document]
) -> None:
    sale = open_sale(maxUses=10)
    for number in range(3):
        assert sale.ask(number, at=LEGACY).status == 200
    reconcile(client, sale)
    for number in range(3, 5):
        assert sale.ask(number, at=LEGACY).status == 200
    assert outcomes(sale.ask(number, at=NEW) for number in range(5, 15)) == {
        "OK": 7,
        "USAGE_LIMIT_REACHED": 3,
    }
    assert sale.ask(20, at=LEGACY).status == 400
    assert sale.books() == (12, 10)
    reconcile(client, sale)
    assert sale.books() == (12, 12)


@pytest.mark.parametrize(("first", "second"), [(LEGACY, NEW), (NEW, LEGACY)])
def test_each_counts_what_the_other_has_recorded_of_a_user(
    open_sale: OpenSale, first: int, second: int
) -> None:
    sale = open_sale(maxUsesPerUser=2)
    assert [sale.ask(1, at=place).status for place in (first, second)] == [200, 200]
    for place in (LEGACY, NEW, NEW_TOO):
        assert "maximum number of times" in sale.ask(1, at=place).json["error"]
    assert sale.books().recorded == 2


def test_the_uses_that_new_instances_record_of_a_user_keep_his_limit(open_sale: OpenSale) -> None:
    sale = open_sale(maxUsesPerUser=2)
    fire(sale.click(number, at=place) for number in range(10) for place in (0, 1, 2, 0, 1, 2))
    numbered = {"promoId": sale.promo["_id"], "useSlot": {"$exists": True}}
    ours = Counter(use["userId"] for use in sale.database["promo_usage"].find(numbered))
    assert 0 < max(ours.values()) <= 2
    assert sale.books().taken == ours.total()


def test_an_order_that_legacy_has_recorded_is_repeated_by_a_new_instance(
    open_sale: OpenSale,
) -> None:
    sale = open_sale(maxUsesPerUser=3)
    first = sale.ask(1, at=LEGACY, orderId="A")
    again = sale.ask(1, at=NEW, orderId="A")
    assert (again.status, again.body) == (200, first.body)
    assert is_replayed(again)
    assert sale.books() == (1, 0)


def test_legacy_records_an_order_a_second_time_where_the_user_has_a_use_left(
    open_sale: OpenSale,
) -> None:
    sale = open_sale(maxUsesPerUser=2)
    orders = [sale.ask(1, at=place, orderId="A") for place in (NEW, LEGACY, LEGACY, NEW)]
    assert [order.status for order in orders] == [200, 200, 400, 200]
    assert is_replayed(orders[3])
    assert sale.books() == (2, 1)


def test_a_code_that_legacy_creates_is_sold_exactly(open_sale: OpenSale, legacy: Legacy) -> None:
    created = post(legacy.api, legacy_promo(unique_code(), maxUses=12))
    sale = replace(open_sale(), promo={**created.json, "_id": ObjectId(created.json["_id"])})
    assert [sale.ask(number, at=LEGACY).status for number in range(4)] == [200] * 4
    assert sell(at(sale, *sale.services[NEW:]), range(10, 30)) == 8
    assert sale.violations() == []


def test_legacy_cannot_create_a_second_active_promo_with_one_code(
    open_sale: OpenSale, legacy: Legacy
) -> None:
    sale = open_sale()
    assert post(legacy.api, legacy_promo(sale.promo["code"])).status == 500
    assert sale.database["promo_codes"].count_documents({"code": sale.promo["code"]}) == 1


def legacy_promo(code: str, **fields: Any) -> Document:
    """Return the body with which a promo is created at the legacy service."""
    start, end = (f"{(utc_now() + days * DAY).isoformat()}Z" for days in (-1, 1))
    return {
        "code": code,
        "discountType": "flat",
        "discountValue": 1,
        "validFrom": start,
        "validUntil": end,
        "adminId": "admin",
        **fields,
    }
