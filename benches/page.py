"""The tables that benches write into the pages, between two comments."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [f"| {' | '.join(header)} |", f"|{'---|' * len(header)}"]
    return "\n".join(lines + [f"| {' | '.join(row)} |" for row in rows])


def fill(page: Path, name: str, content: str) -> None:
    """Put content between `<!-- name -->` and `<!-- /name -->`, in the place of what stands there."""
    before, begin, rest = page.read_text().partition(f"<!-- {name} -->")
    _old, end, after = rest.partition(f"<!-- /{name} -->")
    if not (begin and end):
        raise ValueError(f"{page}: has no <!-- {name} --> and <!-- /{name} --> to write between")
    page.write_text(f"{before}{begin}\n{content}\n{end}{after}")
