"""The parts of docs/chaos.md that commands write: what was measured stands there as it was."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "chaos.md"


def fill(name: str, lines: Iterable[str], page: Path = PAGE) -> None:
    """Replace what stands between the marks of the block with this name, each of them once."""
    begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->\n"
    text = page.read_text()
    assert text.count(begin) == text.count(end) == 1, f"{page.name} has no block {name}"
    before, _, rest = text.partition(begin)
    _, _, after = rest.partition(end)
    page.write_text("".join([before, begin, *(f"{line}\n" for line in lines), end, after]))


def table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return the lines of a table."""
    return [f"| {' | '.join(row)} |" for row in (titles, ["---"] * len(titles), *rows)]
