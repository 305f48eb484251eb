"""Bottlenecks of images at many noise levels."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from boundaryflow.diffusion.ddim import noised
from boundaryflow.diffusion.protocol import EpsModel
from boundaryflow.rng import item_noise

DENSITY = 1.5  # the path's timesteps lie denser towards the image, where a step changes more


def tensor_name(t: int) -> str:
    """Name of the bottleneck at timestep t in a shard."""
    return f"h_{t:04d}"


def bottlenecks(net: EpsModel, x_0: Tensor, ids: Sequence[str], t: int, run_seed: int) -> Tensor:
    """[B,Ch,Hh,Wh] bottlenecks of images [B,C,H,W] after adding the noise of timestep t."""
    noise = item_noise(run_seed, ids, f"observe {t}", x_0.shape[1:])
    return net.eps_and_h(noised(x_0, noise, net.schedule.alpha_bar(t)), t)[1]
