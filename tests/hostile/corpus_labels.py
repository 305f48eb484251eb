"""Hostile settings and label tables, made anew for each test: name to what writes it and returns its path."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

Writer = Callable[[Path], Path]


def _file(name: str, content: str | bytes, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def _fifo(name: str, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    os.mkfifo(folder / name)
    return folder / name


def _settings(content: str | bytes) -> Writer:
    return partial(_file, "params.yaml", content)


_LAUGHS = "a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
SETTINGS: dict[str, Writer] = {
    "date that is none": _settings("run_seed: 0\ndatasets: 2024-02-30\n"),
    "number of 4000 digits": _settings(f"a: 1\nrun_seed: {'9' * 4000}\n"),
    "number of 5000 digits": _settings(f"a: 1\nrun_seed: {'9' * 5000}\n"),
    "UTF-16": _settings("run_seed: 0\n".encode("utf-16")),
    "Latin-1": _settings("run_seed: 0\ndatasets: [caf\xe9]\n".encode("latin-1")),
    "key twice": _settings("run_seed: 0\ndatasets: [a]\nrun_seed: 1\n"),
    "key twice in a line": _settings("data: {b: 1, b: 2}\n"),
    "merge conflict": _settings("a: 1\n<<<<<<< HEAD\nb: 1\n=======\nb: 2\n>>>>>>> theirs\n"),
    "aliases of aliases": _settings(_LAUGHS),
    "alias within itself": _settings("a: &a [*a]\n"),
    "50000 levels deep": _settings("a: " + "[" * 50_000),
    "tag that runs": _settings("a: !!python/object/apply:os.system [touch PWNED]\n"),
    "tag of nothing": _settings("datasets: !!set {a, b}\n"),
    "list at the top": _settings("- a\n- b\n"),
    "nothing": _settings(""),
    "control character": _settings("a: x\x01\n"),
    "NUL by escape": _settings('a: "x\\0y"\n'),
    "surrogate": _settings('a: "\\ud800"\n'),
    "tab": _settings("a:\n\t- 1\n"),
    "not closed": _settings("a: [1\n"),
    "two documents": _settings("a: 1\n---\nb: 1\n"),
    "list as a key": _settings("{[1]: 2}\n"),
    "2 MB": _settings("# " + "x" * 2**21),
    "FIFO": partial(_fifo, "params.yaml"),
}
"""Each is a params.yaml."""
