"""The Dockerfile: what hadolint says of it, and what its steps make where there is no engine.

Not shown here: that the packages compile on Alpine, and that the base image exists.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from promo_service.embedded import EmbeddedMongod, die_with_parent, free_port
from tests.support.client import get
from tests.support.image import Image, is_sent, steps
from tests.support.service import ROOT

# The requirements are installed from their registry, which may be slow.
pytestmark = pytest.mark.timeout(600)

HADOLINT = Path(sysconfig.get_path("scripts")) / "hadolint"
# The interpreter of a test's environment may lie where only its owner can reach it.
INTERPRETERS = (sys._base_executable, "/usr/bin/python3")  # type: ignore[attr-defined]


def as_user(user: str) -> list[str]:
    """Return what to put before a command to run it as `uid:gid`, where that can be had."""
    if os.geteuid() != 0:
        return []
    uid, gid = user.split(":")
    return ["setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups", "--no-new-privs"]


def lint(dockerfile: str) -> str:
    """Return what hadolint complains of."""
    command = [str(HADOLINT), "--no-color", "-"]
    checked = subprocess.run(
        command, input=dockerfile, capture_output=True, text=True, timeout=60, check=False
    )
    assert checked.returncode in (0, 1), checked.stderr
    return checked.stdout


@pytest.fixture(scope="module")
def image() -> Iterator[Image]:
    """Provide the image, built once, its file system read-only."""
    assert shutil.which("wget"), "wget is missing: install it (Debian: wget)"
    # Below a folder that everybody can enter: the image is not run by whoever builds it.
    with TemporaryDirectory(prefix="promo-image-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        programs = folder / "programs"
        programs.mkdir()
        (programs / "python").symlink_to(interpreter())
        image = Image(folder, ROOT, programs)
        image.build()
        image.make_read_only()
        yield image


def interpreter() -> str:
    """Return a Python that the user of the image can run."""
    for path in INTERPRETERS:
        command = [*as_user("10001:10001"), path, "-c", "import ensurepip, venv"]
        if subprocess.run(command, capture_output=True, timeout=60, check=False).returncode == 0:
            return str(path)
    raise AssertionError(f"none of {INTERPRETERS} can be run by everybody")


@contextmanager
def container(image: Image, **environ: str) -> Iterator[subprocess.Popen[str]]:
    """Run the command of the image as it says, with these settings."""
    process = subprocess.Popen(
        [*as_user(image.user), *image.command],
        cwd=image.here,
        env=image.environ | environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        preexec_fn=die_with_parent(),  # noqa: PLW1509 - it makes one system call
    )
    try:
        yield process
    finally:
        process.kill()  # does nothing once it has ended
        process.communicate(timeout=30)


def health(image: Image, environ: dict[str, str]) -> int:
    """Return the exit status of the health check."""
    command = [*as_user(image.user), *image.healthcheck]
    return subprocess.run(
        command, env=image.environ | environ, cwd=image.here, timeout=60, check=False
    ).returncode


def contents(image: Image) -> dict[str, int]:
    """Return every path of the image, with when it was changed."""
    return {str(path): path.lstat().st_mtime_ns for path in image.root.rglob("*")}


def test_hadolint_has_nothing_to_say() -> None:
    assert lint((ROOT / "Dockerfile").read_text()) == ""


@pytest.mark.parametrize(
    ("right", "wrong", "rule"),
    [
        ("FROM python:${PYTHON}\n", "FROM python:latest\n", "DL3007"),
        ("COPY requirements.txt", "ADD requirements.txt", "DL3020"),
        ('CMD ["gunicorn", "-c", "gunicorn.conf.py", "wsgi:app"]', "CMD gunicorn", "DL3025"),
        ("USER 10001:10001", "USER root", "DL3002"),
    ],
)
def test_hadolint_sees_what_is_wrong(right: str, wrong: str, rule: str) -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    assert right in dockerfile
    assert rule in lint(dockerfile.replace(right, wrong))


def test_only_the_service_is_sent_to_the_builder() -> None:
    rules = (ROOT / ".dockerignore").read_text()
    for path in ("wsgi.py", "requirements.txt", "promo_service/app.py"):
        assert is_sent(path, rules)
    for path in (".git/config", ".env", "tests/conftest.py", "promo_service/__pycache__/app.pyc"):
        assert not is_sent(path, rules)


def test_only_what_alpine_alone_can_do_is_left_out(image: Image) -> None:
    assert image.skipped == ["apk", "addgroup", "adduser"]


def test_the_image_holds_the_service_and_no_tools(image: Image) -> None:
    assert {path.name for path in image.here.iterdir()} >= {"promo_service", "wsgi.py"}
    assert not (image.here / "tests").exists()
    assert not list(image.root.rglob("pip"))


def test_it_serves_as_nobody_special_and_ends_with_status_0(
    image: Image, mongod: EmbeddedMongod
) -> None:
    port = str(free_port())
    settings = {"PORT": port, "WEB_CONCURRENCY": "1", "MONGODB_URI": mongod.uri}
    before = contents(image)
    assert health(image, settings) != 0
    with container(image, **settings) as process:
        deadline = time.monotonic() + 60
        while health(image, settings) != 0:
            assert process.poll() is None, "it has ended"
            assert time.monotonic() < deadline, "it is not healthy"
            time.sleep(0.1)
        assert get(f"http://127.0.0.1:{port}/openapi.json").json["openapi"]
        owner = Path(f"/proc/{process.pid}").stat()
        assert (owner.st_uid != 0, owner.st_gid != 0) == (True, True)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    assert contents(image) == before


@pytest.mark.parametrize("setting", ["WEB_CONCURRENCY", "PORT"])
def test_a_wrong_setting_stops_it_with_one_line(image: Image, setting: str) -> None:
    with container(image, **{"MONGODB_URI": "mongodb://127.0.0.1", setting: "0"}) as process:
        output, _ = process.communicate(timeout=60)
    assert process.returncode != 0
    assert output.startswith(f"{setting} must be a whole number")
    assert output.count("\n") == 1


def test_the_build_fails_without_the_c_extensions(image: Image, tmp_path: Path) -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    (check,) = [step for _, step in steps(dockerfile) if "has_c()" in step]
    image.run(check)
    # Found before the real one, as a PyMongo without its extensions.
    (tmp_path / "bson.py").write_text("def has_c(): return False")
    (tmp_path / "pymongo.py").write_text("def has_c(): return True")
    slow = Image(image.folder, ROOT, image.programs, image.environ | {"PYTHONPATH": str(tmp_path)})
    with pytest.raises(subprocess.CalledProcessError) as failure:
        slow.run(check)
    assert "PyMongo has no C extensions" in failure.value.stderr
