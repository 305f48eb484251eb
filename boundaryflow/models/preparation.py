"""What of a network is rearranged for the device that it runs on: the same function, to rounding."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Preparation:
    """How a network is rearranged when it is opened.

    Attributes:
        channels_last: Weights and maps lie in memory as [B,H,W,C], not as [B,C,H,W].
        folds_upsampling: See `boundaryflow.models.upsampling.fold_upsampling`.
    """

    channels_last: bool
    folds_upsampling: bool

    @property
    def layout(self) -> torch.memory_format:
        """Of weights and maps."""
        return torch.channels_last if self.channels_last else torch.contiguous_format


ON_CPU = Preparation(channels_last=True, folds_upsampling=True)
ON_CUDA = Preparation(channels_last=True, folds_upsampling=False)


def prepared_for(device: torch.device | str) -> Preparation:
    """What was measured to be fastest on a device, on a GPU at 64 pixels alone; see docs/performance.md."""
    return ON_CUDA if torch.device(device).type == "cuda" else ON_CPU
