"""Joins rows of a table to images by file name, never by position."""

from __future__ import annotations

import logging
import re
import unicodedata
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import PurePosixPath

import numpy as np
import pandas as pd

from boundaryflow.errors import LabelError
from boundaryflow.labelling.columns import AttributeColumn, read_values
from boundaryflow.labelling.lines import short

LOG = logging.getLogger(__name__)
MIN_JOINED = 0.95
_NUMBER, _DIGITS = re.compile(r"0|[1-9][0-9]{0,17}"), re.compile(r"[0-9]{1,18}")
_SUFFIX = re.compile(r"\.[A-Za-z][A-Za-z0-9]{1,4}$")  # begins with a letter: 1.5 is not 1 with the suffix .5


def match_files(files: Sequence[str], sources: Mapping[str, str]) -> dict[str, str]:
    """Match file names of a table to images.

    A name matches an image by its relative path; otherwise by its relative path without suffix, then by its base name,
    then by its base name without suffix, each if unique on both sides. A match by base name also needs compatible
    folders: one side has none, or the folders of one side are the end of the other's (`train/1.png` is not
    `val/1.png`). A leading `./` and backslashes between folders are accepted.

    Args:
        files: Names as written in the table.
        sources: Item id to relative path of the image.

    Returns:
        Item id to name as written, for images that have one.
    """
    written: dict[str, str] = {}
    for name in files:
        written.setdefault(normal(name), name)
    images = set(sources.values())
    found = {item: written[source] for item, source in sources.items() if source in written}
    for shorten in _SHORTER if len(found) < len(sources) else ():
        in_table, in_images = _unique(written, shorten), _unique(images, shorten)
        for item, source in sources.items():
            shorter = shorten(source)
            name = in_table.get(shorter) if item not in found and in_images.get(shorter) == source else None
            if name is not None and _folders_fit(name, source):
                found[item] = written[name]
    by_number = _by_number(written, sources) if len(found) < len(sources) else {}
    return by_number if len(by_number) > len(found) else found


def other_spellings(files: Iterable[str], used: Iterable[str]) -> dict[str, str]:
    """Names of a table that equal a matched name except for its suffix or Unicode normalisation.

    Args:
        files: All names of the table.
        used: Those that were matched to images.

    Returns:
        Other spelling to the matched name, where that is unique.
    """
    used = set(used)
    whole = _unique(used, lambda name: _composed(normal(name)))
    stems = _unique(used, lambda name: _without_suffix(_composed(normal(name))))
    found: dict[str, str] = {}
    for name in files:
        plain = _composed(normal(name))
        other = whole.get(plain) or stems.get(plain)
        if name not in used and other is not None:
            found[name] = other
    return found


def _folders_fit(name: str, source: str) -> bool:
    """Whether one side has no folder, or the folders of one side are the end of the other's."""
    ours, theirs = (_composed(path).strip("/").split("/")[:-1] for path in (source, name))
    num = min(len(ours), len(theirs))
    return not num or ours[-num:] == theirs[-num:]


def too_few(
    matched: Collection[str], sources: Mapping[str, str], stray: Collection[str], *, having: str, least: str = ""
) -> str:
    """What is said where too few images have a row of a table.

    Args:
        matched: Items that have one.
        sources: Item id to path of the image.
        stray: Names in the table of no image.
        having: What the images have.
        least: How many should have one; `MIN_JOINED` of them unless said.
    """
    without, spare = sorted(source for item, source in sources.items() if item not in matched), sorted(stray)
    shown, others = (", ".join(map(short, names[:3])) for names in (without, spare))
    return (
        f"only {len(matched)} of {len(sources)} images have {having}, must be {least or f'{MIN_JOINED:.0%}'}; "
        f"images without a row: {shown}; rows without an image: {others or 'none'}; {_way_out(spare, without)}"
    )


def _way_out(stray: Sequence[str], without: Sequence[str]) -> str:
    """End of a message about names of a table and images that do not match."""
    bases = {_without_suffix(_base_name(normal(name))): name for name in stray}
    for source in without:
        name = bases.get(_without_suffix(_base_name(source)))
        if name is not None and not _folders_fit(normal(name), source):
            name, source = short(name), short(source)
            return f"{name} is not taken for {source}, in another folder; if it is that, write its path, or no folder"
    return "check the file names"


def _by_number(written: Mapping[str, str], sources: Mapping[str, str]) -> dict[str, str]:
    stems = {item: _without_suffix(_base_name(source)) for item, source in sources.items()}
    if not all(_NUMBER.fullmatch(name) for name in written) or not all(_DIGITS.fullmatch(s) for s in stems.values()):
        return {}
    images = {stem.lstrip("0") or "0": item for item, stem in stems.items()}
    both = written.keys() & images.keys()
    if len(images) < len(stems) or len(both) < min(len(written), len(images)):
        return {}
    return {images[name]: written[name] for name in sorted(both)}


def key(name: str) -> str:
    """A key that is equal for a file name and an image whenever `match_files` may match them; cheap to compute."""
    path = name.replace("\\", "/") if "\\" in name else name
    base = _without_suffix(_composed(path.rstrip("/. ").rpartition("/")[2]))
    return base.lstrip("0") or "0" if base.isdecimal() else base


def normal(name: str) -> str:
    """A relative path in the form of the manifest."""
    return PurePosixPath(name.replace("\\", "/")).as_posix()


