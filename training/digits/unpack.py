"""Unpack MNIST as single PNG files into data/raw/digits, with a table of labels.

    python -m training.digits.unpack FOLDER [--num 1600] [--split train]

FOLDER holds train.tar.gz and test.tar.gz in ImageFolder layout (rasbt/mnist-pngs on GitHub). Digits
of 28 x 28 are set into 32 x 32, as those that the denoiser and the judge were trained on.
"""

from __future__ import annotations

import argparse
import csv
import io
import sys
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import distance_transform_edt

MARGIN_PX = 2


def with_margin(pixels: NDArray[np.uint8]) -> bytes:
    """A PNG file of a digit with black around it.

    Args:
        pixels: [H,W], ink is bright.
    """
    buffer = io.BytesIO()
    Image.fromarray(np.pad(pixels, MARGIN_PX)).save(buffer, "PNG")
    return buffer.getvalue()


def stroke_width(pixels: NDArray[np.uint8]) -> float:
    """Mean width of the pen in pixels.

    In a straight stroke of width w the distance to its edge is w / 4 on average. The picture is
    enlarged four times first, so the mean distance there is the width.

    Args:
        pixels: [H,W], ink is bright.
    """
    size = (pixels.shape[1] * 4, pixels.shape[0] * 4)
    ink = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)) > 127
    return float(distance_transform_edt(ink)[ink].mean()) if ink.any() else 0.0


def digits_in(archive: Path, wanted: Sequence[int]) -> Iterator[tuple[str, int, bytes]]:
    """(file name, digit, bytes) of the pictures of some digits, in the archive's order."""
    with tarfile.open(archive) as tar:
        for member in tar:
            place = PurePosixPath(member.name)
            if member.isfile() and place.suffix == ".png" and int(place.parent.name) in wanted:
                file = tar.extractfile(member)
                if file is not None:
                    yield f"{place.parent.name}-{place.name}", int(place.parent.name), file.read()


def main() -> None:
    """Unpack an equal number of each digit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder with train.tar.gz and test.tar.gz")
    parser.add_argument("--num", type=int, default=1600, help="pictures in all")
    parser.add_argument("--digits", type=int, nargs="+", default=[4, 9], help="which digits")
    parser.add_argument("--split", choices=["train", "test"], default="test", help="test: not seen by the denoiser")
    parser.add_argument("--out", type=Path, default=Path("data/raw/digits"))
    args = parser.parse_args()
    archive = args.folder / f"{args.split}.tar.gz"
    if not archive.is_file():
        sys.exit(f"unpack: {archive} does not exist; give the folder that holds {archive.name}")
    args.out.mkdir(parents=True, exist_ok=True)
    left = dict.fromkeys(args.digits, args.num // len(args.digits))
    rows: list[tuple[str, int, str]] = []
    for name, digit, data in digits_in(archive, args.digits):
        if left[digit] > 0:
            left[digit] -= 1
            pixels = np.asarray(Image.open(io.BytesIO(data)).convert("L"))
            (args.out / name).write_bytes(with_margin(pixels))
            rows.append((name, digit, f"{stroke_width(pixels):.3f}"))
    with (args.out / "labels.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("file", "digit", "stroke"))
        writer.writerows(sorted(rows))
    widths = np.array([float(row[2]) for row in rows])
    thirds = np.percentile(widths, [33, 67])
    print(f"{len(rows)} digits in {args.out}")
    print(f"strokes: a third under {thirds[0]:.2f} px, a third over {thirds[1]:.2f} px")


if __name__ == "__main__":
    main()
