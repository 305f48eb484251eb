"""Memory for one picture, and for all that are decoded at once."""

from __future__ import annotations

import contextlib
import io
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from boundaryflow.sources import decoding as decoding
from boundaryflow.sources import images
from boundaryflow.sources.images import MAX_DECODED_BYTES, bytes_per_pixel, decode_image, open_picture
from boundaryflow.sources.images import _Budget as Budget  # pyright: ignore[reportPrivateUsage]
from tests.hostile.corpus_pictures import plain_scans

SIDE = 2400
STRIPS = 48 * 2**20
"""What is taken whatever the size of a picture: the strip that is being converted, in several forms."""


def smooth(mode: str) -> Image.Image:
    ramp = np.add.outer(np.arange(SIDE), np.arange(SIDE)).astype(np.uint8)
    picture = Image.fromarray(np.stack([ramp, ramp.T, 255 - ramp], -1))
    if mode == "I;16":
        return Image.fromarray(ramp.astype(np.uint16) * 257)
    if mode == "RGBA":
        picture.putalpha(128)
    return picture.convert(mode)


def turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


def peak(decode: Any) -> int:
    """Bytes by which the memory of this process grew at most."""
    Path("/proc/self/clear_refs").write_text("5")
    before = memory("VmRSS")
    decode()
    return memory("VmHWM") - before


def memory(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    ("mode", "kind", "options"),
    [
        ("I;16", "PNG", {}),
        ("RGBA", "PNG", {"exif": turned()}),
        ("P", "PNG", {"transparency": 3}),
        ("L", "PNG", {}),
        ("CMYK", "JPEG", {"progressive": True, "exif": turned()}),
        ("CMYK", "JPEG", {"exif": turned()}),
        ("RGB", "PNG", {"icc_profile": ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()}),
        ("RGBA", "WEBP", {"lossless": True, "method": 0, "quality": 0}),
        ("RGBA", "TIFF", {"compression": "tiff_lzw", "tiffinfo": {278: SIDE}, "exif": turned()}),
        ("RGBA", "AVIF", {"speed": 10, "subsampling": "4:4:4"}),
        ("RGBA", "JPEG2000", {}),
    ],
)
def test_decoding_takes_no_more_than_is_stated(mode: str, kind: str, options: dict[str, Any]) -> None:
    buffer = io.BytesIO()
    smooth(mode).save(buffer, kind, compress_level=1, **options)
    data = buffer.getvalue()
    with open_picture(data) as picture:
        stated = picture.width * picture.height * bytes_per_pixel(picture, data)
    for crop in (None, (0, 0, SIDE - 1, SIDE - 1)) if kind in ("PNG", "JPEG") else (None,):
        assert peak(lambda crop=crop: decode_image(data, 64, 3, "stretch", (0, 0, 0), crop)) < stated + STRIPS


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_baseline_jpeg_in_several_scans_takes_no_more_than_is_stated() -> None:
    data = plain_scans(3, 2 * SIDE, turned())
    with open_picture(data) as picture:
        stated = picture.width * picture.height * bytes_per_pixel(picture, data)
    crop = (0, 0, 2 * SIDE - 1, 2 * SIDE - 1)
    assert peak(lambda: decode_image(data, 64, 3, "stretch", (0, 0, 0), crop)) < stated + STRIPS


def test_reduced_picture_in_several_scans_borrows_for_all_that_libjpeg_keeps(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    budget = Budget(10**9)
    monkeypatch.setattr(images, "DECODING", budget)
    monkeypatch.setattr(budget, "lent", lambda num: asked.append(num) or contextlib.nullcontext())
    decode_image(plain_scans(3, SIDE), 64, 3, "stretch", (0, 0, 0))
    assert asked == [SIDE * SIDE * 12]


def test_no_picture_is_allowed_more_than_there_is() -> None:
    assert MAX_DECODED_BYTES <= 1_600_000_000


def test_memory_is_shared_by_all_threads() -> None:
    budget, lock = Budget(10), threading.Lock()
    taken: list[int] = []

    def take(num: int) -> int:
        with budget.lent(num):
            with lock:
                taken.append(num)
                now = sum(taken)
            time.sleep(0.005)
            with lock:
                taken.remove(num)
        return now

    with ThreadPoolExecutor(8) as pool:
        assert max(pool.map(take, [1, 6, 9, 2, 10, 3, 4, 7] * 4)) <= 10


def test_files_that_are_read_ahead_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "_BYTES_AT_ONCE", 250)
    read: list[str] = []

    class Raw:
        refused: dict[str, str] = {}
        names = [f"{i}" for i in range(20)]

        def is_in_order(self, name: str) -> bool:
            return True

        def read(self, name: str) -> bytes:
            read.append(name)
            return bytes(100)

    raw = Raw()
    verdicts = decoding.decode_all(
        raw, raw.names, {}, {"size": 8, "channels": 1, "fit": "pad", "background": (0, 0, 0)}, 2
    )
    ahead = [len(read) - done for done, _ in enumerate(verdicts)]
    assert len(ahead) == 20
    assert max(ahead) == 3
