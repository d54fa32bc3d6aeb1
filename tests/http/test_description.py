"""The service does what its description says: schemathesis tries it, with all of its checks."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.service import ADMIN_TOKEN, ROOT, Service

COMMAND = Path(sys.executable).with_name("schemathesis")
# All ten but the description itself, which schemathesis has read by then.
OPERATIONS = 9


@pytest.fixture(scope="module")
def generous(start_service: Callable[..., Service]) -> Service:
    """Provide a service that is not late on a machine that does other work too."""
    return start_service(environ={"PROMO_REQUEST_TIMEOUT_MS": "20000"})


def run(service: Service, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run schemathesis against the description that the service serves."""
    return subprocess.run(
        [
            COMMAND,
            *(
                "run",
                f"{service.url}/openapi.json",
                "--header",
                f"Authorization: Bearer {ADMIN_TOKEN}",
            ),
            *("--seed", "20260101", "--generation-database", "none", "--no-color", *options),
        ],
        cwd=folder,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "SCHEMATHESIS_HOOKS": "tests.support.positive_data",
        },
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )


def test_everything_described_is_kept(generous: Service, tmp_path: Path) -> None:
    # Replaced by positive_data_is_read, which tells a rule from a request that cannot be read.
    options = ["--checks", "all", "--exclude-checks", "positive_data_acceptance"]
    ended = run(generous, tmp_path, *options, "--max-examples", "30")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert f"Tested: {OPERATIONS}\n" in ended.stdout
    generated = re.search(r"(\d+) generated", ended.stdout)
    assert generated is not None
    assert int(generated[1]) > 300
