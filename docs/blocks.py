"""The parts of the documents that commands write: what was measured stands there as it was.

Each stands between two lines that name it, `<!-- NAME: begin -->` and `<!-- NAME: end -->`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path


def renewed(text: str, name: str, lines: Iterable[str]) -> str:
    """Return a document with other lines in a block; ValueError where it has not one such block."""
    begin, end = (f"<!-- {name}: {side} -->\n" for side in ("begin", "end"))
    head, found, rest = text.partition(begin)
    _old, ended, tail = rest.partition(end)
    if not (found and ended) or begin in rest or end in head + tail:
        raise ValueError(f"it has no block {name}, or several")
    return "".join([head, begin, *(f"{line}\n" for line in lines), end, tail])


def fill(page: Path, name: str, lines: Iterable[str]) -> None:
    """Replace what stands in a block of a page; raises ValueError as `renewed` does."""
    page.write_text(renewed(page.read_text(), name, lines))


def table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return the lines of a table in Markdown."""
    written = [[cell.replace("|", "\\|") for cell in row] for row in (titles, *rows)]
    written.insert(1, ["---"] * len(titles))
    return [f"| {' | '.join(row)} |" for row in written]
