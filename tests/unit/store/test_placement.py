"""Where the model's picture lies in its original, there and back."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from boundaryflow.editing.full_size import Axis
from boundaryflow.errors import ManifestError
from boundaryflow.sources.placement import Fit, Placement

SIZES = [(64, 64), (101, 64), (64, 101), (100, 100), (333, 97), (40, 51), (63, 65), (16, 16)]


def noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8))


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_apply_is_what_pillow_does(size: tuple[int, int]) -> None:
    picture = noise(*size)
    for fit, expected in (
        ("crop", ImageOps.fit(picture, (64, 64), Image.Resampling.LANCZOS)),
        ("pad", ImageOps.pad(picture, (64, 64), Image.Resampling.LANCZOS, color=(9, 8, 7))),
        ("stretch", picture.resize((64, 64), Image.Resampling.LANCZOS)),
    ):
        made = Placement.of(*size, 64, fit).apply(picture, (9, 8, 7))  # type: ignore[arg-type]
        np.testing.assert_array_equal(np.asarray(made), np.asarray(expected), err_msg=fit)


@given(
    st.integers(33, 300),
    st.integers(33, 300),
    st.sampled_from(["crop", "pad", "stretch"]),
    st.booleans(),
    st.tuples(st.floats(0.2, 0.8), st.floats(0.2, 0.8)),
)
@settings(max_examples=60, deadline=None)
def test_spot_comes_back_to_where_it_was(
    width: int, height: int, fit: Fit, cropped: bool, at: tuple[float, float]
) -> None:
    """A blot on the original, found in the model's picture, is brought back to the same place."""
    crop = (3, 5, width - 8, height - 9) if cropped else None
    placement = Placement.of(width, height, 32, fit, crop)
    left, top, right, bottom = placement.box
    x, y = left + at[0] * (right - left), top + at[1] * (bottom - top)
    across, down = np.arange(width) + 0.5, np.arange(height) + 0.5
    per = max((right - left), (bottom - top)) / 32
    blot = np.exp(-((across[None] - x) ** 2 + (down[:, None] - y) ** 2) / (2 * (1.5 * per) ** 2))
    original = Image.fromarray((255 * blot).astype(np.uint8))
    inside = original if crop is None else original.crop((3, 5, width - 5, height - 4))
    made = np.asarray(Placement.of(*inside.size, 32, fit).apply(inside, 0), np.float32)
    x0, y0, x1, y1 = placement.part
    back = (
        Axis(*placement.rows).weights()
        @ torch.from_numpy(made[y0:y1, x0:x1].copy())
        @ Axis(*placement.columns).weights().T
    )
    total = back.sum()
    assert float((back.sum(0) * torch.from_numpy(across)).sum() / total) == pytest.approx(x, abs=1.0 * per)
    assert float((back.sum(1) * torch.from_numpy(down)).sum() / total) == pytest.approx(y, abs=1.0 * per)


def test_whole_picture_of_the_models_size_is_itself() -> None:
    picture = noise(32, 32)
    assert Placement.of(32, 32, 32, "pad").apply(picture, 0) is picture


def test_box_that_does_not_fit_is_refused_unless_the_picture_is_cropped_already() -> None:
    assert Placement.of(32, 32, 32, "crop", (25, 57, 128, 128)).box == (0, 0, 32, 32)
    with pytest.raises(ManifestError, match="40 x 32 is smaller than the crop box, 128 x 128 from 25, 57"):
        Placement.of(40, 32, 32, "crop", (25, 57, 128, 128))


def test_very_narrow_picture_keeps_a_pixel() -> None:
    placement = Placement.of(1000, 3, 32, "pad")
    assert placement.part == (0, 16, 32, 17)
    assert placement.apply(noise(1000, 3), (0, 0, 0)).size == (32, 32)
