"""Images go into the model and come back as what they were; what does not fit is refused in one line."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from boundaryflow.api.boundary import plain_geometry
from boundaryflow.api.images import read_images, read_masks
from boundaryflow.errors import ManifestError
from tests.unit.gaussian import GaussianModel

MODEL = GaussianModel(size=16)
SIZE = MODEL.image_size
GEOMETRY = plain_geometry(MODEL)
_RNG = np.random.default_rng(0)
U8 = _RNG.integers(0, 256, (2, SIZE, SIZE, 3), np.uint8)
FORMS: dict[str, Any] = {
    "picture": Image.fromarray(U8[0]),
    "pictures": [Image.fromarray(pixels) for pixels in U8],
    "array": U8,
    "array_of_one": U8[0],
    "array_read_only": np.asarray(Image.fromarray(U8[0])),
    "floats": U8 / 255,
    "floats32": (U8[0] / 255).astype(np.float32),
    "half": (U8 / 255).astype(np.float16),
    "tensor": torch.from_numpy(U8).permute(0, 3, 1, 2),
    "tensor_of_one": torch.from_numpy(U8[0]).permute(2, 0, 1),
    "tensor_of_floats": torch.from_numpy(U8 / 255).permute(0, 3, 1, 2),
    "tensor_of_bfloat16": torch.from_numpy(U8 / 255).permute(0, 3, 1, 2).bfloat16(),
}


def _pixels(images: Any) -> np.ndarray:
    if isinstance(images, list):
        return np.stack([np.asarray(picture) for picture in images])
    return images.double().numpy() if isinstance(images, torch.Tensor) else np.asarray(images)


@pytest.mark.parametrize("name", sorted(FORMS))
def test_images_that_are_not_changed_come_back_bit_for_bit(name: str) -> None:
    images = FORMS[name]
    given = read_images(images, MODEL, GEOMETRY)
    assert given.x_0.shape[1:] == (3, SIZE, SIZE)
    assert given.x_0.dtype == torch.float32
    back = given.back(given.x_0.clone())
    assert type(back) is type(images) or isinstance(images, Image.Image)
    if not isinstance(images, Image.Image | list):
        assert (back.dtype, back.shape) == (images.dtype, images.shape)
    np.testing.assert_array_equal(_pixels(back), _pixels(images))


@pytest.mark.parametrize("name", sorted(FORMS))
def test_every_form_is_the_same_image_and_changes_alike(name: str) -> None:
    given, plain = read_images(FORMS[name], MODEL, GEOMETRY), read_images(U8, MODEL, GEOMETRY)
    num = len(given.ids)
    rounding = 2e-2 if name in ("half", "tensor_of_bfloat16") else 1e-6
    torch.testing.assert_close(given.x_0, plain.x_0[:num], atol=rounding, rtol=0)
    edited = _pixels(given.back(given.x_0 + 0.5))
    scale = 1 if edited.max() > 1 else 255
    wanted = (U8[:num].astype(float) + 0.25 * 255).clip(0, 255)
    wanted = np.moveaxis(wanted, -1, 1) if name.startswith("tensor") else wanted
    np.testing.assert_allclose(edited * scale, wanted.reshape(edited.shape), atol=max(1, 255 * rounding))


def test_ids_are_of_the_pixels_and_not_of_the_batch() -> None:
    both, first = read_images(U8, MODEL, GEOMETRY).ids, read_images(U8[0], MODEL, GEOMETRY).ids
    assert both[0] == first[0] != both[1]
    assert (
        read_images(Image.fromarray(U8[0]), MODEL, GEOMETRY).ids
        == read_images(torch.from_numpy(U8[0]).permute(2, 0, 1), MODEL, GEOMETRY).ids
    )


def test_picture_is_turned_upright_cropped_and_put_on_the_background() -> None:
    wide = Image.new("RGBA", (3 * SIZE, SIZE), (255, 0, 0, 0))
    assert read_images(wide, MODEL, GEOMETRY).x_0.min() == 1.0  # transparent: the white behind it
    tall = Image.fromarray(np.repeat(U8[0], 2, axis=0))
    exif = Image.Exif()
    exif[274] = 6  # turn clockwise
    buffer = io.BytesIO()
    tall.save(buffer, "PNG", exif=exif)
    turned = read_images(Image.open(buffer), MODEL, GEOMETRY).x_0
    torch.testing.assert_close(turned, read_images(tall.rotate(-90, expand=True), MODEL, GEOMETRY).x_0)
    cmyk = read_images(Image.new("CMYK", (SIZE, SIZE), (0, 255, 255, 0)), MODEL, GEOMETRY).x_0
    assert cmyk[0, 0].mean() > cmyk[0, 1:].max()  # red


@pytest.mark.parametrize(
    ("images", "reason"),
    [
        (U8.astype(np.int64), "of dtype int64, must be uint8"),
        (U8.astype(np.uint16), "of dtype uint16"),
        ((U8 / 255).astype(">f4"), "of dtype >f4"),
        (torch.zeros(3, SIZE, SIZE, dtype=torch.int32), "of dtype int32"),
        (U8 / 1.0, r"floats from 0 to 2\d\d, must be in \[0, 1\]"),
        (-(U8 / 255), r"floats from -\S* to -?0, must be in"),
        (np.full((SIZE, SIZE, 3), np.nan), "floats from nan to nan"),
        (np.zeros((8, 8, 3), np.uint8), f"of 3 x 8 x 8 .*must be of 3 x {SIZE} x {SIZE}"),
        (np.zeros((SIZE, SIZE), np.uint8), f"of 1 x {SIZE} x {SIZE}"),
        (torch.zeros(SIZE, SIZE), r"of shape .*, must be \[C, H, W\] or \[N, C, H, W\]"),
        (np.zeros((0, SIZE, SIZE, 3), np.uint8), r"of shape .*, must be \[H, W, C\]"),
        ([], "an empty list"),
        (["photo.png"], "holds a str, must be a PIL picture"),
        ("photo.png", "is a str, must be a PIL picture"),
        (Image.new("RGB", (100, 2)), "100 x 2, mode RGB: 100 x 2 is longer than 8 times"),
        (Image.new("F", (SIZE, SIZE)), "mode F: floating-point numbers, whose range is unknown"),
        (Image.new("HSV", (SIZE, SIZE)), "mode HSV: cannot write mode HSV"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_line(images: Any, reason: str) -> None:
    with pytest.raises(ManifestError, match=f"^images: .*{reason}") as told:
        read_images(images, MODEL, GEOMETRY)
    assert "\n" not in str(told.value)


def test_masks_are_of_the_models_size_and_range() -> None:
    left = np.zeros((SIZE, SIZE), bool)
    left[:, : SIZE // 2] = True
    wanted = torch.from_numpy(left).float().expand(2, -1, -1)
    u8 = (255 * left).astype(np.uint8)
    for mask in (left, u8, left / 1.0, torch.from_numpy(u8), Image.fromarray(u8), np.stack([left, left])):
        torch.testing.assert_close(read_masks(mask, 2, GEOMETRY), wanted)
    for mask, reason in (
        (np.zeros((8, 8)), rf"of shape \[1, 8, 8\], must be \[{SIZE}, {SIZE}\] or \[2, {SIZE}, {SIZE}\]"),
        (np.full((SIZE, SIZE), 2.0), r"floats from 2 to 2, must be in \[0, 1\]"),
        ("mask.png", "is a str, must be a PIL picture"),
    ):
        with pytest.raises(ManifestError, match=f"^mask: {reason}"):
            read_masks(mask, 2, GEOMETRY)
