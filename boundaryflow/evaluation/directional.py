"""Directional CLIP similarity (Gal et al. 2022, StyleGAN-NADA; used by DiffusionCLIP and Asyrp)."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def directional_similarity(
    before: Float[Tensor, "b d"], after: Float[Tensor, "b d"], text_direction: Float[Tensor, "b d"]
) -> Float[Tensor, " b"]:
    """cos(I(edit) - I(input), T(target) - T(source)), in [-1, 1]; 0 for a picture that did not change.

    Args:
        before: Unit CLIP features of the inputs.
        after: Unit CLIP features of the edited pictures.
        text_direction: Feature of the target's words minus that of the source's words, one per image.

    Example:
        >>> import torch
        >>> before, after = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
        >>> [round(float(v), 4) for v in directional_similarity(before, after, torch.tensor([[0.0, 2.0]]))]
        [0.7071]
    """
    return F.cosine_similarity(after - before, text_direction, dim=1, eps=1e-7)
