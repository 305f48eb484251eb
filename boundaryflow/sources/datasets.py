"""The raw pictures of a data set: those of its listing, or faces that are drawn for it."""

from __future__ import annotations

import functools
import logging
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from boundaryflow.avatars import ATTRIBUTES, FACTORS, Avatar, render, sample_avatars
from boundaryflow.config import AvatarSource, FolderSource, ListedSource, ParquetSource, RemoteSource
from boundaryflow.config.base import Section
from boundaryflow.errors import ManifestError
from boundaryflow.sources.decoding import item_id_of
from boundaryflow.sources.encoding import encode_png
from boundaryflow.sources.listing import pictures_path, read_found, survey_of
from boundaryflow.sources.raw import Found, RawFolder, RawPictures, Wanted
from boundaryflow.sources.remote import RemoteFolder
from boundaryflow.store.catalog.ingest import FACES
from boundaryflow.store.catalog.listing import LISTING, PICTURES
from boundaryflow.store.catalog.raw import RAW

LOG = logging.getLogger(__name__)

FACES_AT_ONCE, FACE = 50, "avatar-"


def draw_avatars(source: AvatarSource, chunk: int) -> list[Avatar]:
    """The faces from number `FACES_AT_ONCE * chunk` on; a larger data set begins with the faces of a smaller one."""
    correlations = {tuple(pair.split("~", 1)): value for pair, value in source.correlations.items()}
    rng = np.random.default_rng([zlib.crc32(b"data set"), source.seed, chunk])
    drawn = sample_avatars(FACES_AT_ONCE, rng, rates=source.rates, correlations=correlations)  # pyright: ignore[reportArgumentType]
    return drawn[: max(0, source.num_images - chunk * FACES_AT_ONCE)]


def face_of(avatar: Avatar, size: int) -> tuple[NDArray[np.uint8], str]:
    """Pixels [C,S,S] of a face, and its item id, which is that of its PNG file."""
    pixels = np.ascontiguousarray(np.array(render(avatar, size)).transpose(2, 0, 1))
    return pixels, item_id_of(encode_png(torch.from_numpy(pixels)))


def open_raw(dataset: str, source: ListedSource, image_size: int) -> RawPictures:
    """The raw pictures of a data set, according to its listing.

    Raises:
        ManifestError: There are none, or a container is damaged or older than the listing.
    """
    path = pictures_path(dataset)
    table, of = PICTURES.read(path.parent), LISTING.read_facts(dataset).get("source")
    if of != source.place(dataset):
        raise ManifestError(
            f"ingest {path}: is of {of}, but ingest.source is {source.place(dataset)}; use `boundaryflow run`, "
            f"or `python -m stages.listing {dataset}`"
        )
    return open_kind(source, dataset, image_size, table)


@functools.singledispatch
def open_kind(source: Section, dataset: str, image_size: int, table: pd.DataFrame) -> RawPictures:
    """Open the pictures of a listing: a function for each kind of `ListedSource`.

    Args:
        source: One of `ListedSource`.
        dataset: Name of the data set.
        image_size: Side of the images in pixels after ingest.
        table: The listing, with the columns of `PICTURES`.
    """
    raise NotImplementedError(type(source).__name__)


@open_kind.register
def _open_remote(source: RemoteSource, dataset: str, image_size: int, table: pd.DataFrame) -> RawPictures:
    return RemoteFolder(source.url, table)


@open_kind.register
def _open_folder(
    source: FolderSource | ParquetSource, dataset: str, image_size: int, table: pd.DataFrame
) -> RawPictures:
    raw = _folder(source, dataset, image_size, read_found(table))
    for pattern in sorted(raw.unmatched):
        LOG.info("ingest %s: no picture fits the pattern %r of ingest.source", dataset, pattern)
    return raw


def open_unlisted(dataset: str, source: FolderSource | ParquetSource, image_size: int) -> RawFolder:
    """The present pictures of a data set on this machine, listed or not.

    Raises:
        ManifestError: There are none, or a container is damaged.
    """
    return _folder(source, dataset, image_size, survey_of(RAW.folder(dataset), source))


def _folder(source: FolderSource | ParquetSource, dataset: str, image_size: int, found: Sequence[Found]) -> RawFolder:
    column = None
    if isinstance(source, ParquetSource):
        column, found = source.image_column, [file for file in found if file.kind == "parquet"]
    return RawFolder(RAW.folder(dataset), image_size, Wanted(source.include, source.exclude), found, column)


def read_faces(ingested: Path) -> dict[str, Avatar]:
    """Item to its face, for a data set of drawn faces.

    Raises:
        ManifestError: The data set was not drawn, or the table of its faces is damaged.
    """
    rows = FACES.read(ingested).to_dict("records")
    return {
        row["item_id"]: Avatar({a: bool(row[a]) for a in ATTRIBUTES}, {f: float(row[f]) for f in FACTORS})
        for row in rows
    }
