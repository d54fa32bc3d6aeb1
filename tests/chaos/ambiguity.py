"""The ambiguity matrix: every database command of an apply, and everything that can become of it.

`python -m tests.chaos.ambiguity` writes docs/ambiguity.md; test_ambiguity.py checks it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from pymongo.database import Database

from docs.blocks import table
from promo_service.migrations import migrate
from promo_service.reconcile import run_once
from promo_service.store import Store
from tests.chaos.steps import HASTY_SECONDS, INSERT, Fault, Stage, Step, matrix
from tests.support.history import Attempt, GiveBack, Outcome, Violation
from tests.support.in_process import InProcess, in_process
from tests.support.ledger import Books
from tests.support.mongo import connect, fresh_database, running_mongod
from tests.support.verdict import judge
from tests.support.wire import Command, CommandProxy, Fate, OnNth

Document = dict[str, Any]

PAGE = Path(__file__).parents[2] / "docs" / "ambiguity.md"
# Requests that must be answered have long.
PATIENT_SECONDS = 30.0
TRIES = 6
NOTHING = Books(0, 0)

INTRODUCTION = """\
# What a database command that fails leaves behind

Every database command of an apply, and everything that can become of it. Uses are shown as
*recorded of taken*. *Fails*: mongod answers with an error for which no driver tries again;
*before*: the command was not run, *after*: it was. *Reply lost*: it was run, and the connection was
cut instead of the answer. *Deadline*: it was held back until the request had ended, and then run.
*Repeated*: the same orders were sent again, after `reconcile`.

`python -m tests.chaos.ambiguity` writes this page, and `tests/chaos/test_ambiguity.py` checks that
it is true: no row loses a use that was answered with 200, none sells more than there are, and none
leaves a use taken for good.
"""


class Apps(NamedTuple):
    """The service with two deadlines.

    The hasty one is made for each row: it would remember that the database did not answer.
    """

    patient: InProcess
    hasty: Callable[[], AbstractContextManager[InProcess]]


@dataclass
class Row:
    """One command and one fault: what was seen of them."""

    step: Step
    fault: Fault
    stage: Stage
    asked: list[Attempt]
    hits: int
    after: Books
    reconciled: Books = NOTHING
    repeated: list[Attempt] = field(default_factory=list)
    finally_: Books = NOTHING
    violations: list[Violation] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The row's name in the table."""
        return f"{self.step.name}, {self.fault.name}"

    def cells(self) -> list[str]:
        """Return the row as the table shows it."""
        given_back = self.after.taken - self.reconciled.taken
        return [
            self.step.name,
            self.fault.name,
            _told(self.asked),
            _shown(self.after),
            f"gives back {given_back}" if given_back else "changes nothing",
            _told(self.repeated),
            _shown(self.finally_),
        ]


def play(port: int, database: Database[Document], cases: Sequence[tuple[Step, Fault]]) -> list[Row]:
    """Play every case, reconcile all of them at once, and repeat every order."""
    with CommandProxy(port) as proxy:
        # A driver that finds a replica set would go round the proxy.
        uri = f"mongodb://{proxy.address}/?directConnection=true"
        hasty = partial(in_process, uri, database.name, HASTY_SECONDS)
        with in_process(uri, database.name, PATIENT_SECONDS) as patient:
            rows = [
                _play_until_hit(step, fault, database, proxy, Apps(patient, hasty))
                for step, fault in cases
            ]
            given_back = _reconcile(database, rows)
            for row in rows:
                row.repeated = patient.ask(row.stage.orders)
    for row in rows:
        row.finally_ = row.stage.books()
        history = row.asked + row.repeated
        row.violations += judge(
            database, row.stage.codes, history, given_back[row.name], settled=True
        )
    return rows


def _play_until_hit(
    step: Step, fault: Fault, database: Database[Document], proxy: CommandProxy, apps: Apps
) -> Row:
    """Play a row; again where the machine was so slow that the deadline came before the fault."""
    for _ in range(TRIES):
        row = _play(step, fault, database, proxy, apps)
        if row.hits == fault.times:
            break
    return row


def _play(
    step: Step, fault: Fault, database: Database[Document], proxy: CommandProxy, apps: Apps
) -> Row:
    stage = Stage(database)
    step.stage(stage)
    earlier = apps.patient.ask(stage.earlier)
    decide = OnNth(step.command, fault.fate, step.skip, fault.times, fault.seconds)
    proxy.decide = _besides(stage, decide)
    with apps.hasty() if fault.seconds else nullcontext(apps.patient) as app:
        asked = app.ask(stage.orders)
        proxy.wait_until_idle()
    proxy.decide = lambda _: Fate.PASS
    row = Row(step, fault, stage, earlier + asked, decide.hits, stage.books())
    row.violations += judge(database, stage.codes, row.asked, settled=False)
    return row


def _besides(stage: Stage, decide: OnNth) -> Callable[[Command], Fate]:
    if stage.meanwhile is None:
        return decide
    overtake = OnNth(INSERT, Fate.PASS, before=stage.meanwhile)

    def both(command: Command) -> Fate:
        overtake(command)
        return decide(command)

    return both


def _reconcile(database: Database[Document], rows: Sequence[Row]) -> dict[str, list[GiveBack]]:
    """Give back what is not recorded; all requests have ended, so there is nothing to wait for."""
    run_once(Store(database.client, database.name, HASTY_SECONDS), wait_seconds=0)
    given_back = {}
    for row in rows:
        row.reconciled = row.stage.books()
        fewer = row.reconciled.taken < row.after.taken
        events = [GiveBack(code, time.time()) for code in row.stage.codes]
        given_back[row.name] = events if fewer else []
    return given_back


def _shown(counts: Books) -> str:
    return f"{counts.recorded} of {counts.taken}"


def _told(attempts: Sequence[Attempt]) -> str:
    told = [_name(attempt) for attempt in attempts]
    return ", ".join(
        f"{told.count(one)} x {one}" if len(told) > 1 else one for one in dict.fromkeys(told)
    )


def _name(attempt: Attempt) -> str:
    if attempt.outcome is Outcome.OK:
        return "200 replayed" if attempt.replayed else "200"
    return "503" if attempt.outcome is Outcome.UNKNOWN else f"400 {attempt.reason}"


def page(rows: Sequence[Row]) -> str:
    """Write the page of the documents."""
    titles = ["command", "becomes of it", "answers", "uses", "`reconcile`", "repeated", "uses then"]
    return "\n".join([INTRODUCTION, *table(titles, [row.cells() for row in rows]), ""])


def main() -> None:
    """Play the matrix on a mongod of its own and write the page."""
    with (
        running_mongod() as mongod,
        connect(mongod.uri) as client,
        fresh_database(client) as database,
    ):
        migrate(database, report=lambda _line: None)
        rows = play(mongod.members[0].port, database, matrix())
        PAGE.parent.mkdir(exist_ok=True)
        PAGE.write_text(page(rows))


if __name__ == "__main__":
    main()
