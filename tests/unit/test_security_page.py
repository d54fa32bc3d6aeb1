"""The page on security names a test for each of its promises; they exist."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "security.md").read_text()
NAMED = re.compile(r"`(tests/\S+\.py)::(test_\w+)`")


def test_every_test_that_is_named_exists() -> None:
    named = NAMED.findall(PAGE)
    assert len(named) > 20
    assert not [
        f"{path}::{name}" for path, name in named if f"def {name}(" not in (ROOT / path).read_text()
    ]


def test_every_promise_names_a_test() -> None:
    protected = PAGE.partition("## Protected")[2].partition("## Not protected")[0]
    for section in protected.split("\n### ")[1:]:
        promises = section.split("\n- ")[1:] or [section]
        assert all(NAMED.search(promise) for promise in promises), section
