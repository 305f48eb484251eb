"""Whether the edited attribute changed as requested, and how much other attributes changed."""

from __future__ import annotations

from jaxtyping import Bool, Float, Int64
from torch import Tensor


def target_reached(probabilities: Float[Tensor, "b a"], targets: Float[Tensor, "b a"]) -> Bool[Tensor, " b"]:
    """Whether all edited attributes have the target value, at a threshold of 0.5.

    Args:
        probabilities: Attributes of the edited images by an independent classifier, in [0, 1].
        targets: +1 if the edit adds the attribute, -1 if it removes it, 0 if it leaves it.

    Example:
        >>> import torch
        >>> probabilities, targets = torch.tensor([[0.9, 0.2], [0.4, 0.2]]), torch.tensor([[1.0, -1.0], [1.0, 0.0]])
        >>> target_reached(probabilities, targets).tolist()
        [True, False]
    """
    on_side = ((probabilities > 0.5) & (targets > 0)) | ((probabilities <= 0.5) & (targets < 0))
    return (on_side | (targets == 0)).all(1)


def attribute_drift(
    before: Float[Tensor, "b a"], after: Float[Tensor, "b a"], targets: Float[Tensor, "b a"]
) -> Float[Tensor, " b"]:
    """Mean change |p_after - p_before| of the attributes that the edit should not change; in [0, 1].

    Example:
        >>> import torch
        >>> before, after = torch.tensor([[0.0, 0.5, 0.25]]), torch.tensor([[1.0, 0.75, 0.25]])
        >>> attribute_drift(before, after, torch.tensor([[1.0, 0.0, 0.0]])).tolist()
        [0.125]
    """
    others = (targets == 0).float()
    return ((after - before).abs() * others).sum(1) / others.sum(1).clamp(min=1)


def num_flipped(
    before: Float[Tensor, "b a"], after: Float[Tensor, "b a"], targets: Float[Tensor, "b a"]
) -> Int64[Tensor, " b"]:
    """Number of attributes that the edit should not change and whose probability crossed 0.5.

    Example:
        >>> import torch
        >>> before, after = torch.tensor([[0.1, 0.4, 0.9]]), torch.tensor([[0.9, 0.6, 0.8]])
        >>> num_flipped(before, after, torch.tensor([[1.0, 0.0, 0.0]])).tolist()
        [1]
    """
    return (((after > 0.5) != (before > 0.5)) & (targets == 0)).sum(1)
