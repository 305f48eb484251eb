"""Noise of items."""

from __future__ import annotations

import torch

from boundaryflow import rng
from boundaryflow.seeds import item_seed

IDS = [f"item {number}" for number in range(20)]


def test_noise_of_many_items_is_that_of_each_alone() -> None:
    alone = torch.cat([rng.item_noise(3, [item], "test", (3, 8, 8)) for item in IDS])
    assert torch.equal(rng.item_noise(3, IDS, "test", (3, 8, 8)), alone)
    with torch.inference_mode():
        assert torch.equal(rng.item_noise(3, IDS, "test", (3, 8, 8)), alone)
    assert rng.item_noise(3, [], "test", (3, 8, 8)).shape == (0, 3, 8, 8)


def test_noise_is_that_of_a_generator_seeded_with_the_item() -> None:
    generator = torch.Generator().manual_seed(item_seed(3, IDS[0], "test"))
    assert torch.equal(rng.item_noise(3, IDS[:1], "test", (3, 8, 8))[0], torch.randn(3, 8, 8, generator=generator))
