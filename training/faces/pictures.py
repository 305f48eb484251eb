"""CelebA's first 10,000 pictures with their attributes, and how they are split.

CelebA (Liu et al. 2015) is for non-commercial research. Its pictures are not part of this repository.
"""

from __future__ import annotations

import io
import tarfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

CROP = (12, 28, 76, 92)
"""left, top, right, bottom of 89 x 109: the box of the DDIM authors' CelebA-64, at half the size."""
NUM_TRAIN = 8500
"""Pictures 000001 to 008500 are trained on; nothing here is fitted to the others."""


@dataclass(frozen=True)
class CelebA:
    """The pictures.

    Attributes:
        pixels: [N,3,64,64] uint8.
        attributes: [N,40] bool.
        names: Of the attributes.
    """

    pixels: NDArray[np.uint8]
    attributes: NDArray[np.bool_]
    names: tuple[str, ...]


def read_celeba(folder: Path) -> CelebA:
    """Read `img_align_89x109.tar` and `list_attr_celeba.txt` of a folder, in the order of the pictures' numbers."""
    lines = (folder / "list_attr_celeba.txt").read_text(encoding="utf-8").splitlines()
    rows = {line.split()[0]: [value == "1" for value in line.split()[1:]] for line in lines[2:]}
    pixels: dict[str, NDArray[np.uint8]] = {}
    for name, data in pictures_of(folder):
        pixels[name] = np.asarray(Image.open(io.BytesIO(data)).convert("RGB").crop(CROP)).transpose(2, 0, 1)
    order = sorted(pixels)
    return CelebA(
        np.stack([pixels[name] for name in order]),
        np.array([rows[name] for name in order]),
        tuple(lines[1].split()),
    )


def pictures_of(folder: Path) -> list[tuple[str, bytes]]:
    """Names and JPEG files of the archive."""
    found: list[tuple[str, bytes]] = []
    with tarfile.open(folder / "img_align_89x109.tar") as archive:
        for member in archive:
            file = archive.extractfile(member) if member.name.endswith(".jpg") else None
            if file is not None:
                found.append((Path(member.name).name, file.read()))
    return found


def halves() -> dict[str, NDArray[np.int64]]:
    """Rows that the labeller is trained on, and those of the judge: disjoint halves of what is trained on."""
    order = np.random.default_rng(7).permutation(NUM_TRAIN)
    return {"labeller": order[: NUM_TRAIN // 2], "judge": order[NUM_TRAIN // 2 :]}
