"""Randomness that belongs to an item: the same in any batch, order, shard or process."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

_MANY = 1 << 20  # values from which drawing them on several threads pays


def item_seed(run_seed: int, item_id: str, purpose: str) -> int:
    """Seed of one item for one purpose: the first 8 bytes of a SHA-256.

    Args:
        run_seed: Seed of the whole run.
        item_id: Stable id of the image.
        purpose: What the randomness is for, so that two uses never share it.

    Returns:
        Integer in [0, 2**63).
    """
    digest = hashlib.sha256(f"{run_seed}\x1f{item_id}\x1f{purpose}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


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
    if not item_ids:
        return torch.empty((0, *shape))

    def draw(item_id: str) -> Tensor:
        generator = torch.Generator().manual_seed(item_seed(run_seed, item_id, purpose))
        return torch.randn(tuple(shape), generator=generator)

    if len(item_ids) * math.prod(shape) < _MANY or torch.get_num_threads() == 1:
        return torch.stack([draw(item_id) for item_id in item_ids])
    with ThreadPoolExecutor(torch.get_num_threads()) as threads:  # batches of a GPU, which would wait
        return torch.stack(list(threads.map(draw, item_ids)))
