"""Randomness that belongs to an item: the same in any batch, order, shard or process."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from boundaryflow.seeds import item_seed


def item_noise(run_seed: int, item_ids: Sequence[str], purpose: str, shape: Sequence[int]) -> Tensor:
    """Standard normal noise, one independent draw per item.

    Args:
        run_seed: Seed of the whole run.
        item_ids: Ids of the B items.
        purpose: See `item_seed`.
        shape: Shape of one item's draw, such as (C, H, W).

    Returns:
        [B, *shape] float32 on the CPU.
    """
    draws = [
        torch.randn(tuple(shape), generator=torch.Generator().manual_seed(item_seed(run_seed, item_id, purpose)))
        for item_id in item_ids
    ]
    return torch.stack(draws) if draws else torch.empty((0, *shape))
