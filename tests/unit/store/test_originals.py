"""Originals with the change of the model's picture: of every kind that people have."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, ImageCms

from boundaryflow.errors import ManifestError
from boundaryflow.sources import originals
from boundaryflow.sources.colours import srgb_profile
from boundaryflow.sources.encoding import encode
from boundaryflow.sources.images import decode_image
from boundaryflow.sources.originals import read_original
from tests.unit.store.test_images import P3, encoded, profile_of

GEOMETRY = {"size": 32, "channels": 3, "crop": None, "fit": "crop", "background": (255, 255, 255), "levels": None}


def smooth(width: int = 120, height: int = 90, channels: int = 3, top: int = 255) -> NDArray[np.uint16]:
    """[H,W,C] a picture with fine noise."""
    rng = np.random.default_rng(3)
    y, x = np.mgrid[:height, :width]
    base = np.stack([40 + 120 * x / width, 60 + 120 * y / height, 200 - 90 * x / width, 255 - 0 * x], -1)
    pixels = base[:, :, :channels] + rng.normal(0, 6, (height, width, 1)) * (np.arange(channels) < 3)
    return (pixels.clip(0, 255) * (top / 255)).round().astype(np.uint16)


def of_8_bits(channels: int = 3, **size: int) -> Image.Image:
    pixels = smooth(channels=channels, **size).astype(np.uint8)
    return Image.fromarray(pixels[:, :, 0] if channels == 1 else pixels)


def edit(data: bytes, spot: tuple[int, int, int, int] = (12, 12, 18, 18), **changes: object) -> tuple[NDArray, ...]:
    """The original, its edit with a spot painted into the model's picture, and where it may have changed."""
    geometry = {**GEOMETRY, **changes}
    before = torch.from_numpy(decode_image(data, **geometry)[0])  # type: ignore[arg-type]
    after = before.clone()
    left, top, right, bottom = spot
    after[:, top:bottom, left:right] = 255 - after[:, top:bottom, left:right] // 2
    original = read_original(data, geometry)
    result = original.edited(before, after)
    x0, y0, x1, y1 = original.placement.box
    scale_x = (x1 - x0) / (original.placement.part[2] - original.placement.part[0])
    scale_y = (y1 - y0) / (original.placement.part[3] - original.placement.part[1])
    px, py = original.placement.part[:2]
    near = np.zeros(result.shape[:2], bool)
    near[
        max(0, int(y0 + (top - py - 6) * scale_y)) : int(y0 + (bottom - py + 6) * scale_y) + 1,
        max(0, int(x0 + (left - px - 6) * scale_x)) : int(x0 + (right - px + 6) * scale_x) + 1,
    ] = True
    assert not near.all()
    return original.pixels, result, near


@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
@pytest.mark.parametrize("size", [(121, 90), (77, 203), (33, 31), (20, 45)], ids=str)
@pytest.mark.parametrize("crop", [None, (3, 5, 14, 20)], ids=["whole", "box"])
def test_outside_of_the_edit_every_bit_stays(
    fit: str, size: tuple[int, int], crop: tuple[int, int, int, int] | None
) -> None:
    picture = of_8_bits(width=size[0], height=size[1])
    before, after, near = edit(encoded(picture), fit=fit, crop=crop)
    np.testing.assert_array_equal(before, np.asarray(picture))
    np.testing.assert_array_equal(after[~near], before[~near])
    assert (after[near] != before[near]).any()


