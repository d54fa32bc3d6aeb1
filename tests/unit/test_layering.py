"""The pure modules stay pure, and gunicorn's configuration stays clear of the service."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DRIVERS = {"bson", "flask", "gevent", "pymongo"}


def imported(path: Path) -> set[str]:
    """Return the full names of what a file imports, on whatever line."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name} has a relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def reached(module: str, seen: set[str]) -> set[str]:
    """Return the top-level packages that a module of the service imports, however indirectly."""
    seen.add(module)
    packages: set[str] = set()
    for name in imported(ROOT / "promo_service" / f"{module}.py"):
        package, _, rest = name.partition(".")
        ours = rest.partition(".")[0]
        packages.add(package)
        if package == "promo_service" and ours not in seen:
            packages |= reached(ours, seen)
    return packages


@pytest.mark.parametrize("module", ["errors", "promos", "rules", "wire"])
def test_the_pure_modules_know_no_web_no_database_and_no_greenlets(module: str) -> None:
    assert not reached(module, set()) & DRIVERS


def test_the_gunicorn_configuration_imports_neither_the_service_nor_its_driver() -> None:
    packages = {name.partition(".")[0] for name in imported(ROOT / "gunicorn.conf.py")}
    assert not packages & (DRIVERS | {"promo_service"})


def test_the_worker_class_brings_no_driver_into_the_master_which_is_not_patched() -> None:
    assert not reached("worker", set()) & {"bson", "flask", "pymongo"}
