"""Digits as they are unpacked: those that the denoiser was trained on, to the pixel."""

from __future__ import annotations

import csv
import io
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from boundaryflow.sources.images import decode_image
from training.digits.train import load_split
from training.digits.unpack import main, stroke_width


def bar(left: int, width: int) -> NDArray[np.uint8]:
    """A 28 x 28 picture of one upright stroke that touches the upper edge."""
    pixels = np.zeros((28, 28), np.uint8)
    pixels[:20, left : left + width] = 255
    return pixels


@pytest.fixture
def archives(tmp_path: Path) -> Path:
    folder = tmp_path / "mnist"
    folder.mkdir()
    with tarfile.open(folder / "test.tar.gz", "w:gz") as tar:
        for index, (digit, width) in enumerate([(4, 2), (9, 4), (7, 3), (4, 3), (9, 2), (4, 4)]):
            buffer = io.BytesIO()
            Image.fromarray(bar(index, width)).save(buffer, "PNG")
            member = tarfile.TarInfo(f"test/{digit}/{index}.png")
            member.size = len(buffer.getvalue())
            tar.addfile(member, io.BytesIO(buffer.getvalue()))
    return folder


def test_unpacked_digits_are_what_the_networks_were_trained_on(
    archives: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    monkeypatch.setattr(sys, "argv", ["unpack", str(archives), "--num", "4", "--out", str(out)])
    main()
    assert sorted(p.name for p in out.iterdir()) == ["4-0.png", "4-3.png", "9-1.png", "9-4.png", "labels.csv"]
    trained_on = load_split(archives, "test", tmp_path / "cache")
    for index, name in ((0, "4-0.png"), (1, "9-1.png"), (3, "4-3.png"), (4, "9-4.png")):
        pixels, about = decode_image((out / name).read_bytes(), 32, 1, "pad", (0, 0, 0))
        assert (about["width_px"], about["height_px"], about["mode"]) == (32, 32, "L")
        np.testing.assert_array_equal(pixels[0], trained_on["images"][index])
    with (out / "labels.csv").open() as file:
        rows = {row["file"]: row for row in csv.DictReader(file)}
    assert [rows[name]["digit"] for name in sorted(rows)] == ["4", "4", "9", "9"]
    assert float(rows["9-1.png"]["stroke"]) == pytest.approx(stroke_width(bar(1, 4)), abs=1e-3)
