"""The audit never takes silence for good news."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import audit

FOUND = json.dumps({"dependencies": [{"name": "flask", "vulns": [{"id": "PYSEC-2018-66"}]}]})
NOTHING = json.dumps({"dependencies": [{"name": "flask", "vulns": []}]})
SKIPPED = json.dumps({"dependencies": [{"name": "flask", "skip_reason": "not found"}]})


@pytest.fixture
def pip_audit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str, int], None]:
    """Provide a function that says what the vulnerable one, and then ours, is answered with."""

    def answers(to_vulnerable: str, to_ours: int) -> None:
        program = tmp_path / "pip_audit.py"
        program.write_text(
            "import sys\n"
            "if '--format' not in sys.argv:\n"
            f"    sys.exit({to_ours})\n"
            "sys.stderr.write('a stack\\nthe host cannot be resolved\\n')\n"
            f"sys.stdout.write({to_vulnerable!r})\n"
            "sys.exit(1)\n"
        )
        monkeypatch.setattr(audit, "AUDIT", (sys.executable, str(program)))

    return answers


@pytest.mark.parametrize(("to_ours", "status"), [(0, 0), (1, 1)])
def test_where_it_can_be_looked_up_the_answer_counts(
    pip_audit: Callable[[str, int], None], to_ours: int, status: int
) -> None:
    pip_audit(FOUND, to_ours)
    assert audit.main() == status


@pytest.mark.parametrize(
    ("to_vulnerable", "reason"),
    [
        (NOTHING, "flask==0.12.2 is said to be fine"),
        (SKIPPED, "flask==0.12.2 is said to be fine"),
        ("", "the host cannot be resolved"),
    ],
)
def test_what_cannot_be_looked_up_is_no_success(
    pip_audit: Callable[[str, int], None],
    capsys: pytest.CaptureFixture[str],
    to_vulnerable: str,
    reason: str,
) -> None:
    pip_audit(to_vulnerable, 0)
    assert audit.main() == 2
    assert capsys.readouterr().err == (
        f"Not audited: the list of known vulnerabilities cannot be read ({reason})\n"
    )
