"""Did the attribute that was asked for change, and did any other?"""

from __future__ import annotations

from jaxtyping import Bool, Float, Int64
from torch import Tensor


def target_reached(probabilities: Float[Tensor, "b a"], targets: Float[Tensor, "b a"]) -> Bool[Tensor, " b"]:
    """Are all attributes that were asked for on the side that was asked for?

    Args:
        probabilities: Of an independent classifier, on the edited images, in [0, 1].
        targets: +1 where the attribute was to be there, -1 where not, 0 where nothing was asked.
    """
    on_side = ((probabilities > 0.5) & (targets > 0)) | ((probabilities <= 0.5) & (targets < 0))
    return (on_side | (targets == 0)).all(1)


def attribute_drift(
    before: Float[Tensor, "b a"], after: Float[Tensor, "b a"], targets: Float[Tensor, "b a"]
) -> Float[Tensor, " b"]:
    """Mean change |p_after - p_before| of the attributes that nothing was asked of; in [0, 1]."""
    others = (targets == 0).float()
    return ((after - before).abs() * others).sum(1) / others.sum(1).clamp(min=1)


def num_flipped(
    before: Float[Tensor, "b a"], after: Float[Tensor, "b a"], targets: Float[Tensor, "b a"]
) -> Int64[Tensor, " b"]:
    """How many attributes that nothing was asked of are on another side than before."""
    return (((after > 0.5) != (before > 0.5)) & (targets == 0)).sum(1)
