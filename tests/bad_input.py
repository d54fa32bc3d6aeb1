"""Tries very many bad inputs on the service: `python -m tests.bad_input --help`."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import click

from promo_service.migrations import migrate
from tests.support.client import get
from tests.support.mongo import connect, running_mongod
from tests.support.raw import Answer, answers, exchange
from tests.support.rubbish import Bad, bad_input
from tests.support.service import Service

CLIENTS = 8
# Longer than the worker lets anybody take to send a request.
PATIENCE = 30.0
JSON = "application/json; charset=utf-8"
SHOWN = 10
STACK_LINES = 60


@dataclass(slots=True)
class Outcomes:
    """What became of the inputs that were tried."""

    tried: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    answers: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


def try_all(
    service: Service, seed: int, numbers: Iterable[int], outcomes: Outcomes
) -> Iterator[int]:
    """Try the inputs with these numbers; yield each of them when it has been answered."""
    with ThreadPoolExecutor(CLIENTS) as clients:
        for number, bad, found in clients.map(partial(_try, service.port, seed), numbers):
            outcomes.tried += 1
            outcomes.kinds[bad.kind] += 1
            outcomes.answers.update(_name(one) for one in found if isinstance(one, Answer))
            outcomes.wrong += [
                f"{number} ({bad.kind}): {problem}" for problem in map(_problem, found) if problem
            ]
            yield number


def _try(port: int, seed: int, number: int) -> tuple[int, Bad, list[Answer | str]]:
    bad = bad_input(seed, number)
    try:
        found = answers(exchange(port, bad.sent, timeout=PATIENCE))
    except TimeoutError:
        return number, bad, [f"not answered in {PATIENCE:.0f} s"]
    except (ValueError, OSError) as error:
        return number, bad, [f"{type(error).__name__}: {error}"]
    return number, bad, [*found] if found or not bad.sent else ["closed without an answer"]


def _problem(found: Answer | str) -> str:
    if isinstance(found, str):
        return found
    if not 400 <= found.status < 500:
        return f"answered {found.status}: {found.body[:200]!r}"
    if found.content_type != JSON or list(_read(found)) != ["success", "error", "code"]:
        return f"not answered as JSON: {found.content_type}, {found.body[:200]!r}"
    return ""


def _name(answer: Answer) -> str:
    return f"{answer.status} {_read(answer).get('code', '-')}"


def _read(answer: Answer) -> dict[str, object]:
    try:
        read = json.loads(answer.body)
    except ValueError:
        return {}
    return read if isinstance(read, dict) else {}


def check_worker(service: Service, workers: list[int], outcomes: Outcomes) -> None:
    """Note it as wrong when the worker has not come through all of it unharmed."""
    if get(f"{service.url}/healthz", timeout=PATIENCE).status != 200:
        outcomes.wrong.append("the service is not healthy any more")
    if service.worker_pids() != workers:
        outcomes.wrong.append("a worker has died")
    before, stack, after = service.log.read_text(errors="replace").partition("Traceback")
    if stack:
        around = [*before.splitlines()[-1:], *(stack + after).splitlines()[:STACK_LINES]]
        outcomes.wrong.append("\n".join(["a stack in the log:", *around]))


@click.command()
@click.option("--count", default=100_000, show_default=True, type=click.IntRange(1))
@click.option("--seed", default=1, show_default=True, help="The same seed, the same inputs.")
@click.option("--first", default=0, show_default=True, help="Number of the first input.")
def main(count: int, seed: int, first: int) -> None:
    """Try bad inputs on a service of its own, with a mongod of its own, and count the answers.

    Each has a connection of its own. Exit code 1 when one is answered with 5xx, or not as JSON, or
    not at all, or when the worker is not as it was afterwards.
    """
    outcomes, started = Outcomes(), time.monotonic()
    with (
        running_mongod() as mongod,
        connect(mongod.uri) as client,
        TemporaryDirectory(prefix="promo-bad-input-") as folder,
    ):
        migrate(client["bad_input"], report=lambda _line: None)
        with Service(
            mongod.uri,
            "bad_input",
            Path(folder) / "log",
            # What is late on a busy machine is not what is looked for.
            environ={"PROMO_REQUEST_TIMEOUT_MS": "20000"},
        ) as service:
            workers = service.worker_pids()
            tried = try_all(service, seed, range(first, first + count), outcomes)
            with click.progressbar(tried, length=count, label="Bad inputs", file=sys.stderr) as bar:
                for _ in bar:
                    pass
            check_worker(service, workers, outcomes)
    _report(outcomes, time.monotonic() - started)
    sys.exit(1 if outcomes.wrong else 0)


def _report(outcomes: Outcomes, seconds: float) -> None:
    click.echo(f"{outcomes.tried} bad inputs in {seconds:.0f} s")
    for title, counted in (("Inputs", outcomes.kinds), ("Answers", outcomes.answers)):
        click.echo(f"\n{title}:")
        for name, number in sorted(counted.items()):
            click.echo(f"  {name:36}{number:9}")
    click.echo(f"\nWrong: {len(outcomes.wrong)}")
    for problem in outcomes.wrong[:SHOWN]:
        click.secho(f"  {problem}", fg="red")


if __name__ == "__main__":
    main()
