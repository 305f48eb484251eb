"""Which numbers of a network the hyperplanes between noised images lie in."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Features:
    """The output of one layer of the network, flattened.

    Attributes:
        layer: Name of a module within the network, as `named_modules` gives it; None is the bottleneck, h.
        pool: Side in pixels to which the maps are averaged (adaptive average pooling); None leaves them as they are.

    Raises:
        ValueError: The bottleneck is to be pooled: it is the paper's h, as it is.
    """

    layer: str | None = None
    pool: int | None = None

    def __post_init__(self) -> None:
        if self.layer is None and self.pool is not None:
            raise ValueError(f"pool is {self.pool}, but no layer is named; the bottleneck h is taken as it is")

    @property
    def space(self) -> str:
        """The name of the space that they span, in files and messages: `h`, or such as `up_blocks.1.resnets.1:4`."""
        return "h" if self.layer is None else f"{self.layer}:{self.pool or 'all'}"

    def of(self, maps: Float[Tensor, "b ..."]) -> Float[Tensor, "b d"]:
        """The features in the output of the layer, float32.

        Args:
            maps: [B,C,H,W]; of another shape only where nothing is pooled.
        """
        maps = maps.float()
        return (maps if self.pool is None else F.adaptive_avg_pool2d(maps, self.pool)).flatten(1)


BOTTLENECK = Features()
