"""What the tests over HTTP share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest


@pytest.fixture
def in_background() -> Iterator[Callable[..., Future[Any]]]:
    """Provide a function that calls another one in a thread; they have ended when the test has."""
    with ThreadPoolExecutor() as threads:
        yield threads.submit
