"""What an evaluation has found, as it is kept in report.json."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from evaluation.claims import Verdict
from evaluation.lab import WORKERS
from evaluation.processes import ROOT
from evaluation.scale import Scale

PACKAGES = ("flask", "gevent", "gunicorn", "msgspec", "pymongo")


def revision() -> str:
    """Return the commit that was measured, and whether the files differ from it."""
    commit = _git("rev-parse", "--short=12", "HEAD")
    if not commit:
        return "not under version control"
    return f"commit {commit}" + (", with changes" if _git("status", "--porcelain") else "")


def _git(*arguments: str) -> str:
    git = shutil.which("git")
    if git is None:
        return ""
    done = subprocess.run([git, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip()


@dataclass(slots=True)
class Evaluation:
    """All verdicts, and what was measured beside them."""

    scale: Scale
    command: str
    mongod: str = ""
    verdicts: list[Verdict] = field(default_factory=list)
    comparison: dict[str, Any] = field(default_factory=dict)
    ladder: dict[str, Any] = field(default_factory=dict)
    started: datetime = field(default_factory=lambda: datetime.now(UTC))
    # As of the start: a run takes long enough for somebody to commit meanwhile.
    revision: str = field(default_factory=revision)

    def figures(self, number: int) -> dict[str, Any]:
        """Return the figures of a claim, nothing where it was not measured."""
        found = [v.figures for v in self.verdicts if v.claim.number == number]
        return found[0] if found else {}

    def as_plain(self) -> dict[str, Any]:
        """Return everything as JSON can hold it."""
        return {
            "started": self.started.isoformat(timespec="seconds"),
            "command": self.command,
            "machine": machine(),
            "versions": self.versions(),
            "revision": self.revision,
            "scale": asdict(self.scale),
            "claims": [_plain(verdict, self.scale) for verdict in self.verdicts],
            "comparison": self.comparison,
            "ladder": self.ladder,
        }

    def versions(self) -> dict[str, str]:
        """Return the versions of everything that was running."""
        packages = {name: version(name) for name in PACKAGES}
        return {"python": platform.python_version(), "mongod": self.mongod, **packages}


def machine() -> dict[str, Any]:
    """Describe the machine that service, database and load have shared."""
    return {
        "cores": len(os.sched_getaffinity(0)),
        "processor": _processor(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "platform": platform.platform(),
        "workers": WORKERS,
    }


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _plain(verdict: Verdict, scale: Scale) -> dict[str, Any]:
    claim, finding = verdict.claim, verdict.finding
    return {
        "number": claim.number,
        "name": claim.name,
        "claim": claim.statement,
        "method": claim.method,
        "bound": claim.bound(scale),
        "holds": verdict.holds,
        "measured": finding.measured,
        "problems": list(finding.problems),
        "repeated": verdict.repeated,
        "before": verdict.before.text,
        "seconds": round(verdict.seconds, 1),
        "figures": verdict.figures,
    }
