"""Between pixels and what a network takes. Clipping and rounding happen here and nowhere else."""

from __future__ import annotations

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from boundaryflow.errors import PipelineError


def to_model_range(
    pixels_u8: UInt8[Tensor, "*n c h w"], value_range: tuple[float, float] = (-1.0, 1.0)
) -> Float[Tensor, "*n c h w"]:
    """Pixels 0..255 to what the model takes for black and white."""
    low, high = value_range
    return pixels_u8.float() * ((high - low) / 255) + low


def to_u8(x_0: Float[Tensor, "*n c h w"], value_range: tuple[float, float] = (-1.0, 1.0)) -> UInt8[Tensor, "*n c h w"]:
    """Model range to pixels 0..255, clipped and rounded.

    Raises:
        PipelineError: A value is NaN or infinite.
    """
    if not bool(x_0.isfinite().all()):
        raise PipelineError(
            "a picture of the model has NaN or infinite values; check the model's weights, the boundaries and the "
            "strengths, and set dtype: float32 if it is not"
        )
    low, high = value_range
    return ((x_0.float() - low) * (255 / (high - low))).round().clamp(0, 255).to(torch.uint8)
