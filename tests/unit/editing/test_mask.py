"""Where an image may change."""

from __future__ import annotations

import torch

from boundaryflow.editing import parts_mask


def test_mask_is_one_on_the_parts_and_as_far_around_them_as_asked() -> None:
    parts = torch.zeros(2, 9, 9, dtype=torch.long)
    parts[0, 4, 4] = 3
    parts[1, 0, 0] = 5
    mask = parts_mask(parts, {3, 7}, grow=1)
    row = mask[0, 4].tolist()
    assert row == [
        0.0,
        *torch.tensor([1 / 3, 2 / 3]).tolist(),
        1.0,
        1.0,
        1.0,
        *torch.tensor([2 / 3, 1 / 3]).tolist(),
        0.0,
    ]
    assert torch.equal(mask[0], mask[0].T)
    assert (mask[1] == 0).all()
    assert torch.equal(parts_mask(parts, {3}, grow=0) == 1, parts == 3)
