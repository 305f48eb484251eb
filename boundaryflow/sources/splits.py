"""Assigns images to splits: by their ids, by their folders, or by a file."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from boundaryflow.config import FileSplit, Split
from boundaryflow.errors import LabelError, ManifestError
from boundaryflow.labelling import match_files, nearest, read_annotations, word
from boundaryflow.labelling.join import MIN_JOINED, other_spellings, too_few
from boundaryflow.labelling.lines import short, text_lines
from boundaryflow.labelling.tables import Wanted
from boundaryflow.sources.groups import check_whole, groups_of

LOG = logging.getLogger(__name__)
_WORDS = {
    "train": ("0", "train", "training"),
    "val": ("1", "val", "valid", "validation", "dev"),
    "test": ("2", "test", "testing"),
}
_SAID = {word(text): split for split, texts in _WORDS.items() for text in texts}


def split_of(item_id: str, val: float, test: float) -> str:
    """Split of an image, derived from its id, or that of its group, alone, so that it never changes."""
    at = int.from_bytes(hashlib.sha256(f"split {item_id}".encode()).digest()[:8], "big") / 2**64
    return "test" if at < test else "val" if at < test + val else "train"


def split_images(raw: Path, sources: Mapping[str, str], split: Split | FileSplit) -> dict[str, str]:
    """The split of each image.

    Args:
        raw: The folder that the path of a file of splits is relative to.
        sources: Item id to path of the image.
        split: The rule.

    Raises:
        ManifestError: A named folder contains no image, or an image lies in folders of two splits; a file does not
            match the images, or puts none of them into val; a group would be split, or groups cannot be read.
    """
    if isinstance(split, FileSplit):
        return _by_file(raw, sources, split)
    if split.groups is None:
        return _by_folders(sources, split, {})
    groups = groups_of(raw, sources, split.groups)
    found = _by_folders(sources, split, groups)
    check_whole(found, groups, sources)
    return found


def _by_folders(sources: Mapping[str, str], split: Split, groups: Mapping[str, str]) -> dict[str, str]:
    """Splits by the named folders; by the group, or else the id, for all other images."""
    named = {name: key for key in ("val", "test") for name in _names(getattr(split, key))}
    val, test = (0.0 if isinstance(share, list) else share for share in (split.val, split.test))
    found: dict[str, str] = {}
    met: set[str] = set()
    for item, source in sources.items():
        folders = [part for part in PurePosixPath(source).parts[:-1] if part in named]
        met.update(folders)
        keys = {named[folder]: folder for folder in folders}
        if len(keys) > 1:
            raise ManifestError(
                f"ingest.split: {source} lies in {keys['val']}, which is val, and in {keys['test']}, which is test; "
                "name folders that do not contain each other"
            )
        found[item] = next(iter(keys), None) or split_of(_key(item, groups), val, test)
    for name, key in named.items():
        if name not in met:
            folders = sorted({part for source in sources.values() for part in PurePosixPath(source).parts[:-1]})
            raise ManifestError(f"ingest.split.{key}: no image lies in a folder {name!r}{nearest(name, folders)}")
    return found


def _key(item: str, groups: Mapping[str, str]) -> str:
    return f"group {groups[item]}" if item in groups else item


def _names(value: float | list[str]) -> Sequence[str]:
    return value if isinstance(value, list) else ()


def _by_file(raw: Path, sources: Mapping[str, str], split: FileSplit) -> dict[str, str]:
    path = raw / split.path
    try:
        rows = _read_partition(path) if split.file_column is None else _read_table(path, split, sources)
    except LabelError as error:
        raise ManifestError(f"ingest.split {str(error).removeprefix('labels ')}") from None
    stated: dict[str, str] = {}
    for number, file, value in rows:
        key = _SAID.get(word(value))
        if key is None:
            known = "; ".join(f"{name}: {', '.join(texts)}" for name, texts in _WORDS.items())
            raise ManifestError(
                f"ingest.split {path}: row {number} says {short(value)!r} of {short(file)}, must be one of {known}"
            )
        if stated.setdefault(file, key) != key:
            raise ManifestError(
                f"ingest.split {path}: {short(file)} is in {stated[file]} and, in row {number}, in {key}"
            )
    names = match_files(list(stated), sources)
    for file, other in other_spellings(stated, names.values()).items():
        if stated[file] != stated[other]:
            raise ManifestError(
                f"ingest.split {path}: {short(other)} is in {stated[other]} and, as {short(file)}, in {stated[file]}"
            )
    if len(names) < MIN_JOINED * len(sources):
        stray = set(stated) - set(names.values())
        told = too_few(names.keys(), sources, stray, having=f"one of its {len(stated)} rows")
        raise ManifestError(f"ingest.split {path}: {told}")
    found = {item: stated[names[item]] if item in names else "train" for item in sources}
    count = Counter(found.values())
    if not count["val"]:
        raise ManifestError(
            f"ingest.split {path}: none of the images is in val ({count['train']} in train, {count['test']} in test), "
            "on which boundaries are calibrated; move some there"
        )
    if len(names) < len(sources):
        LOG.warning("ingest.split %s: %d images have no row; they are in train", path, len(sources) - len(names))
    return found


def _read_partition(path: Path) -> list[tuple[int, str, str]]:
    """CelebA's list_eval_partition.txt: a file name and 0, 1 or 2, apart by white space."""
    rows: list[tuple[int, str, str]] = []
    with text_lines(path) as lines:
        for number, line in enumerate(lines, 1):
            cells = line.rsplit(maxsplit=1)
            if len(cells) == 1:
                raise ManifestError(
                    f"ingest.split {path}: line {number} is {short(line.strip())!r}, must be a file name and 0, 1 or "
                    "2; of a table give file_column and split_column"
                )
            rows += [(len(rows) + 1, cells[0].strip(), cells[1])] if cells else []
    return rows


def _read_table(path: Path, split: FileSplit, sources: Mapping[str, str]) -> list[tuple[int, str, str]]:
    columns = [str(split.file_column), str(split.split_column)]
    table = read_annotations(path, Wanted.of(columns[0], columns[1:], sources.values()))
    return [(row + 1, str(file), str(value)) for row, file, value in table[columns].itertuples()]