def test_without_an_edit_nothing_changes_and_strength_0_is_the_file() -> None:
    data = encoded(of_8_bits(), "JPEG")
    before = torch.from_numpy(decode_image(data, **GEOMETRY)[0])  # type: ignore[arg-type]
    original = read_original(data, GEOMETRY)
    np.testing.assert_array_equal(original.edited(before, before), np.asarray(Image.open(io.BytesIO(data))))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_and_the_edit_is_where_it_was_made(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    rows = smooth(150, 60).astype(np.uint8)
    for data in (
        encoded(Image.fromarray(rows), exif=exif),
        with_exif(encode(smooth(150, 60, top=65535), {}), exif.tobytes()),
    ):
        before, after, near = edit(data)
        expected = (150, 60) if orientation < 5 else (60, 150)
        assert before.shape[1::-1] == expected
        np.testing.assert_array_equal(after[~near], before[~near])
        assert (after[near] != before[near]).any()
        upright = decode_image(data, 60, 3, "crop", (255, 255, 255))[0].transpose(1, 2, 0).astype(float)
        middle = before[:, 45:105] if orientation < 5 else before[45:105]
        assert np.abs(upright - middle / (257 if before.dtype == np.uint16 else 1)).max() <= 1


def with_exif(png: bytes, exif: bytes) -> bytes:
    """A PNG with an eXIf chunk before its pixels."""
    small = encoded(Image.new("L", (1, 1)), exif=exif)
    at = small.index(b"eXIf") - 4
    end = at + 12 + struct.unpack(">I", small[at : at + 4])[0]
    return png[:33] + small[at:end] + png[33:]


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_sixteen_bits_stay(channels: int) -> None:
    pixels = smooth(channels=channels, top=65535)
    pixels += np.arange(120, dtype=np.uint16)[None, :, None] % 7  # bits that 8 do not hold
    if channels % 2 == 0:
        pixels[:, :, -1] = 65535
    data = encode(pixels, {"synthetic": "true", "source": "a"})
    before, after, near = edit(data)
    assert before.dtype == after.dtype == np.uint16
    np.testing.assert_array_equal(before, pixels)
    np.testing.assert_array_equal(after[~near], pixels[~near])
    assert (after[near] != pixels[near]).any()
    np.testing.assert_array_equal(read_original(encode(after, {}), GEOMETRY).pixels, after)


def test_twelve_bits_fill_sixteen() -> None:
    pixels = (smooth(channels=1)[:, :, 0] * 16).astype(np.uint16)
    before, after, near = edit(encoded(Image.fromarray(pixels)), levels=(0.0, 4095.0))
    assert np.abs(before[:, :, 0] - pixels / 4095.0 * 65535).max() <= 0.5
    np.testing.assert_array_equal(after[~near], before[~near])


@pytest.mark.parametrize(
    ("mode", "kind", "shape"),
    [("P", "GIF", 3), ("CMYK", "JPEG", 3), ("1", "PNG", 1), ("L", "PNG", 1), ("LA", "PNG", 2), ("RGBA", "WEBP", 4)],
)
def test_every_mode_is_edited(mode: str, kind: str, shape: int) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    picture = of_8_bits().convert(mode)
    if mode == "RGBA":
        picture.putpixel((0, 0), (0, 0, 0, 9))
    before, after, near = edit(encoded(picture, kind, **options))
    assert before.shape[2] == shape
    np.testing.assert_array_equal(after[~near], before[~near])
    assert (after[near] != before[near]).any()


def test_model_of_greys_edits_colours_and_the_other_way_round() -> None:
    before, after, near = edit(encoded(of_8_bits()), channels=1)
    inner = near & (np.abs(after.astype(int) - before).min(2) > 0) & (after.max(2) < 255) & (after.min(2) > 0)
    assert inner.any()
    assert np.ptp(after.astype(int) - before, axis=2)[inner].max() <= 1
    assert edit(encoded(of_8_bits(1)), channels=3)[1].shape[2] == 1


def test_transparent_pixels_stay() -> None:
    picture = of_8_bits(4)
    clear = np.array(picture)
    clear[:, :60, 3] = 0
    before, after, _near = edit(encoded(Image.fromarray(clear)))
    np.testing.assert_array_equal(after[:, :60], before[:, :60])
    np.testing.assert_array_equal(after[:, :, 3], before[:, :, 3])
    assert (after[:, 60:] != before[:, 60:]).any()


def test_colour_space_of_the_file_is_kept_and_the_change_is_made_in_it() -> None:
    profile = profile_of(P3)
    data = encoded(of_8_bits(), icc_profile=profile)
    original = read_original(data, GEOMETRY)
    assert original.profile == profile
    before, after, near = edit(data)
    np.testing.assert_array_equal(before, np.asarray(of_8_bits()))
    np.testing.assert_array_equal(after[~near], before[~near])
    shown, plain = (
        np.asarray(
            ImageCms.profileToProfile(Image.fromarray(pixels), io.BytesIO(profile), ImageCms.createProfile("sRGB"))
        )
        for pixels in (after, before)
    )
    grey = edit(encoded(Image.fromarray(plain)))[1]
    assert np.abs(shown.astype(int) - grey)[near].mean() < 2


def test_profile_is_dropped_where_it_is_broken_and_srgb_where_colours_were_converted() -> None:
    assert read_original(encoded(of_8_bits(), icc_profile=b"nonsense"), GEOMETRY).profile is None
    assert read_original(encoded(of_8_bits()), GEOMETRY).profile is None
    palette = encoded(of_8_bits().convert("P"), icc_profile=profile_of(P3))
    assert read_original(palette, GEOMETRY).profile == srgb_profile()


def test_exif_is_there_without_orientation_and_thumbnail() -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x0110] = 6, "a camera"
    exif.get_ifd(0x8825)[1] = "N"
    written = read_original(encoded(of_8_bits(), "JPEG", exif=exif), GEOMETRY).exif
    assert written is not None
    read = Image.Exif()
    read.load(written)
    assert (read.get(0x0112), read[0x0110], dict(read.get_ifd(0x8825))) == (None, "a camera", {1: "N"})
    assert dict(read.get_ifd(1)) == {}


def test_picture_that_is_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(originals, "MAX_PIXELS", 10_000)
    with pytest.raises(
        ManifestError, match=r"^120 x 90 are more than the 10,000 pixels up to which .*deliver: model\)$"
    ):
        read_original(encoded(of_8_bits()), GEOMETRY)
