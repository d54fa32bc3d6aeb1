"""The command line: `run`, as `make run` calls it, and what can go wrong with each command."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from pymongo.database import Database

from promo_service.demo import DEMO
from promo_service.embedded import EmbeddedMongod, die_with_parent, free_port
from tests.support.client import Request, Response, get, post, send
from tests.support.documents import promo_document
from tests.support.service import OURS, ROOT

Document = dict[str, Any]

COMMAND = [sys.executable, "-m", "promo_service"]
REPLAYED = "Idempotent-Replayed"


def environ(**settings: object) -> dict[str, str]:
    """Return the environment of a shell that has only these settings of ours."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    return {**clean, "PYTHONPATH": str(ROOT), **{k: str(v) for k, v in settings.items()}}


class Running:
    """The command, running in a folder, as a shell would run it: in a process group of its own."""

    def __init__(self, folder: Path, **settings: object) -> None:
        self.port = free_port()
        self.log = folder / "run.log"
        env = environ(**{"PORT": self.port, "WEB_CONCURRENCY": 1, **settings})
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*COMMAND, "run"],
                cwd=folder,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=die_with_parent(),  # noqa: PLW1509 - it makes one system call
            )

    @property
    def output(self) -> str:
        """What it has printed so far."""
        return self.log.read_text()

    def wait_until_ready(self) -> None:
        """Return when it has said how to use it."""
        deadline = time.monotonic() + 60
        while len(self.curl_lines()) < 3:
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"it is not ready; it printed\n{self.output}")
            time.sleep(0.05)

    def curl_lines(self) -> list[Request]:
        """Return the requests of the lines to paste, in the order in which they are printed."""
        lines = [line for line in self.output.splitlines() if line.startswith("curl ")]
        return [request_of(line) for line in lines]

    def processes(self) -> list[psutil.Process]:
        """Return everything that it has started and that lives."""
        return list(psutil.Process(self.process.pid).children(recursive=True))

    def interrupt(self) -> int:
        """Press Ctrl-C, as a terminal passes it on; return the exit code."""
        os.killpg(self.process.pid, signal.SIGINT)
        return self.process.wait(30)


def request_of(line: str) -> Request:
    """Read a curl line as a shell and curl do."""
    words = iter(shlex.split(line)[1:])
    url, body, headers = "", None, {}
    for word in words:
        if word == "-d":
            body = next(words).encode()
        elif word == "-H":
            name, _, value = next(words).partition(": ")
            headers[name] = value
        elif word != "-s":
            url = word
    return Request(url, body, headers, "GET" if body is None else "POST")


@contextmanager
def running(folder: Path, **settings: object) -> Iterator[Running]:
    """Run the command, and let nothing of it survive the test."""
    run = Running(folder, **settings)
    try:
        run.wait_until_ready()
        yield run
    finally:
        if run.process.poll() is None:
            run.interrupt()


def failing(folder: Path, *arguments: str, **settings: object) -> subprocess.CompletedProcess[str]:
    """Run a command that is expected to fail."""
    env = environ(**settings)
    command = [*COMMAND, *arguments]
    return subprocess.run(
        command, cwd=folder, env=env, capture_output=True, text=True, timeout=60, check=False
    )


def answers(requests: list[Request]) -> list[Response]:
    """Send requests one after the other."""
    return [send(request) for request in requests]


def names(processes: list[psutil.Process]) -> set[str]:
    """Return the names of the programs that run."""
    return {Path(process.cmdline()[0]).name for process in processes}


def test_it_starts_everything_and_leaves_nothing(tmp_path: Path) -> None:
    with running(tmp_path) as run:
        assert f"http://127.0.0.1:{run.port}" in run.output
        assert f"loaded {len(DEMO)} demo codes" in run.output
        requests = run.curl_lines()
        assert [request.method for request in requests] == ["POST", "POST", "GET"]
        validated, applied, read = answers(requests)
        assert [answer.status for answer in (validated, applied, read)] == [200] * 3
        assert validated.body == applied.body
        assert REPLAYED not in applied.headers
        assert read.json["code"] == validated.json["promoCode"]
        started = run.processes()
        assert names(started) >= {"mongod", Path(sys.executable).name}
        assert run.interrupt() == 0
        assert run.output.endswith("stopped\n")
        assert [process for process in started if process.is_running()] == []
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", run.port))


