"""Every command of the documents is run by a test: which one, and that what it runs is the same."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.service import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

# By the words that say what is run; arguments may follow.
RUN_BY = {
    "curl": "tests/http/test_run.py::test_the_request_of_the_readme_works_when_pasted",
    # With the schemas of both: there is no engine and no cluster where the tests run. What they
    # start is started by the tests of nginx, of Prometheus and of the image.
    "docker compose": "tests/deploy/test_compose.py::test_it_is_what_the_schema_allows",
    "gunicorn": "tests/http/test_cutover.py::test_the_whole_way_and_back",
    "kubectl apply": "tests/deploy/test_kubernetes.py::test_a_manifest_is_what_the_schema_allows",
    "make audit": "tests/unit/test_audit.py::test_where_it_can_be_looked_up_the_answer_counts",
    "make chaos": "tests/chaos/test_chaos.py::test_no_fault_makes_the_books_and_the_answers_differ",
    "make fuzz": "tests/http/test_raw_sockets.py::test_a_thousand_bad_inputs_are_refused",
    "make mutants": "tests/chaos/test_mutants.py"
    "::test_a_trial_is_clean_without_a_mutant_and_not_with_one",
    "make run": "tests/http/test_run.py::test_it_starts_everything_and_leaves_nothing",
    "make test": "tests/unit/test_commands.py::test_make_runs_what_is_there",
    "make test-deploy": "tests/unit/test_commands.py::test_make_runs_what_is_there",
    "make test-mongo": "tests/unit/test_commands.py::test_make_runs_what_is_there",
    "python -m docs.api": "tests/unit/test_docs.py"
    "::test_the_page_on_the_api_is_that_of_the_openapi_document",
    "python -m evaluation.scaling": "tests/unit/test_scaling.py"
    "::test_every_command_of_the_pages_is_run_here_or_by_the_test_of_the_cut_over",
    "python -m docs.cutover": "tests/unit/test_docs.py"
    "::test_the_guide_shows_the_migration_that_was_measured",
    "python -m promo_service migrate": "tests/http/test_cutover.py::test_the_whole_way_and_back",
    "python -m promo_service reconcile": "tests/http/test_cutover.py::test_the_whole_way_and_back",
    "python -m promo_service seed": "tests/mongo/test_seed.py"
    "::test_the_command_fills_an_empty_database_and_no_other",
    "python -m tests.chaos.ambiguity": "tests/chaos/test_ambiguity.py"
    "::test_the_page_in_the_documents_shows_what_was_seen",
}
# These measure for minutes, on a machine that does nothing else: here they are asked for help.
STARTED = {
    "make bench",
    "make evaluate",
    "make failover",
    "make flash-sale",
    "python -m evaluation.migration",
    "python -m evaluation.overload",
    "python -m evaluation.reconciling",
    "python -m evaluation.scrape",
    "python -m tests.chaos.failover",
    "python -m tests.chaos.results",
    "python -m evaluation.evaluate",
    "python -m evaluation.excerpt",
}
# What the shell does by itself.
BUILT_IN = {"wait"}
FROM_MAKE = {"MAKEFLAGS", "MAKELEVEL", "MFLAGS", "MAKEOVERRIDES"}
PROGRAMS = {"curl": 1, "docker": 2, "gunicorn": 1, "kubectl": 2, "make": 2, "python": 3}


def commands(page: Path) -> list[str]:
    """Return the commands of a page: what stands in its shell blocks, and those in a sentence."""
    text = page.read_text().replace("\\\n", " ")
    # Every second part is a block, and begins with the name of its language.
    parts = re.split(r"^```", text, flags=re.MULTILINE)
    lines = [
        line for part in parts[1::2] if part.startswith("sh\n") for line in part.splitlines()[1:]
    ]
    lines = [line.removesuffix(" &") for line in lines if line not in BUILT_IN]
    spans = re.findall(r"`([^`\n]+)`", "".join(parts[::2]))
    return lines + [span for span in spans if " " in span and span.split()[0] in PROGRAMS]


def name(command: str) -> str:
    """Return the words of a command that say what is run."""
    words = shlex.split(command, comments=True)
    count = PROGRAMS[words[0]]
    if words[:3] == ["python", "-m", "promo_service"]:
        count = 4
    return " ".join(words[:count])


COMMANDS = [(page, command) for page in PAGES for command in commands(page)]
NAMES = sorted({name(command) for _, command in COMMANDS})


def made(target: str) -> list[str]:
    """Return the words of the Python that `make` would run for a target."""
    # A `make` that runs the tests tells those below it, and they say which folder they enter.
    environ = {name: value for name, value in os.environ.items() if name not in FROM_MAKE}
    done = subprocess.run(
        [shutil.which("make") or "make", "--dry-run", "--old-file=.venv/.installed", target],
        cwd=ROOT,
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return shlex.split(done.stdout.splitlines()[-1].rpartition(".venv/bin/python ")[2])


def helped(module: str) -> str:
    """Return what a module says when it is asked for help."""
    done = subprocess.run(
        [sys.executable, "-m", module, "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("command", NAMES)
def test_every_command_is_run_by_a_test(command: str) -> None:
    assert command in RUN_BY or command in STARTED


@pytest.mark.parametrize("test", sorted(set(RUN_BY.values())))
def test_the_test_is_there(test: str) -> None:
    path, _, function = test.partition("::")
    assert f"\ndef {function}(" in (ROOT / path).read_text()


@pytest.mark.parametrize(
    "target", [each.split()[1] for each in sorted({*RUN_BY, *STARTED}) if each.startswith("make ")]
)
def test_make_runs_what_is_there(target: str) -> None:
    dash, module, *_ = made(target)
    assert dash == "-m"
    path = ROOT.joinpath(*module.split("."))
    found = path.with_suffix(".py").exists() or (path / "__main__.py").exists()
    assert found or module == "pytest"


@pytest.mark.parametrize("command", sorted(STARTED))
def test_what_takes_minutes_can_be_started(command: str) -> None:
    program, *_, last = command.split()
    assert "Usage: " in helped(made(last)[1] if program == "make" else last)


@pytest.mark.parametrize("command", sorted({c for _, c in COMMANDS if "ARGS=" in c}))
def test_arguments_passed_through_make_are_known(command: str) -> None:
    _, target, arguments = shlex.split(command)
    options = re.findall(r"--[\w-]+", arguments)
    assert options
    told = helped(made(target)[1])
    assert [option for option in options if option not in told] == []
