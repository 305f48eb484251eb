"""Pictures that commands are given, and contact sheets of what became of them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from boundaryflow.config.places import check_output
from boundaryflow.errors import ManifestError
from boundaryflow.files import write_bytes
from boundaryflow.sources.encoding import encode_png, is_synthetic
from boundaryflow.sources.images import read_image
from boundaryflow.sources.raw import survey
from boundaryflow.sources.walking import path_of
from boundaryflow.text import visible

MAX_SHEET_PIXELS = 50_000_000
_MAX_STEM_BYTES = 160


@dataclass(frozen=True)
class Photo:
    """A picture, brought to the model's size.

    Attributes:
        pixels: [C,H,W] uint8.
        item_id: Name from which its noise is drawn, a hash of the file.
    """

    pixels: Tensor
    item_id: str

    @classmethod
    def read(cls, path: Path, geometry: Mapping[str, Any], command: str) -> Photo:
        """Decode a file, see `decode_image`.

        Raises:
            ManifestError: There is none, or it cannot be used.
        """
        check_file(path, command)
        pixels = torch.from_numpy(read_image(path, **geometry))
        return cls(pixels, hashlib.sha256(path.read_bytes()).hexdigest()[:16])


def check_file(path: Path, command: str) -> None:
    """Refuse a path that is no file.

    Raises:
        ManifestError: There is no file there.
    """
    if not path.is_file():
        raise ManifestError(f"{command} {visible(str(path))}: no such image file; check the path")


def pictures_of(paths: Sequence[Path], command: str) -> list[Path]:
    """The files among the paths, and the pictures in the folders among them and below these, sorted by name.

    Raises:
        ManifestError: A folder has none, or cannot be read.
    """
    found: list[Path] = []
    for path in paths:
        if not path.is_dir():
            found.append(path)
            continue
        inside = [path_of(path, entry.name) for entry in survey(path, what=command) if entry.kind == "picture"]
        if not inside:
            raise ManifestError(f"{command} {visible(str(path))}: no pictures in this folder; name another one")
        found += inside
    return found


def names_of(paths: Sequence[Path]) -> list[str]:
    """A name for each file's results: its stem, shortened and made printable, with a number if it is not unique."""
    names: dict[str, None] = {}
    for path in paths:
        stem = visible(path.stem).encode()[:_MAX_STEM_BYTES].decode(errors="ignore").replace("\\", "_")
        numbered = (f"{stem}-{number}" for number in count(2))
        names[next(name for name in chain([stem], numbered) if name not in names)] = None
    return list(names)


def read_mask(path: Path, geometry: Mapping[str, Any]) -> Tensor:
    """An image that says where pictures may change, cropped and resized as they are.

    Returns:
        [H,W] in [0, 1]: 1 where it is white, 0 where it is black, transparent, or beyond its edge.

    Raises:
        ManifestError: There is no such file, it cannot be used, or it allows no change anywhere.
    """
    check_file(path, "mask")
    pixels = read_image(path, **{**geometry, "channels": 1, "background": (0, 0, 0), "levels": None})
    mask = torch.from_numpy(pixels)[0].float() / 255
    if not bool(mask.any()):
        raise ManifestError(f"mask {visible(str(path))}: is black all over; paint white what may change")
    return mask


class Sheet:
    """A contact sheet, a row for each picture; without a file it does nothing.

    Args:
        command: For messages.
        path: The file.
        num_rows: Number of pictures.
        num_columns: Number of images in a row.
        size: Side of an image in pixels.

    Raises:
        ManifestError: It would be too large, its folder cannot be used, or it would replace a file that this project
            did not write.
    """

    def __init__(self, command: str, path: Path | None, num_rows: int, num_columns: int, size: int) -> None:
        self._path, self._rows = path, list[Tensor]()
        self._columns = num_columns
        if path is None:
            return
        if num_rows * num_columns * size**2 > MAX_SHEET_PIXELS:
            raise ManifestError(
                f"{command} --grid: {num_rows:,} rows of {num_columns} images of {size} pixels are more than "
                f"{MAX_SHEET_PIXELS:,} pixels; name fewer pictures or strengths"
            )
        check_output(path.parent, f"{command} --grid")
        if path.suffix.lower() != ".png":
            raise ManifestError(f"{command} --grid {visible(path.name)}: must end in .png")
        if path.exists() and not (path.is_file() and is_synthetic(path.read_bytes())):
            raise ManifestError(f"{command} {path}: exists, and is not a picture of ours; choose another --grid")

    def add(self, images: Tensor) -> None:
        """Add a row, [num_columns,C,H,W] uint8."""
        if self._path is not None:
            self._rows.append(images)

    def write(self, facts: Mapping[str, str]) -> list[Path]:
        """Write the file, with facts in its text chunks; returns its path, if there is one."""
        if self._path is None:
            return []
        sheet = tile(torch.cat(self._rows), self._columns)
        write_bytes(self._path, encode_png(sheet, {"synthetic": "true", **facts}))
        return [self._path]


def tile(pictures: Tensor, num_columns: int) -> Tensor:
    """One [C,H,W] picture of [N,C,H,W] ones, row by row; missing places stay black."""
    columns = min(num_columns, len(pictures))
    missing = -len(pictures) % columns
    padded = torch.cat([pictures, pictures.new_zeros((missing, *pictures.shape[1:]))])
    rows = [torch.cat(list(padded[start : start + columns]), dim=2) for start in range(0, len(padded), columns)]
    return torch.cat(rows, dim=1)