def test_the_lines_work_again_and_the_data_survive_a_restart(tmp_path: Path) -> None:
    with running(tmp_path) as run:
        first = answers(run.curl_lines())
        again = answers(run.curl_lines())
    with running(tmp_path) as run:
        later = answers(run.curl_lines())
        assert "demo" not in run.output
    assert [answer.status for answer in (*first, *again, *later)] == [200] * 9
    assert first[1].body == again[1].body == later[1].body
    assert REPLAYED in again[1].headers
    assert REPLAYED in later[1].headers


def test_the_admin_token_that_it_prints_is_one(tmp_path: Path) -> None:
    with running(tmp_path) as run:
        found = re.search(r"Admin tokens: (\S+)", run.output)
        assert found is not None
        create = f"http://127.0.0.1:{run.port}/api/promo-codes"
        body = {
            "code": "MINE",
            "discountType": "flat",
            "discountValue": 5,
            "validFrom": "2026-01-01",
            "validUntil": "2036-01-01",
        }
        assert post(create, body).status == 401
        assert post(create, body, {"Authorization": "Bearer wrong"}).status == 403
        assert post(create, body, {"Authorization": f"Bearer {found[1]}"}).status == 201


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_other_ways_to_stop_it_leave_nothing_either(tmp_path: Path, number: int) -> None:
    with running(tmp_path) as run:
        started = run.processes()
        run.process.send_signal(number)
        assert run.process.wait(30) == 0
        assert [process for process in started if process.is_running()] == []


def test_even_a_kill_leaves_nothing(tmp_path: Path) -> None:
    with running(tmp_path) as run:
        started = run.processes()
        run.process.kill()
        run.process.wait()
        _, alive = psutil.wait_procs(started, timeout=10)
        assert alive == []


def test_when_gunicorn_ends_so_does_everything(tmp_path: Path) -> None:
    with running(tmp_path) as run:
        started = run.processes()
        gunicorn = next(p for p in started if "wsgi:app" in p.cmdline())
        gunicorn.terminate()
        assert run.process.wait(30) == 1
        assert run.output.endswith("Error: gunicorn has ended by itself, with status 0\n")
        assert [process for process in started if process.is_running()] == []


def test_with_a_uri_it_uses_that_database_and_starts_none(
    tmp_path: Path, mongod: EmbeddedMongod, database: Database[Document]
) -> None:
    promo = promo_document("IT'S 10%/OFF", currentUses=0, maxUses=None)
    database["promo_codes"].insert_one(promo)
    settings = {"MONGODB_URI": mongod.uri, "PROMO_DATABASE": database.name}
    with running(tmp_path, **settings) as run:
        # The lines are of a code that is there, and hold whatever characters it has.
        validated, applied, read = answers(run.curl_lines())
        assert [answer.status for answer in (validated, applied, read)] == [200] * 3
        assert read.json["code"] == promo["code"]
        assert get(f"http://127.0.0.1:{run.port}/readyz").status == 200
        assert "mongod" not in names(run.processes())
        assert not (tmp_path / ".data").exists()
        # The uri may hold a password, and tokens are those of whoever set them.
        assert mongod.uri not in run.output
        assert "Admin tokens" not in run.output
        assert run.interrupt() == 0
    assert database["promo_codes"].distinct("code") == [promo["code"]]


def test_a_database_of_somebody_else_gets_no_demo(
    tmp_path: Path, mongod: EmbeddedMongod, database: Database[Document]
) -> None:
    settings = {"MONGODB_URI": mongod.uri, "PROMO_DATABASE": database.name}
    with running(tmp_path, **settings) as run:
        assert get(f"http://127.0.0.1:{run.port}/readyz").status == 200
    assert database["promo_codes"].find_one() is None
    assert database["promo_usage"].find_one() is None


def test_the_paths_of_the_settings_are_those_of_the_lines(tmp_path: Path) -> None:
    paths = {"PROMO_URL_PREFIX": "/v2/coupons", "PROMO_PATH_APPLY": "/redeem"}
    with running(tmp_path, **paths) as run:
        requests = run.curl_lines()
        assert requests[1].url.endswith("/v2/coupons/redeem")
        assert [answer.status for answer in answers(requests)] == [200] * 3


