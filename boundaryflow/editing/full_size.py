"""From the change of the model's picture to a change of the picture it was made from, at that picture's own size.

The change is interpolated. Interpolation alone would leave the original's fine structure in place everywhere: the thin
edge of removed eyeglasses would stay. So the structure that the model's picture is too small to show is scaled as the
structure that it does show was: where the edit flattened it, it goes; where the edit left it or added to it, it stays.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

FAINT, CLEAR = 2.0, 4.0
"""Levels of 255: a change of at most `FAINT` counts as none, one of `CLEAR` or more in full, between them in part."""
_RADIUS = 2  # pixels of the model's picture: windows of 5 x 5
_NOISE = 4.0  # levels of 255: structure weaker than this says little about how the edit scaled it
_STEEPEST = 1.5
_FADE = 2.0  # pixels of the model's picture over which the change fades at a border within the original

Kernel = Callable[[Tensor], Tensor]


def linear(x: Tensor) -> Tensor:
    """Weights of linear interpolation at distances in pixels."""
    return (1 - x.abs()).clamp(min=0)


@dataclass(frozen=True)
class Axis:
    """How one axis of the model's picture lies in the original.

    Attributes:
        num: Pixels of the original.
        start: Where the model's picture begins, in pixels of the original.
        stop: Where it ends.
        num_small: Pixels of the model's picture between the two.
    """

    num: int
    start: float
    stop: float
    num_small: int

    def weights(self, kernel: Kernel = linear) -> Float[Tensor, "n m"]:
        """Interpolation from the model's pixels to the original's; rows of pixels outside are 0.

        Where the original has fewer pixels than the model's picture, the kernel is widened (antialiasing). Pixels
        beyond the ends count as the last ones.
        """
        scale = self.num_small / (self.stop - self.start)
        wide = max(1.0, scale)
        centres = (torch.arange(self.num, dtype=torch.float64) + 0.5 - self.start) * scale - 0.5
        margin = int(3 * wide) + 1
        taps = torch.arange(-margin, self.num_small + margin, dtype=torch.float64)
        every = kernel((centres[:, None] - taps[None]) / wide)
        every = every / every.sum(1, keepdim=True).clamp(min=1e-9)
        inside = every[:, margin : margin + self.num_small].clone()
        inside[:, 0] += every[:, :margin].sum(1)
        inside[:, -1] += every[:, margin + self.num_small :].sum(1)
        return (inside * self._fading(centres)[:, None]).float()

    def _fading(self, centres: Tensor) -> Tensor:
        """[num] 1 within, 0 outside, and a slope at a border that is not the original's own."""
        near = torch.ones_like(centres)
        for is_within, depth in (
            (self.start >= 1, centres + 0.5),
            (self.stop <= self.num - 1, self.num_small - 0.5 - centres),
        ):
            near = near * (depth / _FADE if is_within else (depth > 0).double()).clamp(0, 1)
        return near


def without_faint(change: Float[Tensor, "c h w"]) -> Float[Tensor, "c h w"]:
    """A change in levels of 255, exactly 0 where it and the pixels around it are at most `FAINT`."""
    size = F.max_pool2d(change.abs().amax(0)[None, None], 3, stride=1, padding=1)[0, 0]
    return change * ((size - FAINT) / (CLEAR - FAINT)).clamp(0, 1)


def slopes(before: Float[Tensor, "c h w"], change: Float[Tensor, "c h w"]) -> Float[Tensor, "c c h w"]:
    """How the edit changed the structure around each pixel: minus the identity removed it, 0 left it as it was.

    The slopes [i,j] of a linear regression of channel j of the change on the channels i of the picture, in a window
    around each pixel, averaged over the windows that hold the pixel, as in a guided filter (He, Sun and Tang 2010,
    section 3.4). Exactly 0 wherever nothing near by was changed.
    """
    channels = len(before)

    def mean(values: Tensor) -> Tensor:
        return F.avg_pool2d(values, 2 * _RADIUS + 1, 1, _RADIUS, count_include_pad=False)

    def covariance(of: Tensor, other: Tensor) -> Tensor:
        return mean(of[:, None] * other[None]) - mean(of[None])[0][:, None] * mean(other[None])[0][None]

    spread = covariance(before, before).permute(2, 3, 0, 1) + _NOISE**2 * torch.eye(channels)
    found = torch.linalg.solve(spread, covariance(before, change).permute(2, 3, 0, 1))
    return mean(found.permute(2, 3, 0, 1).clamp(-_STEEPEST, _STEEPEST))


class FullSizeChange:
    """The change of an original, rows at a time.

    Args:
        before: The model's picture of the original, without padding, in levels 0 to 255.
        after: The same after the edit.
        rows: How its height lies in the original's.
        columns: How its width lies in the original's.
    """

    def __init__(
        self, before: Float[Tensor, "c h w"], after: Float[Tensor, "c h w"], rows: Axis, columns: Axis
    ) -> None:
        self._before = before.float()
        self._change = without_faint(after.float() - self._before)
        self._slopes = slopes(self._before, self._change)
        self._rows, self._columns = rows.weights(), columns.weights().T
        touched = self._change.abs().amax((0, 2)) + self._slopes.abs().amax((0, 1, 3))
        self._touched = self._rows @ touched > 0

    def touches(self, start: int, stop: int) -> bool:
        """Whether anything changes in these rows of the original."""
        return bool(self._touched[start:stop].any())

    def of_rows(self, original: Float[Tensor, "c n w"], start: int) -> Float[Tensor, "c n w"]:
        """The change in levels of 255 of the rows from `start` on; exactly 0 away from what the edit changed.

        Args:
            original: These rows of the original, in the colours of the model's picture, in levels 0 to 255.
            start: Number of the first of them.
        """
        rows = self._rows[start : start + original.shape[1]]
        change, seen = (rows @ part @ self._columns for part in (self._change, self._before))
        for structure, slope in zip(original - seen, self._slopes, strict=True):
            change = change + structure * (rows @ slope @ self._columns)
        return change
