"""The embedded mongod: started, stopped, moved to another port, and every way it can fail."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
import pytest
from pymongo import MongoClient
from pymongo.errors import AutoReconnect

from promo_service.embedded import EmbeddedMongod, find_mongod, free_port
from promo_service.errors import MongodError
from tests.support.mongo import MEMORY, Document, connect

ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder() -> Iterator[Path]:
    with TemporaryDirectory(prefix="promo-embedded-", dir=MEMORY) as path:
        yield Path(path)


def script(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_data_survives_a_restart_on_another_port(folder: Path) -> None:
    with EmbeddedMongod(folder) as mongod, connect(mongod.uri) as client:
        first = mongod.uri
        client.shop.codes.insert_one({"_id": "SUMMER"})
    with EmbeddedMongod(folder) as mongod, connect(mongod.uri) as client:
        assert mongod.uri != first
        assert client.shop.codes.find_one() == {"_id": "SUMMER"}
        client.shop.codes.insert_one({"_id": "WINTER"})


def test_data_survives_a_crash(folder: Path) -> None:
    with EmbeddedMongod(folder) as mongod, connect(mongod.uri) as client:
        client.shop.codes.insert_one({"_id": "SUMMER"})
        mongod.members[0].kill()
        mongod.members[0].restart()
        mongod.wait_for_primary()
        assert client.shop.codes.find_one() == {"_id": "SUMMER"}


def test_stopping_leaves_no_process(folder: Path) -> None:
    with EmbeddedMongod(folder) as mongod:
        pid = mongod.members[0].pid
        assert psutil.pid_exists(pid)
    assert not psutil.pid_exists(pid)


def test_a_frozen_process_can_be_thawed_and_stopped(folder: Path) -> None:
    with EmbeddedMongod(folder) as mongod:
        member = mongod.members[0]
        member.freeze()
        hasty: MongoClient[Document] = MongoClient(
            mongod.uri, connectTimeoutMS=200, serverSelectionTimeoutMS=500
        )
        with hasty, pytest.raises(AutoReconnect):
            hasty.shop.codes.find_one()
        member.thaw()
        with connect(mongod.uri) as client:
            assert client.shop.codes.find_one() is None
        member.freeze()
    assert not psutil.pid_exists(member.pid)


def test_it_may_be_a_standalone(folder: Path) -> None:
    with EmbeddedMongod(folder, members=0) as mongod, connect(mongod.uri) as client:
        assert "setName" not in client.admin.command("hello")
        client.shop.codes.insert_one({"_id": "SUMMER"})


def test_three_members_elect_another_primary(folder: Path) -> None:
    mongod = EmbeddedMongod(folder, members=3)
    try:
        mongod.start()
        killed = mongod.wait_for_primary()
        next(member for member in mongod.members if member.address == killed).kill()
        with connect(mongod.uri) as client:
            client.shop.codes.insert_one({"_id": "SUMMER"})
        assert mongod.wait_for_primary() != killed
    finally:
        mongod.stop(timeout=0)
    try:
        mongod = EmbeddedMongod(folder, members=3)
        mongod.start()
        with connect(mongod.uri) as client:
            assert client.shop.codes.find_one() == {"_id": "SUMMER"}
    finally:
        mongod.stop(timeout=0)


def test_test_commands_are_off_unless_asked_for(folder: Path) -> None:
    question = {"getParameter": 1, "enableTestCommands": 1}
    for wanted in (False, True):
        with (
            EmbeddedMongod(folder, members=0, test_commands=wanted) as mongod,
            connect(mongod.uri) as client,
        ):
            assert client.admin.command(question)["enableTestCommands"] is wanted


def test_a_second_start_on_the_same_folder_says_so_and_harms_nothing(folder: Path) -> None:
    with EmbeddedMongod(folder) as mongod, connect(mongod.uri) as client:
        with pytest.raises(MongodError, match="Another mongod instance is already running") as no:
            EmbeddedMongod(folder).start()
        assert "\n" not in str(no.value)
        client.shop.codes.insert_one({"_id": "SUMMER"})


def test_a_busy_port_is_named(folder: Path) -> None:
    with (
        EmbeddedMongod(folder / "one", members=0) as mongod,
        pytest.raises(MongodError, match=rf"port {mongod.members[0].port} .*already in use") as no,
    ):
        EmbeddedMongod(folder / "two", port=mongod.members[0].port).start()
    assert "\n" not in str(no.value)


def test_an_early_exit_is_reported_with_the_last_line_of_the_log(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = script(
        folder / "mongod", "echo libssl.so.1.1: cannot open shared object file; exit 127"
    )
    monkeypatch.setenv("MONGOD_BINARY", str(broken))
    with pytest.raises(MongodError, match=r"did not start: libssl\.so\.1\.1: cannot open"):
        EmbeddedMongod(folder / "data").start()


def test_a_mongod_that_never_listens_is_given_up_and_stopped(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent = script(folder / "mongod", "exec sleep 60")
    monkeypatch.setenv("MONGOD_BINARY", str(silent))
    mongod = EmbeddedMongod(folder / "data", timeout=0.2)
    with pytest.raises(MongodError, match="is too slow: nothing in its log"):
        mongod.start()
    assert not psutil.pid_exists(mongod.members[0].pid)


def test_a_folder_that_cannot_be_made_is_reported(folder: Path) -> None:
    (folder / "file").write_text("in the way")
    with pytest.raises(MongodError, match=r"cannot be started in .*file"):
        EmbeddedMongod(folder / "file").start()


def test_the_binary_is_the_one_named_else_on_the_path_else_in_the_wheel(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = script(folder / "named", "exit 0")
    on_path = script(folder / "mongod", "exit 0")
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("MONGOD_BINARY", str(named))
    assert find_mongod() == str(named)
    monkeypatch.delenv("MONGOD_BINARY")
    assert find_mongod() == str(on_path)
    monkeypatch.setenv("PATH", "")
    assert find_mongod().endswith("fiftyone/db/bin/mongod")


def test_a_missing_binary_is_reported(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def not_installed(name: str) -> metadata.Distribution:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setenv("MONGOD_BINARY", str(folder / "none"))
    with pytest.raises(MongodError, match="MONGOD_BINARY is not an executable file"):
        find_mongod()
    monkeypatch.delenv("MONGOD_BINARY")
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(metadata, "distribution", not_installed)
    with pytest.raises(MongodError, match="no mongod found: set MONGOD_BINARY"):
        find_mongod()


def test_mongod_dies_with_its_parent_but_not_of_its_ctrl_c(folder: Path) -> None:
    program = (
        "import sys, time\n"
        "from promo_service.embedded import EmbeddedMongod\n"
        "with EmbeddedMongod(sys.argv[1], members=0) as mongod:\n"
        "    print(mongod.members[0].pid, flush=True)\n"
        "    time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(folder)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        same_group = os.getpgid(child.pid) == os.getpgid(parent.pid)
        parent.send_signal(signal.SIGKILL)
    _, alive = psutil.wait_procs([child], timeout=10)
    for left_over in alive:
        left_over.kill()
    assert not alive
    assert not same_group


def test_a_free_port_is_below_the_range_of_outgoing_connections() -> None:
    assert all(20_000 <= free_port() < 32_000 for _ in range(100))
