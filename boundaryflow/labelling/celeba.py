"""Annotations of CelebA, CelebA-HQ and CelebAMask-HQ, in their published formats."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import NoReturn

import pandas as pd

from boundaryflow.errors import LabelError
from boundaryflow.labelling.lines import refuse, short, text_lines

_VALUES = {"-1": "-1", "0": "0", "1": "1"}  # the same three texts in every cell
_COUNT = re.compile(r"-?[0-9]+")
_HEADER = ["idx", "orig_idx", "orig_file"]
_HQ_NUMBER = re.compile(r"0|[1-9][0-9]{0,8}")
_CELEBA_NAME = re.compile(r"[0-9]{6}")


def read_celeba(path: Path) -> pd.DataFrame:
    """Read `list_attr_celeba.txt` or `CelebAMask-HQ-attribute-anno.txt`.

    The file has an optional line with the number of rows, a line of attribute names, then rows `NAME v v v`, separated
    by white space.

    Returns:
        `file`, then a column per attribute, every value as it is written.

    Raises:
        LabelError: The file has another format; or the count, a row's length or a value is wrong.
    """
    with _lines(path) as lines:
        number, names = next(lines)
        count = names[0] if len(names) == 1 and _COUNT.fullmatch(names[0]) else None
        if count is not None:
            number, names = next(lines, (1, []))
        if not names:
            _refuse(path, 1, "is all there is; names and rows must follow")
        _check_names(path, number, names)
        files: list[str] = []
        columns: list[list[str]] = [[] for _ in names]
        for number, cells in lines:
            if len(cells) != len(names) + 1:
                _refuse(
                    path,
                    number,
                    f"has {len(cells) - 1} values after {short(cells[0])}, must have {len(names)}, one per name",
                )
            files.append(cells[0])
            for name, column, value in zip(names, columns, cells[1:], strict=True):
                if value not in _VALUES:
                    _refuse(path, number, f"has {short(value)!r} for {short(name)}, must be -1 or 1")
                column.append(_VALUES[value])
    if count is not None and (count.lstrip("0") or "0") != str(len(files)):
        _refuse(path, 1, f"says {short(count)} rows, but there are {len(files)}; the file is incomplete")
    if not files:
        _refuse(path, number, "is all there is; rows must follow")
    return pd.DataFrame({"file": files, **dict(zip(names, columns, strict=True))}, dtype=object)


@contextmanager
def _lines(path: Path) -> Generator[Iterator[tuple[int, list[str]]]]:
    """Numbers and cells of the lines that are not blank."""
    with text_lines(path) as lines:
        yield ((number, cells) for number, line in enumerate(lines, 1) if (cells := line.split()))


def read_hq_mapping(path: Path) -> dict[str, int]:
    """Read `CelebA-HQ-to-CelebA-mapping.txt`: columns idx, orig_idx and orig_file, separated by white space.

    Returns:
        CelebA's file name to CelebA-HQ's number.

    Raises:
        LabelError: The file has another format, or contains a file or a number twice.
    """
    with _lines(path) as lines:
        number, header = next(lines)
        if header != _HEADER:
            _refuse(path, number, f"must be the header {' '.join(_HEADER)}")
        mapping: dict[str, int] = {}
        for number, cells in lines:
            if len(cells) != len(_HEADER) or not _HQ_NUMBER.fullmatch(cells[0].lstrip("0") or "0"):
                _refuse(path, number, "must be a number of CelebA-HQ, one of CelebA and a file name")
            if cells[2] in mapping:
                _refuse(path, number, f"has {short(cells[2])} a second time")
            mapping[cells[2]] = int(cells[0].lstrip("0") or "0")
    if len(set(mapping.values())) != len(mapping):
        numbers = pd.Series(mapping)
        _refuse(path, 1, f"is followed by two rows for number {numbers[numbers.duplicated()].iloc[0]}; keep one")
    return mapping


def image_names(
    files: Sequence[str], sources: Collection[str], where: object, mapping: Mapping[str, int] | None
) -> list[str | None]:
    """File names by which the rows of an annotation file are joined to images.

    CelebA's files are 000001.jpg and so on; CelebA-HQ's are numbered from 0, as 12.jpg or, in some copies, 00012.jpg.
    The two numberings are unrelated, so names of one are never matched with names of the other without the mapping.

    Args:
        files: Names in the annotation file.
        sources: Relative paths of the images.
        where: The annotation file, for messages.
        mapping: From `read_hq_mapping`, if rows have CelebA's names and images CelebA-HQ's numbers.

    Returns:
        A file name per row; None for a row whose file is not in CelebA-HQ.

    Raises:
        LabelError: The mapping does not match, or images may be numbered in either way.
    """
    stems = [PurePosixPath(name).stem for name in files]
    if mapping is None:
        if not all(_HQ_NUMBER.fullmatch(stem) for stem in stems):
            _look_for_mapping(stems, sources, where)
            return list(files)
        numbers: list[int | None] = [int(stem) for stem in stems]
    else:
        by_stem = {PurePosixPath(name).stem: number for name, number in mapping.items()}
        numbers = [by_stem.get(stem) for stem in stems]
        if not any(number is not None for number in numbers):
            raise LabelError(
                f"labels {where}: no row is named as in the mapping ({short(files[0])} against "
                f"{short(next(iter(mapping), 'nothing'))}); if the "
                "rows have CelebA-HQ's numbers, set mapping to null"
            )
    wanted = {str(number) for number in numbers if number is not None}
    images = {PurePosixPath(source).stem for source in sources}
    plain, padded = images & wanted, images & {f"{name:0>5}" for name in wanted if len(name) < 5}
    if plain and padded and any(str(int(name)) in plain for name in padded):
        twice = next(name for name in sorted(padded) if str(int(name)) in plain)
        raise LabelError(f"labels {where}: images {int(twice)} and {twice} may both be number {int(twice)}; rename one")
    if mapping is None and not padded:
        return [name if "." in name else f"{name}.jpg" for name in files]
    if not plain and not padded:
        _refuse_own_names(images, where)
    return [
        None if number is None else f"{number:05d}.jpg" if f"{number:05d}" in padded else f"{number}.jpg"
        for number in numbers
    ]


def _look_for_mapping(stems: Sequence[str], sources: Collection[str], where: object) -> None:
    """Refuse images of CelebA-HQ with annotations of CelebA, as their numbers are unrelated."""
    images = [PurePosixPath(source).stem for source in sources]
    numbered = [stem for stem in images if stem.isdecimal() and len(stem) < 6]
    if numbered and len(numbered) == len(images) and all(_CELEBA_NAME.fullmatch(stem) for stem in stems):
        raise LabelError(
            f"labels {where}: rows have CelebA's names ({stems[0]}), images CelebA-HQ's numbers ({numbered[0]}); give "
            "CelebA-HQ-to-CelebA-mapping.txt as mapping"
        )


def _refuse_own_names(images: set[str], where: object) -> None:
    named = sorted(stem for stem in images if _CELEBA_NAME.fullmatch(stem))
    if named:
        raise LabelError(
            f"labels {where}: images are named as CelebA names its own ({named[0]}), and a mapping is given; set "
            "mapping to null, or name them by CelebA-HQ's numbers (12.jpg or 00012.jpg)"
        )


def _check_names(path: Path, number: int, names: list[str]) -> None:
    if len(names) > 1 and all(value in _VALUES for value in names[1:]):
        _refuse(
            path, number, f"must be the names of the attributes, and is a row ({short(names[0])}); put the names back"
        )
    if any("," in name for name in names):
        _refuse(path, number, "has commas; this is a CSV table, read it with kind csv")
    twice = next((name for name, num in Counter(names).items() if num > 1), None)
    if twice is not None:
        _refuse(path, number, f"has the name {short(twice)!r} twice")
    if "file" in names:
        _refuse(path, number, "has the name 'file', which is not an attribute")


def _refuse(path: Path, number: int, what: str) -> NoReturn:
    refuse(path, f"line {number} {what}")
