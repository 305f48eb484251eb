"""How well a network predicts noise on given pictures, in a measure that can be compared between guesses about it.

A wrong guess (size, heads, schedule, range of values) gives worse predictions. For errors to be comparable, every guess
gets pictures with the same share of noise, at the timestep at which its own schedule has that share; and the error is
told as a multiple of what the best linear filter makes of the same pictures, because small pictures are harder to
denoise than large ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from boundaryflow.models.prediction import Prediction, eps_from

LEVELS = (0.97, 0.7, 0.2)
"""alpha_bar of pictures in [-1, 1]: little, some and much noise."""
Network = Callable[[Tensor, Tensor], Tensor]
"""From x_t [B,C,H,W] and timesteps [B] to what it predicts [B,C,H,W], without a variance."""


def relative_errors(
    network: Network,
    pictures_01: Float[Tensor, "b c h w"],
    alphas_cumprod: Float[Tensor, " t"],
    value_range: tuple[float, float] = (-1.0, 1.0),
) -> dict[Prediction, float]:
    """Mean squared error of eps over that of the best linear filter, for each thing that the output may be.

    The geometric mean over `LEVELS`. 1 is no better than a filter; a trained network on its own kind of pictures is
    well below.

    Args:
        network: The network.
        pictures_01: Pictures in [0, 1].
        alphas_cumprod: Of the schedule that the network is thought to have.
        value_range: What black and white are thought to be to it.
    """
    low, high = value_range
    x_0 = pictures_01 * (high - low) + low
    noise = torch.randn(x_0.shape, generator=torch.Generator().manual_seed(0)).to(x_0)
    logs: dict[Prediction, list[float]] = {kind: [] for kind in get_args(Prediction)}
    for level in LEVELS:
        ratio = level / (1 - level) * (2 / (high - low)) ** 2  # of signal to noise, the same whatever the range
        alpha_bar = ratio / (1 + ratio)
        t = int((alphas_cumprod.logit() - math.log(ratio)).abs().argmin())
        x_t = math.sqrt(alpha_bar) * x_0 + math.sqrt(1 - alpha_bar) * noise
        out = network(x_t, torch.full((len(x_t),), t, device=x_t.device))
        filtered = linear_error(x_0, alpha_bar)
        for kind, found in logs.items():
            error = float((eps_from(kind, out, x_t, alpha_bar) - noise).square().mean())
            found.append(math.log(error / filtered) if 0 < error < math.inf else math.inf)
    return {kind: math.exp(min(sum(found) / len(found), 700.0)) for kind, found in logs.items()}


def linear_error(x_0: Float[Tensor, "b c h w"], alpha_bar: float) -> float:
    """Mean squared error of the noise that the best linear, isotropic filter predicts.

    A Wiener filter that knows the mean and the power S(f) of the pictures predicts noise with the error
    alpha_bar S / (alpha_bar S + 1 - alpha_bar) at frequency f. S is averaged over rings, so that a few pictures are
    enough.

    Args:
        x_0: Pictures, model range.
        alpha_bar: Signal level, in (0, 1).
    """
    power = torch.fft.fft2(x_0 - x_0.mean((0, 2, 3), keepdim=True), norm="ortho").abs().square().mean((0, 1))
    steps = [torch.fft.fftfreq(side, 1 / side, device=x_0.device) for side in power.shape]
    ring = torch.hypot(steps[0][:, None], steps[1][None]).round().long().flatten()
    num = ring.bincount()
    smooth = (ring.bincount(power.flatten()) / num)[ring]
    return float((alpha_bar * smooth / (alpha_bar * smooth + 1 - alpha_bar)).mean().clamp(min=1e-12))


def as_trained(network: Network, *, reverses_channels: bool, pixel_unshuffle: int) -> Network:
    """A network that gets RGB pictures, whatever it was trained on."""

    def call(x_t: Tensor, timesteps: Tensor) -> Tensor:
        x_t = x_t.flip(1) if reverses_channels else x_t
        out = network(F.pixel_unshuffle(x_t, pixel_unshuffle), timesteps)
        out = F.pixel_shuffle(out, pixel_unshuffle)
        return out.flip(1) if reverses_channels else out

    return call


def usable_sizes(assumed: int, num_levels: int, largest: int) -> Iterable[int]:
    """Other sizes that a network may be of: half, twice and four times, which its levels divide."""
    for size in (assumed // 2, 2 * assumed, 4 * assumed):
        if size % 2 ** (num_levels - 1) == 0 and 2 ** (num_levels - 1) < size <= largest:
            yield size
