"""A small classifier, trained alike on every set, and its accuracy in each of the four groups."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benches.augmentation.sets import Pictures
from boundaryflow.evaluation.judges import JudgeNet

NUM_STEPS, BATCH, LEARNING_RATE = 600, 64, 2e-3


def train_and_test(
    train: Pictures, test: Pictures, seed: int, *, classic: bool = False, oversampled: bool = False
) -> dict[str, Any]:
    """Accuracy per group of a classifier trained on one set.

    Args:
        train: What it learns from.
        test: What it is tested on.
        seed: Of its first weights and of the order of pictures.
        classic: Pictures are flipped, turned, shifted, and changed in colour at random while it learns.
        oversampled: Each group is drawn as often as any other.
    """
    torch.manual_seed(seed)
    net = JudgeNet(3, (16, 32, 64), train.images_u8.shape[-1], 1, "classify")
    optimiser = torch.optim.AdamW(net.parameters(), lr=LEARNING_RATE, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, LEARNING_RATE, NUM_STEPS, pct_start=0.1)
    sizes = np.bincount(train.group, minlength=4)
    weights = torch.from_numpy(1.0 / sizes[train.group]) if oversampled else torch.ones(len(train.label))
    truth = torch.from_numpy(train.label.astype(np.float32))
    draw = torch.Generator().manual_seed(seed)
    for _step in range(NUM_STEPS):
        rows = torch.multinomial(weights.double(), BATCH, replacement=True, generator=draw)
        images = train.images_u8[rows].float() / 255
        logits = net(_classic(images, draw) if classic else images)[:, 0]
        loss = F.binary_cross_entropy_with_logits(logits, truth[rows])
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        schedule.step()
    net.eval()
    with torch.inference_mode():
        says = torch.cat([net(chunk.float() / 255)[:, 0] > 0 for chunk in test.images_u8.split(256)]).numpy()
    right = says == test.label
    groups = [float(right[test.group == group].mean()) for group in range(4)]
    return {"groups": groups, "worst": min(groups), "mean": float(right.mean())}


def _classic(images_01: Tensor, draw: torch.Generator) -> Tensor:
    """Mirrored half of the time, turned by up to 10 degrees, shifted and scaled by up to 6 %, in other light."""
    num = len(images_01)

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(num, generator=draw)

    angle, scale = uniform(-1, 1) * math.radians(10), uniform(0.94, 1.06)
    mirrored = torch.where(torch.rand(num, generator=draw) < 0.5, -1.0, 1.0)
    cos, sin = angle.cos() * scale, angle.sin() * scale
    shift_x, shift_y = uniform(-0.06, 0.06), uniform(-0.06, 0.06)
    rows = [torch.stack([cos * mirrored, -sin, shift_x], 1), torch.stack([sin * mirrored, cos, shift_y], 1)]
    grid = F.affine_grid(torch.stack(rows, 1), list(images_01.shape), align_corners=False)
    out = F.grid_sample(images_01, grid, padding_mode="border", align_corners=False)
    ranges = ((-0.1, 0.1), (0.7, 1.3), (0.6, 1.4))
    light, contrast, colour = (uniform(low, high)[:, None, None, None] for low, high in ranges)
    grey = out.mean(1, keepdim=True)
    out = grey + (out - grey) * colour
    return ((out - 0.5) * contrast + 0.5 + light).clamp(0, 1)
