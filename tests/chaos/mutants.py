"""Whether the history checker sees the mistakes that somebody could make in the service.

`python -m tests.chaos.mutants` tries all of them, and writes mutants.md beside this module.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import click

from docs.blocks import table
from tests.chaos.mistakes import MUTANTS, Mutant
from tests.chaos.trials import VIOLATED
from tests.support.mongo import running_mongod

ROOT = Path(__file__).parents[2]
PAGE = Path(__file__).with_name("mutants.md")
TRIAL_SECONDS = 120


class TrialFailed(Exception):
    """Raised when a trial ends without a verdict."""


def violations(mutant: Mutant | None, trial: str, port: int) -> list[str]:
    """Play a trial with a copy of the service, in which a mistake may have been made."""
    with _copy(mutant) as folder:
        environ = os.environ | {"PYTHONPATH": f"{folder}:{ROOT}", "PYTHONSAFEPATH": "1"}
        played = subprocess.run(
            [sys.executable, "-m", "tests.chaos.trials", trial, str(port)],
            env=environ,
            capture_output=True,
            text=True,
            timeout=TRIAL_SECONDS,
            check=False,
        )
    if played.returncode not in (0, VIOLATED):
        raise TrialFailed(f"{mutant and mutant.name}, {trial}: {played.stderr[-2000:]}")
    return played.stdout.splitlines()


@contextmanager
def _copy(mutant: Mutant | None) -> Iterator[Path]:
    with TemporaryDirectory(prefix="promo-mutant-") as folder:
        package = Path(folder) / "promo_service"
        shutil.copytree(ROOT / "promo_service", package)
        if mutant is not None:
            mutant.apply(package)
        yield Path(folder)


def page(caught: Sequence[tuple[Mutant, list[str]]]) -> str:
    """Write the table of what each mutant has violated."""
    noticed = sum(bool(found) for _, found in caught)
    lines = [
        "# Mistakes that the history checker sees",
        "",
        "`make mutants` makes each of them in a copy of the service, plays a trial (`trials.py`),",
        "and writes this page. Without a mistake, no trial has a violation.",
        f"{noticed} of {len(caught)} mistakes were noticed.",
        "",
    ]
    rows = []
    for mutant, found in caught:
        broken = "; ".join(dict.fromkeys(line.partition(":")[0] for line in found)) or "**none**"
        rows.append([mutant.name, f"`{mutant.module}`", mutant.trial, broken])
    return "\n".join([*lines, *table(["mistake", "in", "trial", "broken rules"], rows), ""])


@click.command()
@click.option("--only", default="", help="The mutants with this in their names.")
def main(only: str) -> None:
    """Try the mutants; the exit status is 1 when one is not caught."""
    started = time.monotonic()
    wanted = [mutant for mutant in MUTANTS if only in mutant.name]
    with running_mongod() as mongod:
        port = mongod.members[0].port
        for trial in dict.fromkeys(mutant.trial for mutant in wanted):
            if found := violations(None, trial, port):
                raise TrialFailed(f"{trial}, without a mutant: {found[:5]}")
            click.echo(f"{trial}: clean without a mutant")
        caught = []
        for number, mutant in enumerate(wanted, 1):
            found = violations(mutant, mutant.trial, port)
            caught.append((mutant, found))
            shown = found[0] if found else "NOT CAUGHT"
            click.echo(f"[{number}/{len(wanted)}] {mutant.name}: {shown}")
    missed = [mutant for mutant, found in caught if not found]
    if not only:
        PAGE.write_text(page(caught))
    seconds = time.monotonic() - started
    click.echo(f"{len(caught) - len(missed)} of {len(caught)} caught in {seconds:.0f} s")
    sys.exit(bool(missed))


if __name__ == "__main__":
    main()
