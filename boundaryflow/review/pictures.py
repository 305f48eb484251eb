"""The pictures of a case, read row by row from the shards; none is kept in memory."""

from __future__ import annotations

import io
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from safetensors import SafetensorError, safe_open

from boundaryflow.errors import ManifestError
from boundaryflow.review.cases import Cases
from boundaryflow.store.catalog.edit import EDIT
from boundaryflow.store.catalog.ingest import INGEST

THUMB_PX = 192
"""Longest side of a picture in a strip."""
LOSSLESS_PX = 96
"""Up to this side strips are lossless, as WebP's halved resolution of colours shows on small pictures."""


def side_px(cases: Cases) -> int:
    """Side of the pictures."""
    shard, _row = cases.places[0]
    return int(_opened(EDIT.folder(cases.dataset, cases.root) / shard).get_slice("edited").get_shape()[-1])


def strip(cases: Cases, case: int) -> bytes:
    """A WebP file with the input picture and then that at each strength, side by side.

    Raises:
        ManifestError: A shard is gone or damaged.
    """
    edited = _edited(cases, case)
    wide = Image.fromarray(np.concatenate([_input(cases, case), *edited], axis=1))
    side = wide.height
    if side > THUMB_PX:
        wide = wide.resize((THUMB_PX * (len(edited) + 1), THUMB_PX), Image.Resampling.BOX, reducing_gap=2)
    buffer = io.BytesIO()
    wide.save(buffer, "WEBP", lossless=side <= LOSSLESS_PX, quality=10 if side <= LOSSLESS_PX else 88, method=0)
    return buffer.getvalue()


def picture(cases: Cases, case: int, k: int | None) -> bytes:
    """A PNG file of the picture at one strength in full size, or of the input.

    Raises:
        ManifestError: A shard is gone or damaged.
    """
    buffer = io.BytesIO()
    Image.fromarray(_input(cases, case) if k is None else _edited(cases, case)[k]).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _edited(cases: Cases, case: int) -> NDArray[np.uint8]:
    """[K,H,W] or [K,H,W,3]."""
    shard, row = cases.places[case]
    return _shown(_row(EDIT.folder(cases.dataset, cases.root) / shard, "edited", row))


def _input(cases: Cases, case: int) -> NDArray[np.uint8]:
    """[H,W] or [H,W,3]."""
    item, folder = cases.items[case], INGEST.folder(cases.dataset, cases.root)
    if item not in cases.inputs:
        raise ManifestError(f"{folder}: has no pixels of item {item}; run `boundaryflow run --dataset {cases.dataset}`")
    shard, row = cases.inputs[item]
    return _shown(_row(folder / shard, "pixels", row)[None])[0]


def _shown(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """[N,C,H,W] as Pillow wants it: channels last, or none for grey."""
    return pixels[:, 0] if pixels.shape[1] == 1 else pixels.transpose(0, 2, 3, 1)


def _row(path: Path, name: str, row: int) -> NDArray[np.uint8]:
    try:
        return _opened(path).get_slice(name)[row]
    except (SafetensorError, OSError, IndexError) as error:
        raise ManifestError(f"shard {path}: cannot be read ({error}); run `boundaryflow run` to make it anew") from None


@lru_cache(maxsize=128)
def _opened(path: Path) -> Any:
    """A shard on disk. Its name changes with its content, so that an open one is never outdated."""
    return safe_open(path, "np")
