"""Looks what the service runs on up in the list of known vulnerabilities: `make audit`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parents[1]
# CVE-2018-1000656. An index or a mirror without advisories would call it, and everything, fine.
KNOWN_TO_BE_VULNERABLE = "flask==0.12.2"
AUDIT = (
    *(sys.executable, "-m", "pip_audit", "--strict", "--progress-spinner", "off"),
    # Asked at the source: private mirrors of the package index carry no advisories.
    *("--vulnerability-service", "osv"),
)


def main() -> int:
    """Return 0 when nothing is known, 1 when something is, 2 when nobody could be asked."""
    problem = why_nothing_is_known()
    if problem:
        sys.stderr.write(
            f"Not audited: the list of known vulnerabilities cannot be read ({problem})\n"
        )
        return 2
    ended = subprocess.run([*AUDIT, "--requirement", ROOT / "requirements.txt"], check=False)
    return 1 if ended.returncode else 0


def why_nothing_is_known() -> str:
    """Ask for what is known to be vulnerable; return why that is not the answer, else nothing."""
    with TemporaryDirectory(prefix="promo-audit-") as folder:
        requirements = Path(folder) / "requirements.txt"
        requirements.write_text(KNOWN_TO_BE_VULNERABLE)
        alone = ("--no-deps", "--disable-pip", "--format", "json")
        ended = subprocess.run(
            [*AUDIT, *alone, "--requirement", requirements],
            capture_output=True,
            text=True,
            check=False,
        )
    try:
        audited = json.loads(ended.stdout)["dependencies"]
    except ValueError:
        return (ended.stderr.strip().splitlines() or ["it said nothing"])[-1]
    if any(dependency.get("vulns") for dependency in audited):
        return ""
    return f"{KNOWN_TO_BE_VULNERABLE} is said to be fine"


if __name__ == "__main__":
    sys.exit(main())
