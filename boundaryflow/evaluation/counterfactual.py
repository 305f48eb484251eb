"""Distance of an edit to the exact counterfactual, for data sets with known counterfactuals."""

from __future__ import annotations

from jaxtyping import Bool, Float
from torch import Tensor


def rmse(
    a_01: Float[Tensor, "b c h w"], b_01: Float[Tensor, "b c h w"], where: Bool[Tensor, "b h w"] | None = None
) -> Float[Tensor, " b"]:
    """Root mean squared difference of pictures in [0, 1], over all pixels or some; NaN over none.

    Example:
        >>> import torch
        >>> grey = torch.full((1, 3, 4, 4), 0.5)
        >>> rmse(grey, torch.ones(1, 3, 4, 4)).tolist()
        [0.5]
    """
    squared = ((a_01 - b_01) ** 2).mean(1)
    if where is None:
        return squared.mean((1, 2)).sqrt()
    inside = where.float()
    return ((squared * inside).sum((1, 2)) / inside.sum((1, 2))).sqrt()


def counterfactual_recovery(
    before_01: Float[Tensor, "b c h w"], after_01: Float[Tensor, "b c h w"], truth_01: Float[Tensor, "b c h w"]
) -> Float[Tensor, " b"]:
    """R = 1 - RMSE(edit, truth) / RMSE(input, truth).

    1 is the exact counterfactual, 0 as close as the unchanged image, below 0 further away; NaN if the input equals the
    truth already (which happens with a wrong label).

    Example:
        >>> import torch
        >>> before, after, truth = (torch.full((1, 3, 4, 4), value) for value in (0.0, 0.75, 1.0))
        >>> counterfactual_recovery(before, after, truth).tolist()
        [0.75]
    """
    to_recover = rmse(before_01, truth_01)
    recovered = 1 - rmse(after_01, truth_01) / to_recover
    return recovered.masked_fill(to_recover == 0, float("nan"))
