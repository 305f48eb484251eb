"""The change of a small picture, brought back to the size of the large one."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from boundaryflow.editing.full_size import CLEAR, FAINT, Axis, FullSizeChange, slopes, without_faint


def picture(side: int, seed: int = 0, channels: int = 3) -> torch.Tensor:
    """[C,S,S] structure of several sizes, 40 to 215."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, channels, 4, 4, generator=generator)
    smooth = F.interpolate(coarse, (side, side), mode="bilinear")[0]
    return 40 + 150 * smooth + 25 * torch.rand(channels, side, side, generator=generator)


def small(large: torch.Tensor, side: int) -> torch.Tensor:
    return F.avg_pool2d(large[None], large.shape[-1] // side)[0]


def whole(side: int, num: int) -> Axis:
    return Axis(side, 0, side, num)


@pytest.mark.parametrize("axis", [whole(256, 64), whole(64, 64), whole(101, 64), whole(40, 64), Axis(90, 5, 85, 64)])
def test_weights_of_pixels_within_sum_to_one(axis: Axis) -> None:
    sums = axis.weights().sum(1)
    inside = (torch.arange(axis.num) + 0.5 > axis.start + 3) & (torch.arange(axis.num) + 0.5 < axis.stop - 3)
    torch.testing.assert_close(sums[inside], torch.ones(int(inside.sum())))
    assert sums.max() <= 1 + 1e-5


def test_weights_at_equal_size_are_the_identity() -> None:
    torch.testing.assert_close(whole(16, 16).weights(), torch.eye(16))


def test_weights_of_a_ramp_are_the_ramp() -> None:
    ramp = whole(256, 64).weights() @ torch.arange(64.0)
    torch.testing.assert_close(ramp[8:-8], (torch.arange(256.0)[8:-8] + 0.5) / 4 - 0.5)


def test_weights_fade_at_a_border_within_the_original_and_not_at_its_own() -> None:
    sums = Axis(100, 20, 100, 40).weights().sum(1)
    assert (sums[:20] == 0).all()
    assert 0 < sums[20] < sums[21] < sums[23] < 1
    assert sums[-1] == pytest.approx(1)


def test_faint_changes_are_exactly_zero_and_clear_ones_whole() -> None:
    change = torch.zeros(3, 9, 9)
    change[0, 2, 2], change[1, 6, 6] = FAINT, CLEAR
    assert without_faint(change)[0].abs().max() == 0
    assert without_faint(change)[1, 6, 6] == CLEAR


def test_slopes_tell_what_an_edit_did_to_the_structure() -> None:
    before = picture(32)
    removed, halved, left = (
        slopes(before, by * (before - before.mean((1, 2), keepdim=True))) for by in (-1.0, -0.5, 0.0)
    )
    torch.testing.assert_close(removed[:, :, 16, 16], -torch.eye(3), atol=0.25, rtol=0)
    torch.testing.assert_close(halved[:, :, 16, 16], -torch.eye(3) / 2, atol=0.15, rtol=0)
    assert left.abs().max() == 0
    assert slopes(before, torch.full_like(before, 30.0)).abs().max() < 1e-3


@pytest.mark.parametrize("channels", [1, 3])
def test_nothing_changes_away_from_the_edit(channels: int) -> None:
    large = picture(128, channels=channels)
    before = small(large, 32)
    after = before.clone()
    after[:, 14:18, 14:18] = 250
    change = FullSizeChange(before, after, whole(128, 32), whole(128, 32)).of_rows(large, 0)
    far = torch.ones(128, 128, dtype=torch.bool)
    far[32:96, 32:96] = False  # five pixels of the small picture around the edit
    assert (change[:, far] == 0).all()
    assert change[:, 64, 64].min() > 20


def test_rows_are_the_same_in_parts_as_together() -> None:
    large = picture(96)
    before = small(large, 32)
    after = before.roll(3, 1)
    change = FullSizeChange(before, after, whole(96, 32), whole(96, 32))
    parts = torch.cat([change.of_rows(large[:, start : start + 7], start) for start in range(0, 96, 7)], 1)
    torch.testing.assert_close(parts, change.of_rows(large, 0))


def test_rows_without_a_change_are_known() -> None:
    before = picture(32)
    after = before.clone()
    after[:, :4] += 40
    change = FullSizeChange(before, after, whole(128, 32), whole(128, 32))
    assert change.touches(0, 16)
    assert not change.touches(64, 128)


def test_fine_structure_stays_under_a_tint_and_goes_with_what_is_removed() -> None:
    large = picture(128)
    large[:, :, 60:62] = 10  # a thin line
    before = small(large, 32)
    tinted = before + 20
    change = FullSizeChange(before, tinted, whole(128, 32), whole(128, 32)).of_rows(large, 0)
    torch.testing.assert_close(change, torch.full_like(change, 20), atol=0.5, rtol=0)
    without = before.clone()
    without[:, :, 13:18] = before[:, :, 9:10]
    cleaned = large + FullSizeChange(before, without, whole(128, 32), whole(128, 32)).of_rows(large, 0)
    line, beside = (cleaned[:, 40:90, columns].mean() for columns in (slice(60, 62), slice(56, 58)))
    assert (line - beside).abs() < 0.5 * (large[:, 40:90, 60:62].mean() - large[:, 40:90, 56:58].mean()).abs()
