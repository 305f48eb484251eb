"""A Gaussian blur, to the bit that of torchvision, whose import takes longer than an edit."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def gaussian_blur(images: Float[Tensor, "n c h w"], radius: int, sigma: float) -> Float[Tensor, "n c h w"]:
    """Blur images, reflected at their borders.

    Args:
        images: Any range.
        radius: Pixels beyond which the Gaussian is cut off; less than both sides.
        sigma: Its standard deviation in pixels, above 0.
    """
    x = torch.linspace(-radius, radius, 2 * radius + 1, dtype=images.dtype, device=images.device)
    gaussian = torch.exp(-0.5 * (x / sigma).pow(2))
    gaussian = gaussian / gaussian.sum()
    kernel = torch.mm(gaussian[:, None], gaussian[None, :]).expand(images.shape[1], 1, -1, -1)
    return F.conv2d(F.pad(images, [radius] * 4, mode="reflect"), kernel, groups=images.shape[1])
