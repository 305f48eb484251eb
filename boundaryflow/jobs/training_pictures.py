"""The pictures that a denoiser is trained on: an ingested data set, a folder, an archive or an LMDB."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boundaryflow.errors import ManifestError
from boundaryflow.files import is_remote
from boundaryflow.sources.archives import archive_suffix
from boundaryflow.sources.decoding import Decoded, Spool, decode_all
from boundaryflow.sources.raw import Found, RawFolder
from boundaryflow.store.catalog.ingest import MANIFEST
from boundaryflow.store.shard_files import in_batches
from boundaryflow.store.shards import load_items
from boundaryflow.text import visible

LOG = logging.getLogger(__name__)
MAX_HELD_OUT = 256
_HELD_OUT = 0.1  # limit of the share of held-out pictures
_MAX_BAD = 0.1  # limit of the share of unusable pictures
_LEAST = 16
_READ_AT_ONCE = 512


@dataclass(frozen=True)
class TrainingPictures:
    """Pictures to train on, and held-out ones to measure with.

    Attributes:
        pixels: [N,C,S,S] uint8; may be memory-mapped.
        rows: Indices of the pictures to train on.
        held_out: Indices of the held-out pictures.
        facts: Facts for the model card; `sha256` identifies the data set.
    """

    pixels: NDArray[np.uint8]
    rows: NDArray[np.int64]
    held_out: NDArray[np.int64]
    facts: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @classmethod
    def of_array(cls, pixels: NDArray[np.uint8], name: str) -> TrainingPictures:
        """Train on all pictures of an array except the last ones, which are held out."""
        num = _num_held_out(len(pixels))
        rows = np.arange(len(pixels))
        facts = {"source": name, "pictures": len(rows) - num, "held_out": num, "sha256": _digest([name])}
        return cls(pixels, rows[:-num], rows[-num:], facts)

    def check_shape(self, channels: int, size: int) -> None:
        """Refuse pictures of another shape than the network's.

        Raises:
            ManifestError: They are.
        """
        found, wanted = (" x ".join(map(str, shape)) for shape in (self.pixels.shape[1:], (channels, size, size)))
        if found != wanted:
            raise ManifestError(
                f"train-denoiser {self.facts['source']}: its pictures are {found}, and the network is for {wanted}; "
                "bring them to that size, or use another network"
            )


@contextmanager
def open_pictures(source: str, scratch: Path, geometry: Mapping[str, Any]) -> Generator[TrainingPictures]:
    """Decode the pictures of a source; their pixels are in a file of `scratch` during the block.

    Args:
        source: Folder of an ingested data set (`data/ingest/NAME`); or a folder, an archive or an LMDB of pictures.
        scratch: Folder for the pixels.
        geometry: Keyword arguments of `decode_image`. For an ingested data set only `size` and `channels` are compared
            with those of its pictures; None accepts any.

    Raises:
        ManifestError: There are no pictures, too few, of another size, or too many that cannot be used.
    """
    path = Path(source)
    if is_remote(source):
        raise ManifestError(f"train-denoiser {visible(source)}: is remote; ingest it first, then give data/ingest/NAME")
    if not path.exists():
        raise ManifestError(f"train-denoiser {visible(source)}: no such folder or file; check the path")
    with Spool(scratch) as spool:
        is_ingested = (path / "manifest.parquet").is_file()
        shape, test, num_bad = (
            _from_ingested(spool, path, geometry) if is_ingested else _from_raw(spool, path, geometry)
        )
        spool.finish()
        items = sorted(spool.rows)
        if len(items) < _LEAST:
            raise ManifestError(
                f"train-denoiser {visible(source)}: {len(items)} different pictures, must be at least {_LEAST}, "
                "and should be thousands"
            )
        by_hash = sorted(test or items, key=lambda item: hashlib.sha256(item.encode()).digest())
        held_out = by_hash[: MAX_HELD_OUT if test else _num_held_out(len(items))]
        apart = {*test, *held_out}
        trained_on = [item for item in items if item not in apart]
        if not trained_on:
            raise ManifestError(
                f"train-denoiser {visible(source)}: all of it is in the split `test`; nothing to train on"
            )
        facts = {
            "source": visible(path.resolve().name), "pictures": len(trained_on), "held_out": len(held_out),
            "left_out": len(apart) - len(held_out) + num_bad, "sha256": _digest([repr(geometry), *trained_on]),
        }  # fmt: skip
        pixels = np.memmap(spool.path, np.uint8, "r", shape=(len(items), *shape))
        rows, apart_rows = (np.array([spool.rows[item] for item in part]) for part in (trained_on, held_out))
        yield TrainingPictures(pixels, rows, apart_rows, facts)


def _from_ingested(
    spool: Spool, folder: Path, geometry: Mapping[str, Any]
) -> tuple[tuple[int, int, int], set[str], int]:
    """Shape of the pictures, those of the split `test`, and how many cannot be used."""
    for option in ("crop", "fit"):
        if geometry[option] is not None:
            raise ManifestError(
                f"train-denoiser {folder}: --{option} is for raw pictures, and these are brought to size; leave it out"
            )
    manifest = MANIFEST.read(folder)
    ok = manifest[manifest["status"] == "ok"]
    shape: tuple[int, ...] = ()
    for some in in_batches(folder, list(ok["item_id"]), _READ_AT_ONCE):
        pixels = load_items(folder, some, ["pixels"])["pixels"].numpy()
        shape = pixels.shape[1:]
        for item, of_item in zip(some, pixels, strict=True):
            spool.add(item, of_item)
    for position, (option, ingested) in enumerate(zip(("channels", "size"), shape, strict=False)):
        stated = geometry[option]
        if stated is not None and stated != shape[position]:
            raise ManifestError(
                f"train-denoiser {folder}: --{option} is {stated}, but it was ingested with {ingested}; leave the "
                "option out, or train on the raw pictures"
            )
    if not shape:
        raise ManifestError(f"train-denoiser {folder}: holds no pictures; run `boundaryflow run` first")
    num_bad = int((manifest["status"] == "bad").sum())
    return (shape[0], shape[1], shape[2]), set(ok.loc[ok["split"] == "test", "item_id"]), num_bad


def _from_raw(spool: Spool, path: Path, geometry: Mapping[str, Any]) -> tuple[tuple[int, int, int], set[str], int]:
    shape = (geometry["channels"], geometry["size"], geometry["size"])
    raw = RawFolder(path, shape[1]) if path.is_dir() else RawFolder(path.parent, shape[1], found=_only(path))
    bad = [f"{name}: {reason}" for name, reason in raw.refused.items()]
    for picture in decode_all(raw, raw.names, {}, geometry, os.cpu_count() or 1):
        if picture.pixels is None:
            bad.append(_line(picture))
        else:
            spool.add(picture.item, picture.pixels)
    num = len(raw.names) + len(raw.refused)
    if len(bad) > _MAX_BAD * num:
        raise ManifestError(
            f"train-denoiser {path}: {len(bad)} of {num} pictures cannot be used, such as {bad[0]}; repair or "
            "remove them"
        )
    if bad:
        LOG.warning("%s: %d of %d pictures cannot be used, such as %s", path, len(bad), num, bad[0])
    return shape, set(), len(bad)


def _only(path: Path) -> Sequence[Found]:
    """An archive or an LMDB in one file, as the only entry of a folder."""
    if archive_suffix(path):
        return [Found(path.name, "archive", path.stat().st_size)]
    if path.suffix.lower() == ".lmdb":
        return [Found(path.name, "lmdb", path.stat().st_size)]
    raise ManifestError(f"train-denoiser {visible(str(path))}: is not a folder, archive or LMDB of pictures")


def _line(picture: Decoded) -> str:
    return f"{visible(picture.name)}: {picture.reason}"


def _num_held_out(num: int) -> int:
    return max(1, min(MAX_HELD_OUT, int(num * _HELD_OUT)))


def _digest(parts: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
