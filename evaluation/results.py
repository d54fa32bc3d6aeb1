"""What a run has found, as it is kept in a file."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from evaluation.figures import Figures, medians
from evaluation.processes import ROOT

PACKAGES = ("flask", "gevent", "gunicorn", "pymongo")


def commit() -> str:
    """Name the commit that is measured, and whether something was changed since."""
    command = ["git", "describe", "--always", "--dirty"]
    try:
        said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return said.stdout.strip()


@dataclass(slots=True)
class Results:
    """All rounds by scenario and variant, and everything that went wrong."""

    options: dict[str, Any]
    mongod: str = ""
    rounds: dict[str, dict[str, list[Figures]]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    started: datetime = field(default_factory=lambda: datetime.now(UTC))

    def write(self, folder: Path) -> Path:
        """Write everything to a file named after the time of the start; return its path."""
        path = folder / f"{self.started:%Y%m%dT%H%M%SZ}.json"
        path.write_text(json.dumps(self._document(), indent=1) + "\n")
        return path

    def _document(self) -> dict[str, Any]:
        return {
            "started": self.started.isoformat(timespec="seconds"),
            "commit": commit(),
            "machine": {"cores": len(os.sched_getaffinity(0)), "platform": platform.platform()},
            "versions": {
                "python": platform.python_version(),
                "mongod": self.mongod,
                **{name: version(name) for name in PACKAGES},
            },
            "options": self.options,
            "problems": self.problems,
            "scenarios": {
                scenario: {
                    variant: {"medians": medians(rounds), "rounds": [asdict(one) for one in rounds]}
                    for variant, rounds in by_variant.items()
                }
                for scenario, by_variant in self.rounds.items()
            },
        }
