"""Members of archives that say something of the picture beside them, as WebDataset has them.

Members of one key belong together: `0001.jpg`, `0001.json`, `0001.cls` and `0001.txt` are one sample. A key is a
member's path up to the first dot of its name.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from boundaryflow.errors import LabelError
from boundaryflow.labelling.json_labels import parse_json, plain_cells
from boundaryflow.labelling.lines import refuse, short
from boundaryflow.sources.archives import Member, TarPictures, UnusableError, ZipPictures, archive_suffix
from boundaryflow.sources.suffixes import may_be_picture

_SAMPLE = re.compile(r"((?:.*/)?[^./]+)\.([^/]+)", re.DOTALL)
_TEXTS = ("cls", "txt")
_MAX_BYTES = 2**20
"""A larger member is refused: it says more than labels."""


def sidecars(members: Sequence[Member]) -> tuple[dict[str, list[str]], dict[str, dict[str, Member]]]:
    """Of an archive, key to its pictures, and key to the members by suffix: `json`, `cls` and `txt`.

    Raises:
        LabelError: A key has two members of one suffix.
    """
    pictures: dict[str, list[str]] = {}
    beside: dict[str, dict[str, Member]] = {}
    for member in members:
        found = _SAMPLE.fullmatch(member.name)
        if found is None or member.reason:
            continue
        key, suffix = found[1], found[2].lower()
        if suffix in ("json", *_TEXTS):
            if beside.setdefault(key, {}).setdefault(suffix, member) is not member:
                raise LabelError(f"has {short(member.name)} twice; pack it again")
        elif may_be_picture(member.name):
            pictures.setdefault(key, []).append(member.name)
    return pictures, beside


def member_rows(
    path: Path, name: str, columns: Sequence[str], images: Collection[str]
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Images of an archive, and the columns of the members beside them.

    Args:
        path: The archive.
        name: Its path within the folder of all images.
        columns: Columns that are wanted; others may be left out.
        images: Paths of the images to look for.

    Raises:
        LabelError: It is no archive, has a member twice, or one that cannot be read.
        ManifestError: It is damaged.
    """
    suffix = archive_suffix(path)
    if not suffix:
        refuse(path, "is no archive; give tar or zip files")
    container = (ZipPictures if suffix == ".zip" else TarPictures)(path)
    try:
        pictures, beside = sidecars(list(container.members()))
    except LabelError as error:
        refuse(path, str(error))
    for key, members in beside.items():
        named = [image for image in (f"{name[: -len(suffix)]}/{of}" for of in pictures.get(key, ())) if image in images]
        if not named:
            continue
        cells: dict[str, Any] = {}
        for kind, member in members.items():
            if kind == "json" or kind in columns:
                cells |= _cells(path, container, kind, member, columns)
        yield from ((image, cells) for image in dict.fromkeys(named))


def _cells(
    path: Path, container: ZipPictures | TarPictures, kind: str, member: Member, columns: Sequence[str]
) -> dict[str, Any]:
    name = short(member.name)
    try:
        data = container.read(member.key)
    except UnusableError as error:
        refuse(path, f"{name} cannot be read ({error})")
    if len(data) > _MAX_BYTES:
        refuse(path, f"{name} has {len(data):,} bytes, at most {_MAX_BYTES:,} are read")
    if kind == "json":
        content = parse_json(path, data, f"{name} ")
        if not isinstance(content, dict):
            refuse(path, f"{name} is no JSON object")
        return plain_cells(path, name, content, columns)
    try:
        return {kind: data.decode("utf-8-sig").strip()}
    except UnicodeDecodeError as error:
        refuse(path, f"{name} is not UTF-8 (byte 0x{data[error.start]:02x}); save it as UTF-8")
