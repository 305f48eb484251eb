"""Folders of pictures in which something odd lies beside a good one."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

from tests.raw_data import encoded

GOOD = "fine.png"
SPARSE_BYTES = 40 * 2**30


def folder_with_a_picture(below: Path) -> Path:
    """A folder that anybody would call fine."""
    folder = below / "pictures"
    folder.mkdir(parents=True)
    (folder / GOOD).write_bytes(encoded(0, (16, 16)))
    return folder


def _with(add: Callable[[Path], None]) -> Callable[[Path], Path]:
    def make(below: Path) -> Path:
        folder = folder_with_a_picture(below)
        add(folder)
        return folder

    return make


def _socket(folder: Path) -> None:
    here = Path.cwd()
    os.chdir(folder)  # the path of a socket may have 107 bytes only
    try:
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind("odd.png")
    finally:
        os.chdir(here)


def _linked_maze(folder: Path) -> None:
    """Folders with links to one another: a walk that keeps no account of them never ends."""
    names = [folder / f"maze{number}" for number in range(8)]
    for name in names:
        name.mkdir()
        for other in names:
            (name / f"to_{other.name}").symlink_to(Path("..", other.name))


def _not_utf8(folder: Path) -> None:
    Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9.png")).write_bytes(encoded(1, (16, 16)))


def _folder_not_utf8(folder: Path) -> None:
    odd = Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9"))
    odd.mkdir()
    (odd / "inside.png").write_bytes(encoded(1, (16, 16)))


def _sparse(name: str) -> Callable[[Path], None]:
    def add(folder: Path) -> None:
        with (folder / name).open("wb") as file:
            file.truncate(SPARSE_BYTES)

    return add


def _escapes(folder: Path) -> None:
    for number, name in enumerate(("esc\x1b[31m.png", "bell\x07.png", "line\nbreak.png", "bidi\u202egnp.png")):
        (folder / name).write_bytes(encoded(10 + number, (16, 16)))


def _known_others(folder: Path) -> None:
    for name in ("desktop.ini", "clip.mp4", "a.7z", "b.rar", "notebook.ipynb", "LICENSE", "readme", "w.safetensors"):
        (folder / name).write_bytes(b"hello there\n")


CASES: dict[str, Callable[[Path], Path]] = {
    "fifo": _with(lambda folder: os.mkfifo(folder / "odd.png")),
    "socket": _with(_socket),
    "device by a link": _with(lambda folder: (folder / "odd.png").symlink_to("/dev/zero")),
    "dangling link": _with(lambda folder: (folder / "odd.png").symlink_to("nowhere.png")),
    "link to itself": _with(lambda folder: (folder / "odd.png").symlink_to("odd.png")),
    "link to its own folder": _with(lambda folder: (folder / "odd").symlink_to(".")),
    "link to a folder above": _with(lambda folder: (folder / "odd").symlink_to("../..")),
    "maze of links": _with(_linked_maze),
    "name not UTF-8": _with(_not_utf8),
    "folder not UTF-8": _with(_folder_not_utf8),
    "sparse movie": _with(_sparse("movie.mp4")),
    "sparse picture": _with(_sparse("huge.png")),
    "sparse without suffix": _with(_sparse("huge")),
    "sparse table": _with(_sparse("labels.csv")),
    "escape sequences": _with(_escapes),
    "known others": _with(_known_others),
    "fifo without suffix": _with(lambda folder: os.mkfifo(folder / "LICENSE")),
    "fifo as a table": _with(lambda folder: os.mkfifo(folder / "labels.csv")),
    "fifo as an archive": _with(lambda folder: os.mkfifo(folder / "more.zip")),
    "fifo as an LMDB": _with(lambda folder: os.mkfifo(folder / "data.mdb")),
    "folder named like a picture": _with(lambda folder: (folder / "odd.png").mkdir()),
}
