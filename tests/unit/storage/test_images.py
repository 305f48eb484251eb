"""Image files of every kind people have, and what cannot be used."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image

from boundaryflow.errors import ManifestError
from boundaryflow.storage.images import decode_image, encode_png, to_model_range, to_u8

WHITE = (255, 255, 255)


def encoded(picture: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def two_halves(mode: str = "RGB", size: tuple[int, int] = (40, 40)) -> Image.Image:
    """Left half red, right half blue."""
    picture = Image.new("RGB", size, (255, 0, 0))
    picture.paste((0, 0, 255), (size[0] // 2, 0, size[0], size[1]))
    return picture.convert(mode)


@pytest.mark.parametrize(
    ("mode", "kind"),
    [
        ("RGB", "PNG"),
        ("RGB", "JPEG"),
        ("RGB", "WEBP"),
        ("RGB", "BMP"),
        ("RGB", "TIFF"),
        ("P", "GIF"),
        ("CMYK", "JPEG"),
        ("RGBA", "PNG"),
    ],
)
def test_every_format_gives_the_same_picture(mode: str, kind: str) -> None:
    pixels, about = decode_image(encoded(two_halves(mode), kind), 16, 3, "crop", WHITE)
    assert pixels.shape == (3, 16, 16)
    assert pixels.dtype == np.uint8
    assert pixels[0, 8, 2] > 180 > 80 > pixels[2, 8, 2]
    assert pixels[2, 8, 13] > 180 > 80 > pixels[0, 8, 13]
    assert (about["width_px"], about["height_px"], about["format"]) == (40, 40, kind)


def test_sixteen_bit_greyscale_keeps_its_range() -> None:
    ramp = np.linspace(0, 65535, 32, dtype=np.uint16)[None].repeat(32, 0)
    pixels, _ = decode_image(encoded(Image.fromarray(ramp)), 32, 1, "crop", WHITE)
    assert pixels[0, 0, 0] == 0
    assert pixels[0, 0, -1] == 255
    assert abs(int(pixels[0, 0, 16]) - 131) < 4


def test_exif_rotation_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to view: left comes to the top
    pixels, _ = decode_image(encoded(two_halves(), "JPEG", exif=exif, quality=95), 16, 3, "crop", WHITE)
    assert pixels[0, 2, 8] > 180
    assert pixels[2, 13, 8] > 180


def test_transparency_shows_the_background() -> None:
    clear = Image.new("RGBA", (10, 10), (255, 0, 0, 0))
    pixels, _ = decode_image(encoded(clear), 8, 3, "crop", (0, 200, 0))
    assert pixels[:, 4, 4].tolist() == [0, 200, 0]


def test_fit_decides_what_becomes_of_a_wide_picture() -> None:
    wide = encoded(two_halves(size=(80, 40)))
    assert decode_image(wide, 16, 3, "pad", WHITE)[0][:, 0, 0].tolist() == [255, 255, 255]
    assert decode_image(wide, 16, 3, "crop", WHITE)[0][0, 0, 0] > 200
    assert decode_image(wide, 16, 3, "stretch", WHITE)[0][0, 0, 0] > 200


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "the file is empty"),
        (b"hello, I am a text", "not an image"),
        (encoded(two_halves(size=(200, 200)), "JPEG")[:900], "damaged"),
        (encoded(two_halves(size=(200, 200)), "PNG")[:-60], "damaged"),
        (encoded(Image.new("1", (30_000, 8_000)), "PNG"), "more than 200,000,000 pixels"),
        (encoded(Image.new("L", (30_000, 30)), "PNG"), "30000 x 30 is longer than 8 times its width"),
    ],
)
def test_unusable_file_gives_its_reason(data: bytes, reason: str) -> None:
    with pytest.raises(ManifestError, match=reason):
        decode_image(data, 16, 3, "crop", WHITE)


def test_large_picture_is_reduced() -> None:
    pixels, about = decode_image(encoded(Image.new("L", (30_000, 4_000), 90), "JPEG"), 16, 1, "stretch", WHITE)
    assert about["width_px"] == 30_000
    assert abs(int(pixels[0, 8, 8]) - 90) < 3


@pytest.mark.parametrize("value_range", [(-1.0, 1.0), (0.0, 1.0), (-0.5, 0.5)])
def test_pixels_survive_the_way_to_the_model_and_back(value_range: tuple[float, float]) -> None:
    pixels = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    there = to_model_range(pixels, value_range)
    assert (there.min(), there.max()) == value_range
    torch.testing.assert_close(to_u8(there, value_range), pixels)
    assert to_u8(torch.full((1, 1, 1, 1), 9.0), value_range).item() == 255


def test_png_carries_its_facts() -> None:
    data = encode_png(torch.zeros(3, 4, 4, dtype=torch.uint8), {"synthetic": "true"})
    assert Image.open(io.BytesIO(data)).text["synthetic"] == "true"  # type: ignore[attr-defined]
    assert data == encode_png(torch.zeros(3, 4, 4, dtype=torch.uint8), {"synthetic": "true"})


def test_crop_is_cut_out_before_fit() -> None:
    ramp = Image.fromarray(np.arange(60 * 40, dtype=np.uint32).reshape(40, 60).astype(np.uint8))
    pixels, about = decode_image(encoded(ramp), 16, 1, "crop", WHITE, (5, 7, 16, 16))
    np.testing.assert_array_equal(pixels[0], np.asarray(ramp)[7:23, 5:21])
    assert (about["width_px"], about["height_px"]) == (60, 40)


def test_crop_of_a_large_jpeg_is_in_its_own_pixels() -> None:
    picture = Image.new("L", (2000, 2000), 0)
    picture.paste(255, (1000, 1000, 1064, 1064))
    pixels, _ = decode_image(encoded(picture, "JPEG", quality=95), 16, 1, "crop", WHITE, (1000, 1000, 64, 64))
    assert pixels.min() > 240


def test_picture_smaller_than_the_crop_is_refused() -> None:
    with pytest.raises(ManifestError, match="^20 x 30 is smaller than the crop box, 16 x 16 from 5, 0$"):
        decode_image(encoded(Image.new("L", (20, 30))), 16, 1, "crop", WHITE, (5, 0, 16, 16))


def test_long_picture_may_be_cropped() -> None:
    pixels, _ = decode_image(encoded(Image.new("L", (900, 20), 9)), 16, 1, "crop", WHITE, (5, 0, 16, 16))
    assert pixels.max() == 9