def in_folder(files: Sequence[str], folder: str, images: Iterable[str], where: object) -> list[str]:
    """Names of a table in a subfolder, made relative to the folder of all images.

    Args:
        files: Names as written, relative to the folder of all images or to the table's.
        folder: The table's folder, relative to the folder of all images; empty or `.` if they are the same.
        images: Relative paths of the images.
        where: The table's file, for messages.

    Raises:
        LabelError: A name matches images relative to both folders.
    """
    names, known_images = [normal(name) for name in files], set(map(_composed, images))
    folder = _composed(folder)
    if folder in ("", "."):
        return names
    found: list[str] = []
    for name in names:
        own = f"{folder}/{name}"
        if _composed(name) in known_images and _composed(own) in known_images:
            name, own = short(name), short(own)
            raise LabelError(
                f"labels {where}: {name} may be {name} or {own}; write paths from the root and put the table there"
            )
        found.append(name if _composed(name) in known_images else own)
    return found


def join_values(
    values: pd.DataFrame,
    where: object,
    sources: Mapping[str, str],
    *,
    partial: bool = False,
    copies: Mapping[str, str] | None = None,
    num_left_out: int = 0,
) -> tuple[pd.DataFrame, int]:
    """Labels of each image.

    Args:
        values: `file`, then a column per attribute; from `read_values`.
        where: The file, for messages.
        sources: Item id to relative path of the image.
        partial: One image with a row is enough; otherwise 95 % must have one.
        copies: Paths of further copies of the same pictures to their item ids. A picture whose rows
            contradict each other is unknown.
        num_left_out: Number of further rows, which belong to no image and are not in `values`.

    Returns:
        One row per item, sorted by id: item_id, then a float32 probability per attribute, NaN
        where unknown; and the number of rows that belong to no image.

    Raises:
        LabelError: Two rows for one path disagree, or too few images have a row.
    """
    distinct = values.assign(file=[normal(name) for name in values["file"]]).drop_duplicates()
    twice = distinct["file"].duplicated(keep=False)
    if twice.any():
        name = short(distinct.loc[twice, "file"].iloc[0])
        raise LabelError(f"labels {where}: rows for {name} contradict one another; keep one of them")
    files = distinct["file"].tolist()
    rows = {item: [name] for item, name in match_files(files, sources).items()}
    if copies:
        found = match_files(files, {path: path for path in (*sources.values(), *copies)})
        for path, item in sorted(copies.items()):
            if path in found and found[path] not in rows.get(item, ()):
                rows.setdefault(item, []).append(found[path])
    item_of = {name: item for item, names in rows.items() for name in names}
    for name, other in other_spellings(files, item_of).items():
        rows[item_of[other]].append(name)
    used = {name for names in rows.values() for name in names}
    if not rows if partial else len(rows) < MIN_JOINED * len(sources):
        _refuse(where, rows, files, used, sources, partial, num_left_out)
    by_file = distinct.set_index("file")
    items = sorted(sources)
    joined = by_file.reindex([rows.get(item, [""])[0] for item in items])
    joined.index = pd.Index(items)
    _settle(joined, where, by_file, rows)
    labels = {str(name): joined[name].to_numpy(np.float32) for name in by_file.columns}
    return pd.DataFrame({"item_id": items, **labels}), len(files) - len(used) + num_left_out


def _settle(joined: pd.DataFrame, where: object, by_file: pd.DataFrame, rows: Mapping[str, Sequence[str]]) -> None:
    """Labels of pictures with several rows: the values on which the rows agree."""
    for attribute in by_file.columns:
        contradicting: list[str] = []
        for item, names in rows.items():
            if len(names) < 2:
                continue
            known = by_file.loc[list(names), attribute].dropna()
            agree = (known > 0.5).nunique() < 2
            joined.loc[item, attribute] = known.iloc[0] if len(known) and agree else np.nan
            contradicting += [] if agree else [" and ".join(map(short, names[:2]))]
        if contradicting:
            LOG.warning(
                "labels %s: %d pictures occur under several names with labels that contradict each other about %s, "
                "such as %s; they are unknown",
                where, len(contradicting), attribute, contradicting[0],
            )  # fmt: skip


def join_labels(
    table: pd.DataFrame,
    where: object,
    file_column: str,
    sources: Mapping[str, str],
    attributes: Mapping[str, AttributeColumn],
) -> pd.DataFrame:
    """Labels of each image, from one table beside the images: `read_values`, then `join_values`."""
    return join_values(read_values(table, where, file_column, attributes), where, sources)[0]


def _refuse(
    where: object,
    rows: Mapping[str, object],
    files: Sequence[str],
    used: set[str],
    sources: Mapping[str, str],
    partial: bool,
    num_left_out: int,
) -> None:
    having, least = f"one of its {len(files) + num_left_out} rows", "at least one" if partial else ""
    told = too_few(rows.keys(), sources, set(files) - used, having=having, least=least)
    raise LabelError(f"labels {where}: {told}")


def _unique(names: Iterable[str], shorten: Callable[[str], str]) -> dict[str, str]:
    """Short name to name, for short names that are unique."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(shorten(name), []).append(name)
    return {short: group[0] for short, group in groups.items() if len(group) == 1}


def _composed(path: str) -> str:
    return path if path.isascii() else unicodedata.normalize("NFC", path)


def _base_name(path: str) -> str:
    return path.rpartition("/")[2]


def _without_suffix(path: str) -> str:
    return _SUFFIX.sub("", path)


_SHORTER: tuple[Callable[[str], str], ...] = (
    _composed,
    lambda path: _without_suffix(_composed(path)),
    lambda path: _base_name(_composed(path)),
    lambda path: _without_suffix(_base_name(_composed(path))),
)
