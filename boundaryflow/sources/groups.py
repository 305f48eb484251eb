"""Groups of images that come into one split together, such as the pictures of one person."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from boundaryflow.config import Groups
from boundaryflow.errors import LabelError, ManifestError
from boundaryflow.labelling import match_files
from boundaryflow.labelling.columns import UNKNOWN, texts
from boundaryflow.labelling.join import MIN_JOINED, too_few
from boundaryflow.labelling.lines import short
from boundaryflow.sources.cells import FILE, read_cells

LOG = logging.getLogger(__name__)
_LARGE = 0.2  # share of the images in one group above which shares of a split are missed by far


def groups_of(raw: Path, sources: Mapping[str, str], groups: Groups) -> dict[str, str]:
    """The group of each image; an image without one is left out, and is a group of its own.

    Args:
        raw: The folder of the images.
        sources: Item id to path of the image.
        groups: Where groups are stated.

    Raises:
        ManifestError: They cannot be read, two rows for an image contradict one another, fewer than 95 % of the images
            have a row, or none has a group.
    """
    images = list(sources.values())
    try:
        cells = read_cells(groups.source, raw, [groups.column], images)
    except LabelError as error:
        raise ManifestError(f"ingest.split.groups: {str(error).removeprefix('labels ')}") from None
    where = f"ingest.split.groups {cells.where}"
    stated: dict[str, str] = {}
    for file, group in zip(cells.table[FILE], texts(cells.table[groups.column]), strict=True):
        if stated.setdefault(file, group) != group:
            raise ManifestError(
                f"{where}: {short(file)} is of {short(stated[file])} and of {short(group)}; keep one of the rows"
            )
    names = match_files(list(stated), sources)
    if len(names) < MIN_JOINED * len(sources):
        stray = set(stated) - set(names.values())
        raise ManifestError(f"{where}: {too_few(names.keys(), sources, stray, having='a row')}")
    found = {item: stated[name] for item, name in names.items() if stated[name].lower() not in UNKNOWN}
    _tell(where, groups.column, found, len(sources))
    return found


def _tell(where: str, column: str, found: Mapping[str, str], num_images: int) -> None:
    if not found:
        raise ManifestError(f"{where}: none of {num_images} images has a value in column {column!r}; name another one")
    count = Counter(found.values())
    LOG.info("%s: %d groups of %d images", where, len(count), len(found))
    if len(found) < num_images:
        LOG.warning("%s: %d of %d images have no group; each is one of its own", where, num_images - len(found),
                    num_images)  # fmt: skip
    largest, num = count.most_common(1)[0]
    if num > _LARGE * num_images:
        LOG.warning("%s: %d of %d images are of one group, %s; the shares of ingest.split may be missed", where, num,
                    num_images, short(largest))  # fmt: skip


def check_whole(splits: Mapping[str, str], groups: Mapping[str, str], sources: Mapping[str, str]) -> None:
    """Refuse groups that named folders have split.

    Raises:
        ManifestError: Images of a group are in two splits.
    """
    first: dict[str, str] = {}
    for item, group in groups.items():
        other = first.setdefault(group, item)
        if splits[item] != splits[other]:
            raise ManifestError(
                f"ingest.split: group {short(group)} has {short(sources[other])} in {splits[other]} and "
                f"{short(sources[item])} in {splits[item]}, by the folders that are named; give shares for val and "
                "test, or leave groups out"
            )
