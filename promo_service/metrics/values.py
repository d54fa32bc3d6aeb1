"""Counting in the files of the workers, at half of what the Prometheus client takes for it."""

from __future__ import annotations

from typing import Any

from prometheus_client import values


class _Unlocked:
    _key: str
    _value: float
    _file: Any

    def inc(self, amount: float) -> None:
        """Add to the value, and write it; no greenlet switches in here."""
        self._value += amount
        self._file.write_value(self._key, self._value, 0.0)


def count_without_lock() -> None:
    """Let metrics that are made from now on count without a lock, where values are in files.

    Call it after the fork: the client takes a lock, and asks the system for the process's id, each
    time that it counts. A worker has one thread, and does not fork.
    """
    usual: Any = values.ValueClass
    if usual._multiprocess and not issubclass(usual, _Unlocked):  # noqa: SLF001 - how it tells them apart
        values.ValueClass = type("UnlockedValue", (_Unlocked, usual), {})
