"""A small classifier, trained alike on every set, and its accuracy in each of the four groups."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from benches.augmentation.sets import Pictures
from boundaryflow.evaluation.judges import JudgeNet

NUM_STEPS, BATCH, LEARNING_RATE, WIDTHS = 600, 64, 2e-3, (16, 32, 64)


def train_and_test(
    train: Pictures, test: Pictures, seed: int, *, classic: bool = False, oversampled: bool = False
) -> dict[str, Any]:
    """Accuracy per group of a classifier trained on one set; see `trained`."""
    weights = balancing(train.group) if oversampled else None
    net = trained(train.images_u8, train.label[:, None], seed, classic=classic, weights=weights)
    return accuracies(logits(net, test.images_u8)[:, 0] > 0, test)


def balancing(group: NDArray[np.int64]) -> NDArray[np.float64]:
    """[N] weights with which each group [N] is drawn as often as any other."""
    return 1.0 / np.bincount(group)[group]


def trained(
    images_u8: Tensor,
    truth: NDArray[np.bool_],
    seed: int,
    *,
    classic: bool = False,
    weights: NDArray[np.float64] | None = None,
    num_steps: int = NUM_STEPS,
) -> nn.Module:
    """A classifier, from first weights that the seed draws.

    Args:
        images_u8: [N,3,S,S].
        truth: [N,A] what it is to tell.
        seed: Of its first weights and of the order of pictures.
        classic: Pictures are flipped, turned, shifted, and changed in colour at random while it learns.
        weights: [N] how often each picture is drawn, in relation to the others; None: all the same.
        num_steps: Steps of BATCH pictures each.
    """
    torch.manual_seed(seed)
    net = JudgeNet(3, WIDTHS, images_u8.shape[-1], truth.shape[1], "classify")
    optimiser = torch.optim.AdamW(net.parameters(), lr=LEARNING_RATE, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, LEARNING_RATE, num_steps, pct_start=0.1)
    often = torch.ones(len(truth)).double() if weights is None else torch.from_numpy(weights)
    wanted = torch.from_numpy(truth.astype(np.float32))
    draw = torch.Generator().manual_seed(seed)
    for _step in range(num_steps):
        rows = torch.multinomial(often, BATCH, replacement=True, generator=draw)
        images = images_u8[rows].float() / 255
        loss = F.binary_cross_entropy_with_logits(net(_classic(images, draw) if classic else images), wanted[rows])
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        schedule.step()
    return net.eval()


@torch.inference_mode()
def logits(net: nn.Module, images_u8: Tensor) -> NDArray[np.float32]:
    """[N,A] what a classifier says of pictures [N,3,S,S]."""
    return torch.cat([net(chunk.float() / 255) for chunk in images_u8.split(256)]).numpy()


def accuracies(says: NDArray[np.bool_], test: Pictures) -> dict[str, Any]:
    """Shares of right answers [N], in each of the four groups, in the worst, and of all pictures."""
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
