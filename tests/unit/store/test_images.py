"""Image files of every kind people have, and what cannot be used."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

from boundaryflow.errors import ManifestError, PipelineError
from boundaryflow.pixels import to_model_range, to_u8
from boundaryflow.sources.encoding import encode_png
from boundaryflow.sources.images import decode_image, read_image
from tests.hostile.corpus_pictures import CASES, deep_png, float_tiff, grey_png, tiff

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
        (b"hello, I am a text", r"^not an image that can be read \(a format of JPEG, PNG, WEBP, GIF, BMP, TIFF, PPM"),
        (encoded(two_halves(size=(200, 200)), "JPEG")[:900], "damaged"),
        (encoded(two_halves(size=(200, 200)), "PNG")[:-60], "damaged"),
        (encoded(Image.new("1", (30_000, 8_000)), "PNG"), "more than 200,000,000 pixels"),
        (encoded(Image.new("L", (30_000, 30)), "PNG"), "30000 x 30 is longer than 8 times its width"),
        (encoded(Image.new("L", (30_000, 4_000)), "TIFF"), "more than 100,000,000 pixels"),
    ],
)
def test_unusable_file_gives_its_reason(data: bytes, reason: str) -> None:
    with pytest.raises(ManifestError, match=reason):
        decode_image(data, 16, 3, "crop", WHITE)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        *((name, "not an image that can be read") for name in ("eps.jpg", "ico.png", "tga.png", "iptc.jpg", "psd.png")),
        ("huge.png", "60000 x 60000 are more than 200,000,000 pixels; make it smaller"),
        ("ztxt.png", r"damaged \(Decompressed data too large"),
        ("iccp.png", r"damaged \(Decompressed data too large"),
        ("tile.tif", "16 x 16 in tiles of 50000 x 50000; save it again"),
        ("wide.tif", "2147483647 x 2147483647 are more than 100,000,000 pixels"),
        ("scans.jpg", "12000 x 8000 in 406 scans; save it again"),
        ("plain scans.jpg", "8000 x 8000 in 300 scans; save it again"),
        ("wide scans.jpg", "14100 x 14100 are more than 133,333,333 pixels; make it smaller"),
        ("small scans.jpg", "16 x 16 in 1,001 scans; save it again"),
        ("chunks.png", "has more than 100,000 chunks; save it again"),
        ("deep key.png", r"16 bits and a transparent colour \(tRNS\), which are not read together; save it with alpha"),
        ("lying.jp2", r"damaged \(16 x 16 by its header, but 30000 x 30000\)"),
        ("big.webp", "damaged"),
        ("big.gif", "65535 x 65535 are more than 200,000,000 pixels"),
        ("big.ppm", "1000000 x 1000000 are more than 133,333,333 pixels"),
        ("sparse photo.png", "42,949,672,960 bytes, more than the 268,435,456 that are read"),
        ("fifo", "a FIFO, not a regular file"),
    ],
)
def test_picture_made_to_do_harm_is_refused_by_its_header(tmp_path: Path, name: str, reason: str) -> None:
    path = CASES[name](tmp_path)
    with pytest.raises(ManifestError, match=rf"^image .*: {reason}"):
        read_image(path, size=16, channels=3, fit="pad", background=WHITE)


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_large_baseline_picture_in_one_scan_is_read_although_its_thumbnail_has_another(mode: str) -> None:
    exif = Image.Exif()
    exif[0x010E] = encoded(Image.new("RGB", (8, 8)), "JPEG")
    data = encoded(Image.new(mode, (10_500, 10_000)), "JPEG", exif=exif)
    assert data.count(b"\xff\xda") == 2
    assert decode_image(data + b"\xff\xda" * 2000, 16, 1, "crop", WHITE)[1]["width_px"] == 10_500


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_see_through_grey_is_so_at_every_depth(depth: int) -> None:
    for key, shown in ((1, 200), (0, 255 // (2**depth - 1))):
        assert set(decode_image(grey_png(depth, 1, key=key), 16, 1, "crop", (200,) * 3)[0].flat) == {shown}


@pytest.mark.parametrize(
    ("bits", "tag_262", "value", "levels", "shown"),
    [
        (16, 1, 65535, None, 255),
        (16, 0, 65535, None, 0),
        (16, 0, 0, None, 255),
        (16, 0, 100, (0, 400), 191),
        (8, 0, 255, None, 0),
        (12, 1, 4095, None, 255),
        (12, 1, 2048, None, 128),
        (12, 1, 2048, (0, 65535), 8),
    ],
)
def test_tiff_says_how_many_bits_it_has_and_which_end_is_white(
    bits: int, tag_262: int, value: int, levels: tuple[float, float] | None, shown: int
) -> None:
    two = value << 12 | value
    strip = two.to_bytes(3, "big") * 128 if bits == 12 else value.to_bytes(bits // 8, "little") * 256
    data = tiff(16, 16, {258: bits, 262: tag_262}, strip)
    assert set(decode_image(data, 16, 1, "crop", WHITE, levels=levels)[0].flat) == {shown}


def test_decoder_that_gives_another_size_than_the_header_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(picture: Image.Image) -> None:
        picture.im = Image.new("RGB", (4000, 4000)).im

    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", load)
    with pytest.raises(ManifestError, match=r"^damaged \(40 x 40 by its header, but 4000 x 4000\)$"):
        decode_image(encoded(two_halves()), 16, 3, "crop", WHITE)


@pytest.mark.parametrize(
    ("data", "levels", "brightest"),
    [
        (deep_png(65535), None, 255),
        (deep_png(200), None, 1),  # dark, as the pictures beside it are scaled
        (deep_png(4095), None, 16),
        (deep_png(4095), (0, 4095), 255),
        (deep_png(200), (0, 400), 128),
        (deep_png(65535), (0, 255), 255),
        (float_tiff(), (0.0, 1.0), 255),
        (float_tiff(), (0.5, 1.5), 128),
        (encoded(Image.fromarray(np.full((16, 16), 70_000, np.int32)), "TIFF"), (0, 70_000), 255),
        (b"P5 16 16 65535\n" + b"\xff\xff" * 256, None, 255),
        (encoded(Image.new("L", (16, 16), 100)), (0, 4095), 100),  # 8 bits stay as they are
    ],
)
def test_levels_are_one_rule_for_all_pictures(data: bytes, levels: tuple[float, float] | None, brightest: int) -> None:
    assert decode_image(data, 16, 1, "crop", WHITE, levels=levels)[0].max() == brightest


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_float_picture_with_a_value_that_is_no_number_is_refused(value: float) -> None:
    with pytest.raises(ManifestError, match="^has values that are NaN or infinite$"):
        decode_image(float_tiff(value), 16, 1, "crop", WHITE, levels=(0.0, 1.0))


def test_picture_of_unknown_range_names_the_key() -> None:
    for data in (float_tiff(), encoded(Image.fromarray(np.full((16, 16), 9, np.int32)), "TIFF")):
        with pytest.raises(ManifestError, match=r"state the values of black and white in ingest\.levels$"):
            decode_image(data, 16, 1, "crop", WHITE)


P3 = ((0.51512, 0.29198, 0.15710), (0.24120, 0.69225, 0.06657), (-0.00105, 0.04189, 0.78407))
SRGB = ((0.43607, 0.38515, 0.14307), (0.22249, 0.71687, 0.06061), (0.01392, 0.09708, 0.71410))
"""Red, green and blue in XYZ of D50, in columns."""


def profile_of(primaries: tuple[tuple[float, ...], ...]) -> bytes:
    """An ICC profile of these primaries with gamma 2.2."""

    def xyz(values: tuple[float, ...]) -> bytes:
        return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(value * 65536) for value in values))

    curve = b"curv\0\0\0\0" + struct.pack(">IHH", 1, round(2.2 * 256), 0)
    columns = [tuple(row[i] for row in primaries) for i in range(3)]
    tags = {b"wtpt": xyz((0.9642, 1.0, 0.8249))}
    for name, column in zip((b"r", b"g", b"b"), columns, strict=True):
        tags |= {name + b"XYZ": xyz(column), name + b"TRC": curve}
    at, table, body = 128 + 4 + 12 * len(tags), b"", b""
    for name, data in tags.items():
        table += name + struct.pack(">II", at + len(body), len(data))
        body += data
    head = struct.pack(">II", at + len(body), 0) + b"\x02\x10\0\0mntrRGB XYZ " + bytes(12) + b"acsp" + bytes(28)
    head += struct.pack(">3i", 63190, 65536, 54061)
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_embedded_profile_is_converted_to_srgb(mode: str) -> None:
    colours = np.array([[200, 100, 50], [128, 128, 128], [30, 160, 90]], np.uint8)
    picture = Image.fromarray(np.repeat(np.repeat(colours[None], 3, 0), 1, 1)).convert("RGB")
    picture = picture.quantize(3) if mode == "P" else picture.convert(mode)
    pixels, _ = decode_image(encoded(picture, icc_profile=profile_of(P3)), 3, 3, "crop", WHITE)
    linear = np.linalg.inv(SRGB) @ P3 @ ((colours / 255) ** 2.2).T
    expected = np.where(linear > 0.0031308, 1.055 * np.clip(linear, 0, 1) ** (1 / 2.4) - 0.055, 12.92 * linear)
    np.testing.assert_allclose(pixels[:, 0], expected.clip(0, 1) * 255, atol=2.5)
    assert np.abs(pixels[:, 0, 0].astype(int) - colours[0]).max() > 5


@pytest.mark.parametrize(
    "profile",
    [ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(), b"no profile" * 50, profile_of(P3)[:200]],
    ids=["srgb", "text", "cut off"],
)
def test_profile_of_srgb_or_broken_changes_nothing(profile: bytes) -> None:
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8))
    plain, _ = decode_image(encoded(picture), 16, 3, "crop", WHITE)
    np.testing.assert_array_equal(decode_image(encoded(picture, icc_profile=profile), 16, 3, "crop", WHITE)[0], plain)


@pytest.mark.parametrize("fit", ["pad", "stretch"])
@pytest.mark.parametrize("size", [(900, 100), (100, 900), (5000, 1)])
def test_long_picture_is_used_unless_it_is_cropped(fit: str, size: tuple[int, int]) -> None:
    pixels, _ = decode_image(encoded(Image.new("L", size, 90)), 16, 1, fit, WHITE)  # type: ignore[arg-type]
    assert pixels.min() == 90


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


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_picture_of_a_model_that_is_no_number_is_refused(value: float) -> None:
    x_0 = torch.zeros(1, 3, 4, 4)
    x_0[0, 1, 2, 3] = value
    with pytest.raises(PipelineError, match="^a picture of the model has NaN or infinite values; check"):
        to_u8(x_0)


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
