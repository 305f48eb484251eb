"""Metrics of similarity between a picture and its edit."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor


def ssim(a_01: Float[Tensor, "b c h w"], b_01: Float[Tensor, "b c h w"]) -> Float[Tensor, " b"]:
    """Structural similarity (Wang et al. 2004) with an 11-pixel Gaussian window; 1 is no difference.

    Example:
        >>> black, white = torch.zeros(1, 3, 16, 16), torch.ones(1, 3, 16, 16)
        >>> ssim(black, black).tolist(), [round(float(v), 4) for v in ssim(black, white)]
        ([1.0], [0.0001])
    """
    from torchmetrics.functional.image import structural_similarity_index_measure

    value = structural_similarity_index_measure(a_01, b_01, data_range=1.0, reduction="none")
    return torch.as_tensor(value).reshape(-1)


def psnr_db(a_01: Float[Tensor, "b c h w"], b_01: Float[Tensor, "b c h w"]) -> Float[Tensor, " b"]:
    """Peak signal-to-noise ratio in dB, capped at 100, as it is infinite for equal pictures.

    Example:
        >>> black = torch.zeros(1, 3, 4, 4)
        >>> [round(float(v), 1) for v in psnr_db(black, black + 0.1)], psnr_db(black, black).tolist()
        ([20.0], [100.0])
    """
    error = ((a_01 - b_01) ** 2).mean((1, 2, 3)).clamp(min=1e-10)
    return -10 * error.log10()


def segmentation_consistency(
    before: Int64[Tensor, "b h w"], after: Int64[Tensor, "b h w"], where: Bool[Tensor, "b h w"] | None = None
) -> Float[Tensor, " b"]:
    """Share of pixels with the same part in both pictures; NaN without pixels.

    Args:
        before: Part of each pixel of the input.
        after: Part of each pixel of the edited picture.
        where: Pixels to use, such as those that a correct edit does not change; None for all.

    Example:
        >>> before, after = torch.tensor([[[1, 1], [2, 2]]]), torch.tensor([[[1, 3], [2, 2]]])
        >>> segmentation_consistency(before, after).tolist()
        [0.75]
    """
    same = (before == after).float()
    if where is None:
        return same.mean((1, 2))
    return (same * where).sum((1, 2)) / where.float().sum((1, 2))