def one_line(result: subprocess.CompletedProcess[str]) -> str:
    """Return what a failed command said, which must be one line."""
    assert "Traceback" not in result.stderr
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith("Error: ")
    return result.stderr.strip()


def test_a_busy_port_is_found_out_before_anything_starts(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = failing(tmp_path, "run", PORT=port)
    assert result.returncode == 1
    assert f"port {port} cannot be used (Address already in use)" in one_line(result)
    assert not (tmp_path / ".data").exists()


def test_an_unreachable_database_is_one_line(tmp_path: Path) -> None:
    uri = f"mongodb://user:secret@127.0.0.1:{free_port()}/"

    def attempt(command: str) -> subprocess.CompletedProcess[str]:
        return failing(tmp_path, command, MONGODB_URI=uri, PORT=free_port())

    with ThreadPoolExecutor() as pool:
        results = list(pool.map(attempt, ["run", "migrate", "reconcile", "seed"]))
    for result in results:
        assert result.returncode == 1
        assert "Connection refused" in one_line(result)
        assert "secret" not in result.stderr
        assert len(result.stderr) < 200


def test_a_missing_mongod_is_one_line(tmp_path: Path) -> None:
    result = failing(tmp_path, "run", MONGOD_BINARY="/nowhere/mongod", PORT=free_port())
    assert result.returncode == 1
    assert "MONGOD_BINARY is not an executable file: /nowhere/mongod" in one_line(result)


def test_a_folder_that_another_mongod_uses_is_one_line(tmp_path: Path) -> None:
    with running(tmp_path):
        result = failing(tmp_path, "run", PORT=free_port())
    assert result.returncode == 1
    assert "did not start" in one_line(result)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "http"),
        ("PORT", "65536"),
        ("WEB_CONCURRENCY", "0"),
        ("WEB_CONCURRENCY", "zero"),
        ("MONGODB_URI", "localhost:27017"),
        ("MONGODB_URI", "mongodb://user:p@ss@localhost"),
        ("PROMO_MAX_POOL_SIZE", "many"),
        ("PROMO_LOG_FORMAT", "xml"),
        ("PROMO_URL_PREFIX", "promo"),
        ("PROMO_TRUST_UPSTREAM_AUTH", "perhaps"),
    ],
)
def test_a_wrong_setting_is_one_line_that_names_it(tmp_path: Path, name: str, value: str) -> None:
    result = failing(tmp_path, "run", **{"PORT": free_port(), name: value})
    assert result.returncode == 2
    assert name in one_line(result)
    assert not (tmp_path / ".data").exists()


@pytest.mark.parametrize("command", ["migrate", "reconcile", "seed"])
def test_the_other_commands_need_a_database(tmp_path: Path, command: str) -> None:
    result = failing(tmp_path, command)
    assert result.returncode == 2
    assert "MONGODB_URI is not set" in one_line(result)


@pytest.mark.parametrize(
    "arguments",
    [
        ("walk",),
        ("run", "--fast"),
        ("migrate", "--max-rate", "0"),
        ("reconcile", "--every", "never"),
        ("seed", "--codes", "-1"),
    ],
)
def test_wrong_usage_ends_with_2(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    assert failing(tmp_path, *arguments).returncode == 2


@pytest.mark.parametrize("command", ["", "run", "migrate", "reconcile", "seed"])
def test_every_command_has_help(tmp_path: Path, command: str) -> None:
    result = failing(tmp_path, *command.split(), "--help")
    assert result.returncode == 0
    assert "Usage: python -m promo_service" in result.stdout
    if not command:
        assert re.search(r"\b0  done.*\b1  failed.*\b2  wrong usage", result.stdout, re.DOTALL)


def test_the_request_of_the_readme_works_when_pasted(tmp_path: Path) -> None:
    lines = (ROOT / "README.md").read_text().replace("\\\n", " ").splitlines()
    pasted = [line for line in lines if line.strip().startswith("curl ")]
    assert pasted
    with running(tmp_path) as run:
        for line in pasted:
            request = request_of(line.strip().replace(":8000", f":{run.port}"))
            answer = send(request)
            assert answer.status == 200
            assert json.loads(answer.body)
