"""Links between Markdown files of the repository, as links between pages of the site.

On a git host every link is a path relative to its file. The site has the pages of docs/ at its top; what they lead to
elsewhere in the repository is put below `repository/`.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from pathlib import PurePosixPath

_LINK = re.compile(r"(?<!`)(\[[^\]]*\]\()(?![a-z]+:|#|/)([^)#\s]+)")
_AS_IT_IS = {".json", ".png"}
NOTEBOOKS = "examples/notebooks/"
HOME = "README.md"


def targets(text: str, path: str) -> Iterator[str]:
    """Paths in the repository that a Markdown file links to.

    Args:
        text: The Markdown.
        path: Of the file, relative to the repository.
    """
    for found in _LINK.finditer(text):
        yield _resolved(found[2], path)


def place(path: str) -> str:
    """Where a file of the repository is among the sources of the site.

    Markdown and notebooks are pages, pictures and JSON are copied, every other file is shown on a page of its own.
    """
    if path == HOME:
        return "index.md"
    if path == "docs/adr":
        return "adr/index.md"
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    if path.startswith(NOTEBOOKS):
        return f"notebooks/{PurePosixPath(path).stem}.md"
    is_page = PurePosixPath(path).suffix in {*_AS_IT_IS, ".md"}
    return f"repository/{path}" if is_page else f"repository/{path}.md"


def rewritten(text: str, path: str) -> str:
    """A Markdown file with every link to a file of the repository leading to its place in the site."""
    folder = posixpath.dirname(place(path))

    def moved(found: re.Match[str]) -> str:
        return found[1] + posixpath.relpath(place(_resolved(found[2], path)), folder or ".")

    return _LINK.sub(moved, text)


def _resolved(link: str, path: str) -> str:
    return posixpath.normpath(posixpath.join(posixpath.dirname(path), link))
