"""The Dockerfile followed step by step in a folder, where there is no engine to build it.

What only Alpine can do (apk, addgroup, adduser) is left out and reported in `skipped`; `python` is
one of this machine, and absolute paths of the image lie below the folder.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from string import Template

ALPINE_ONLY = ("apk", "addgroup", "adduser")
# The folders of the image that the Dockerfile fills.
OF_THE_IMAGE = re.compile(r"(?<![\w.-])/(?=(?:opt|srv)\b)")
RUN_SECONDS = 300


def steps(dockerfile: str) -> Iterator[tuple[str, str]]:
    """Yield the instructions of a Dockerfile with their arguments."""
    lines = [line for line in dockerfile.splitlines() if not line.lstrip().startswith("#")]
    for step in "\n".join(lines).replace("\\\n", " ").splitlines():
        if step.strip():
            instruction, _, arguments = step.strip().partition(" ")
            yield instruction, arguments.strip()


def is_sent(path: str, dockerignore: str) -> bool:
    """Tell whether a file reaches the builder: the last pattern that fits it decides."""
    candidates = [path, *map(str, PurePosixPath(path).parents)]
    sent = True
    for line in dockerignore.splitlines():
        pattern = line.strip().removeprefix("!").rstrip("/")
        if pattern and not line.startswith("#") and any(fnmatch(c, pattern) for c in candidates):
            sent = line.startswith("!")
    return sent


@dataclass
class Image:
    """What the steps of a Dockerfile make of a `folder`, from the files of `context`."""

    folder: Path
    context: Path
    # Where PATH begins; it has the `python` of the base image.
    programs: Path
    environ: dict[str, str] = field(default_factory=dict)
    workdir: str = "/"
    user: str = "root"
    command: list[str] = field(default_factory=list)
    healthcheck: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    _stage: str = ""

    @property
    def root(self) -> Path:
        """Where the file system of the stage that is being made begins."""
        return self.folder / "root"

    @property
    def here(self) -> Path:
        """The working directory."""
        return self.root / self.workdir.lstrip("/")

    def build(self) -> None:
        """Follow all steps; raises CalledProcessError when one of them fails."""
        for instruction, arguments in steps((self.context / "Dockerfile").read_text()):
            getattr(self, f"_{instruction.lower()}")(arguments)

    def run(self, step: str) -> None:
        """Do what a RUN step says."""
        subprocess.run(
            ["/bin/sh", "-c", self.inside(step)],
            cwd=self.here,
            env=self.environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=RUN_SECONDS,
            check=True,
        )

    def inside(self, text: str) -> str:
        """Return a text with the paths of the image as they are outside of it."""
        return OF_THE_IMAGE.sub(f"{self.root}/", text)

    def make_read_only(self) -> None:
        """Let nobody change the file system any more."""
        for path in [self.root, *self.root.rglob("*")]:
            if not path.is_symlink():
                path.chmod(path.stat().st_mode & ~0o222)

    def _arg(self, _arguments: str) -> None:
        """Do nothing: it names the base image."""

    def _from(self, arguments: str) -> None:
        if self.root.exists():
            self.root.rename(self.folder / self._stage)
        self._stage = arguments.partition(" AS ")[2] or "final"
        self.root.mkdir()
        self.workdir = "/"
        self.environ = {**_of_the_machine(), "PATH": f"{self.programs}:{os.environ['PATH']}"}

    def _run(self, arguments: str) -> None:
        programs = [shlex.split(command)[0] for command in arguments.split("&&")]
        if programs[0] in ALPINE_ONLY:
            assert all(program in ALPINE_ONLY for program in programs), arguments
            self.skipped += programs
        else:
            self.run(arguments)

    def _workdir(self, arguments: str) -> None:
        self.workdir = arguments
        self.here.mkdir(parents=True, exist_ok=True)

    def _copy(self, arguments: str) -> None:
        flags = [word for word in arguments.split() if word.startswith("--")]
        *sources, target = (word for word in arguments.split() if word not in flags)
        for source in sources:
            if flags:
                stage = self.folder / flags[0].removeprefix("--from=")
                shutil.copytree(stage / source.lstrip("/"), self.root / target.lstrip("/"), True)
            else:
                self._copy_from_context(source, self.here / target)

    def _copy_from_context(self, source: str, target: Path) -> None:
        rules = (self.context / ".dockerignore").read_text()
        path = self.context / source
        files = [path] if path.is_file() else [each for each in path.rglob("*") if each.is_file()]
        sent = [each for each in files if is_sent(str(each.relative_to(self.context)), rules)]
        assert sent, f"{source} does not reach the builder"
        for each in sent:
            to = target / (each.name if path.is_file() else each.relative_to(path))
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(each, to)

    def _env(self, arguments: str) -> None:
        for word in shlex.split(self.inside(arguments)):
            name, _, value = word.partition("=")
            self.environ[name] = Template(value).substitute(self.environ)

    def _user(self, arguments: str) -> None:
        self.user = arguments

    def _expose(self, _arguments: str) -> None:
        """Do nothing: it is said, not done."""

    def _healthcheck(self, arguments: str) -> None:
        self.healthcheck = json.loads(arguments[arguments.index("[") :])

    def _cmd(self, arguments: str) -> None:
        self.command = json.loads(arguments)


def _of_the_machine() -> Mapping[str, str]:
    # What pip needs to reach a registry from here; nothing that would change what Python does.
    wanted = ("PIP_", "HTTP", "http", "SSL_", "REQUESTS_", "NO_PROXY", "no_proxy", "HOME")
    return {name: value for name, value in os.environ.items() if name.startswith(wanted)}
