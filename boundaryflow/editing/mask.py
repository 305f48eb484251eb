"""Where an image may change, from the parts that a segmenter sees in it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F


@runtime_checkable
class PartSegmenter(Protocol):
    """Sees which part of an image each pixel shows."""

    @property
    def parts(self) -> Sequence[str]:
        """Names of the parts, by their numbers."""
        ...

    def __call__(self, images_01: Tensor, /) -> Tensor:
        """[B,H,W] number of the part that each pixel of images [B,C,H,W] in [0, 1] shows."""
        ...


@dataclass(frozen=True)
class Mask:
    """Where images may change.

    Attributes:
        segmenter: File of the segmenter.
        parts: Attribute to the names of the parts that its edits may change.
        grow: Pixels around these parts that may change too.
    """

    segmenter: str
    parts: Mapping[str, Sequence[str]]
    grow: int


def parts_mask(parts: Int64[Tensor, "b h w"], wanted: Iterable[int], *, grow: int) -> Float[Tensor, "b h w"]:
    """1 on the wanted parts and up to `grow` pixels beyond them, falling to 0 over two more pixels.

    Args:
        parts: Which part each pixel shows.
        wanted: Numbers of the parts that may change; a part that an image lacks adds nothing to it.
        grow: Pixels, at least 0; what an edit adds often lies beside what is there.
    """
    inside = torch.isin(parts, torch.tensor(sorted(wanted), device=parts.device)).float()[:, None]

    def reached(distance: int) -> Tensor:
        return F.max_pool2d(inside, 2 * distance + 1, stride=1, padding=distance)

    return torch.stack([reached(grow + k) for k in range(3)]).mean(0)[:, 0]
