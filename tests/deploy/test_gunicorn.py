"""What gunicorn.conf.py does around the service: its settings, and what is left of a killed one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.service import ROOT, Service

TROUBLESHOOTING = ROOT / "docs" / "troubleshooting.md"

StartService = Callable[..., Service]


def metrics_folder(service: Service) -> Path:
    """Return the folder of a service's metrics, which its master holds open."""
    held = [fd.readlink() for fd in Path(f"/proc/{service.pid}/fd").iterdir()]
    (folder,) = [path for path in held if path.name.startswith("promo-metrics-")]
    return folder


def kill(service: Service) -> None:
    """Kill a service with its workers: none of them can clean up."""
    for pid in [service.pid, *service.worker_pids()]:
        os.kill(pid, signal.SIGKILL)
    service.stop()


def test_the_folder_of_a_service_that_was_killed_is_removed_by_the_next_one(
    start_service: StartService,
) -> None:
    killed, alive = start_service(), start_service()
    folder = metrics_folder(killed)
    kill(killed)
    assert folder.is_dir()
    killed.start()
    killed.wait_until_healthy()
    assert not folder.exists()
    assert metrics_folder(killed) != folder
    assert list(metrics_folder(alive).glob("*.db"))


def test_a_service_that_is_stopped_leaves_no_folder_behind(start_service: StartService) -> None:
    service = start_service()
    folder = metrics_folder(service)
    assert service.stop() == 0
    assert not folder.exists()


def refused(setting: str, value: str) -> list[str]:
    """Return the lines of a start that a wrong setting stops."""
    started = subprocess.run(
        [sys.executable, "-m", "gunicorn", "-c", "gunicorn.conf.py", "wsgi:app"],
        cwd=ROOT,
        env=os.environ | {"MONGODB_URI": "mongodb://127.0.0.1", setting: value},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )
    assert started.returncode != 0
    return started.stdout.splitlines()


@pytest.mark.parametrize(
    ("setting", "value"),
    [("WEB_CONCURRENCY", "0"), ("WEB_CONCURRENCY", "257"), ("PORT", "http"), ("PORT", "65536")],
)
def test_a_wrong_setting_stops_the_start_with_one_line(setting: str, value: str) -> None:
    (line,) = refused(setting, value)
    assert line.startswith(f"{setting} must be a whole number")
    assert repr(value) in line


def test_what_gunicorn_reads_before_its_configuration_stops_the_start_as_documented() -> None:
    """If this fails because there is one line: take the row out of docs/troubleshooting.md."""
    *traceback, line = refused("WEB_CONCURRENCY", "zero")
    assert traceback
    assert line.startswith("ValueError: invalid literal for int()")
    assert "ValueError: invalid literal for int()" in TROUBLESHOOTING.read_text()
