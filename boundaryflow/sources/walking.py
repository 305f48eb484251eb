"""Lists every entry in and below a folder, with its kind. No file is opened, so a FIFO or a device cannot block."""

from __future__ import annotations

import errno
import heapq
import os
import stat
from pathlib import Path
from typing import NamedTuple

from boundaryflow.errors import ManifestError
from boundaryflow.files import kind_of
from boundaryflow.sources.archives import is_beside, raise_if_disk
from boundaryflow.text import visible

NOT_UTF8 = "its name is not UTF-8; rename it"
_LINKS = {errno.ENOENT: "a link that leads nowhere", errno.ELOOP: "a link that leads to itself"}


class Entry(NamedTuple):
    r"""An entry of a folder.

    Attributes:
        name: Path within the folder, with forward slashes; bytes that are not UTF-8 are shown as `\xe9`.
        path: Path to open it by.
        size: In bytes; like the next two, for regular files only.
        mtime_ns: Time of writing.
        inode: Number of its inode.
        special: What it is if it cannot be a picture, such as `a FIFO`.
        wrong: Why it cannot be read, though it may be a picture; empty if no reason is known.
    """

    name: str
    path: str
    size: int = 0
    mtime_ns: int = 0
    inode: int = 0
    special: str = ""
    wrong: str = ""


def walk(folder: Path, *, follow_out: bool, what: str) -> list[Entry]:
    """All entries that are not hidden, sorted by name.

    Args:
        folder: The folder; may itself be a link.
        follow_out: Follow links to files and folders, inside and outside, but each folder only once and no parent of
            this one. Otherwise only links to files inside are followed, so that a user who may write to the folder
            cannot have other users' files read.
        what: Prefix of messages.

    Raises:
        ManifestError: The folder itself cannot be read.
    """
    home = os.path.realpath(folder)
    seen: set[tuple[int, int]] = set()
    found: list[Entry] = []
    folders, links = [("", str(folder))], list[tuple[str, str]]()
    while folders or links:
        # A real folder comes before a link to it, so that its files get their real paths.
        name, path = folders.pop() if folders else heapq.heappop(links)
        try:
            about = os.stat(path)
            if (about.st_dev, about.st_ino) in seen:
                found.append(_named(Entry(name, path, special="a link to a folder that is read already")))
                continue
            seen.add((about.st_dev, about.st_ino))
            with os.scandir(path) as entries:
                inside = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            raise_if_disk(error)
            if not name:
                raise ManifestError(
                    f"{what} {folder}: cannot be read ({error.strerror}); change its permissions"
                ) from None
            found.append(_named(Entry(name, path, wrong=f"a folder that cannot be read ({error.strerror})")))
            continue
        for entry in inside:
            if is_beside((entry.name,)):
                continue
            of = f"{name}/{entry.name}" if name else entry.name
            entry_or_kind = _look(entry, of, home, follow_out=follow_out)
            if entry_or_kind is None:
                continue
            if isinstance(entry_or_kind, Entry):
                found.append(entry_or_kind)
            elif entry_or_kind == "link":
                heapq.heappush(links, (of, entry.path))
            else:
                folders.append((of, entry.path))
    return sorted(found)


def path_of(folder: Path, name: str) -> Path:
    """Path of an entry by its name, independent of the locale."""
    return folder / (name if name.isascii() else os.fsdecode(name.encode()))


def _look(entry: os.DirEntry[str], name: str, home: str, *, follow_out: bool) -> Entry | str | None:
    """An entry; `folder` or `link` for a folder or a link to one; None if it was removed meanwhile."""
    is_link = entry.is_symlink()
    try:
        about = entry.stat()
    except OSError as error:
        raise_if_disk(error)
        if error.errno == errno.ENOENT and not is_link:
            return None
        reason = _LINKS.get(error.errno or 0, f"cannot be read ({error.strerror})")
        return _named(Entry(name, entry.path, wrong=reason))
    if is_link and not follow_out and not os.path.realpath(entry.path).startswith(f"{home.rstrip('/')}/"):
        return _named(Entry(name, entry.path, special="a link that leads out of the folder"))
    if stat.S_ISDIR(about.st_mode):
        if is_link and not follow_out:
            return _named(Entry(name, entry.path, special="a link to a folder"))
        if is_link and f"{home}/".startswith(f"{os.path.realpath(entry.path).rstrip('/')}/"):
            return _named(Entry(name, entry.path, special="a link to a folder that this one lies in"))
        return "link" if is_link else "folder"
    if not stat.S_ISREG(about.st_mode):
        return _named(Entry(name, entry.path, special=kind_of(about.st_mode)))
    return _named(Entry(name, entry.path, about.st_size, about.st_mtime_ns, about.st_ino))


def _named(entry: Entry) -> Entry:
    """The entry with a name that is valid UTF-8, independent of the locale."""
    if entry.name.isascii():
        return entry
    name = os.fsencode(entry.name).decode("utf-8", "surrogateescape")
    try:
        name.encode()
    except UnicodeEncodeError:
        return entry._replace(name=visible(name), wrong=NOT_UTF8)
    return entry._replace(name=name)
