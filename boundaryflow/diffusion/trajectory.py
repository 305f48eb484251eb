"""Inversion up to the mixing step, and denoising down from it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from boundaryflow.diffusion.ddim import ddim_mean, ddim_sigma, ddim_step, noise_to_signal, noised
from boundaryflow.diffusion.protocol import EpsModel
from boundaryflow.diffusion.schedule import CLEAN

Order = Literal[1, 2]


@dataclass(frozen=True)
class Inversion:
    """Where an image's deterministic path meets the mixing step.

    Attributes:
        x_mix: [B,C,H,W] latent at timesteps[-1].
        h_mix: [B,Ch,Hh,Wh] bottleneck at (x_mix, timesteps[-1]), the same timestep.
        timesteps: The path, ascending.
        residuals: [S,B,C,H,W] or None. Entry k is what the step down from timesteps[k] misses
            on this image's own path; added while denoising, it makes an unedited image return
            exactly.
    """

    x_mix: Float[Tensor, "b c h w"]
    h_mix: Float[Tensor, "b ch hh wh"]
    timesteps: tuple[int, ...]
    residuals: Float[Tensor, "s b c h w"] | None

    def take(self, rows: Sequence[int]) -> Inversion:
        """Some of the images."""
        index = list(rows)
        residuals = None if self.residuals is None else self.residuals[:, index]
        return Inversion(self.x_mix[index], self.h_mix[index], self.timesteps, residuals)


@dataclass(frozen=True)
class HShift:
    """A move in h-space, made at every step whose timestep lies in a window.

    Attributes:
        shift: [B,Ch,Hh,Wh] added to the bottleneck.
        t_high: Noisiest timestep of the window, included.
        t_low: Cleanest timestep of the window, included.
    """

    shift: Float[Tensor, "b ch hh wh"]
    t_high: int
    t_low: int

    def active(self, t: int) -> bool:
        """Is timestep t in the window?"""
        return self.t_low <= t <= self.t_high


@torch.inference_mode()
def walk_up(
    model: EpsModel,
    x_0: Float[Tensor, "b c h w"],
    timesteps: Sequence[int],
    *,
    start_noise: Float[Tensor, "b c h w"] | None = None,
    noise_until: int = 0,
    order: Order = 1,
) -> Iterator[tuple[int, Tensor, Tensor, Tensor]]:
    """Follow the path of DDIM from images towards noise.

    Source: Song et al. 2021, section 4.3: the step of eq. 12 taken upwards, the noise evaluated
    where the step starts. The image stands at timesteps[0]. A clean image has none of the noise
    that the network expects at its first timesteps, so inversion finds too little of it there and
    the latent ends up nearer to the origin than any that the network was trained on. With
    `noise_until` the first steps are those of the forward process with a noise of the image's own
    (Staniszewski et al. 2024, "There and back again", replace the first steps likewise).

    Args:
        model: The frozen model.
        x_0: Images in model range.
        timesteps: Rising path.
        start_noise: Standard normal noise of the first steps.
        noise_until: Timesteps up to this one are reached by adding `start_noise`; 0 is plain DDIM.
        order: 1 is DDIM; 2 extrapolates the noise from the last two timesteps (the second-order
            multistep of Adams and Bashforth on dy/dsigma = eps, Song et al. 2021, eq. 14), at the
            same number of network calls.

    Yields:
        (t, x_t, eps, h) at each timestep of the path: one network call each.

    Raises:
        ValueError: The path does not rise strictly, or there is no noise for its first steps.
    """
    if noise_until > 0 and start_noise is None:
        raise ValueError(f"noise_until is {noise_until} but no start_noise was given")
    if any(b <= a for a, b in zip(timesteps, timesteps[1:], strict=False)):
        raise ValueError(f"the path must rise strictly, got {list(timesteps)}")
    x_t, before = x_0.float(), None
    for position, t in enumerate(timesteps):
        eps, h = model.eps_and_h(x_t, t)
        yield t, x_t, eps, h
        if position + 1 < len(timesteps):
            t_next = timesteps[position + 1]
            alpha_bar_next = model.schedule.alpha_bar(t_next)
            if start_noise is not None and t_next <= noise_until:
                x_t = noised(x_0, start_noise, alpha_bar_next)
                continue
            alpha_bar = model.schedule.alpha_bar(t)
            step = noise_to_signal(alpha_bar_next) - noise_to_signal(alpha_bar)
            ahead = eps if before is None else eps + step / (2 * before[1]) * (eps - before[0])
            x_t = ddim_step(x_t, ahead, alpha_bar, alpha_bar_next)
            before = (eps, step) if order == 2 else None


def invert(
    model: EpsModel,
    x_0: Float[Tensor, "b c h w"],
    timesteps: Sequence[int],
    *,
    keep_residuals: bool = False,
    eta: float = 0.0,
    start_noise: Float[Tensor, "b c h w"] | None = None,
    noise_until: int = 0,
    order: Order = 1,
) -> Inversion:
    """Carry images to the last timestep of a path.

    Costs one network call a timestep. The residuals cost none: the noise that the way down
    would predict on the unedited path is the noise already known from the way up.

    Args:
        model: The frozen model.
        x_0: Images in model range, at timesteps[0].
        timesteps: Rising path; its last timestep is the mixing step.
        keep_residuals: Also return what makes the way back exact.
        eta: eta of the way back, which the residuals are for. The path up has none.
        start_noise: See `walk_up`.
        noise_until: See `walk_up`.
        order: See `walk_up`.
    """
    residuals: list[Tensor] = []
    lower, lower_t = x_0.float(), CLEAN
    x_mix, h_mix = x_0, x_0
    walk = walk_up(model, x_0, timesteps, start_noise=start_noise, noise_until=noise_until, order=order)
    for t, x_t, eps, h in walk:
        if keep_residuals:
            alpha_bars = model.schedule.alpha_bar(t), model.schedule.alpha_bar(lower_t)
            residuals.append(lower - ddim_mean(x_t, eps, *alpha_bars, eta=eta))
        lower, lower_t = x_t, t
        x_mix, h_mix = x_t, h
    return Inversion(x_mix, h_mix, tuple(timesteps), torch.stack(residuals) if keep_residuals else None)


@torch.inference_mode()
def denoise(
    model: EpsModel,
    x_mix: Float[Tensor, "b c h w"],
    timesteps: Sequence[int],
    *,
    eta: float = 0.0,
    noise: Callable[[int], Tensor] | None = None,
    residuals: Float[Tensor, "s b c h w"] | None = None,
    h_shift: HShift | None = None,
) -> Float[Tensor, "b c h w"]:
    """Walk down a path to finished images.

    Args:
        model: The frozen model.
        x_mix: Latents at timesteps[-1].
        timesteps: Rising path, walked from its end; the last step leads to alpha_bar = 1.
        eta: 0 is deterministic, 1 has the variance of DDPM (DDIM eq. 16).
        noise: Gives the standard normal noise [B,C,H,W] of the step that leaves timestep t.
            Needed when eta > 0 and there are no residuals.
        residuals: Of `invert`, made with the same path and eta. They stand in for the noise:
            they are the noise with which the unedited image returns (an edit-friendly noise map
            in the sense of Huberman-Spiegelglas et al. 2024, taken along the deterministic path).
        h_shift: Move in h-space.

    Returns:
        Images in model range, not clipped.

    Raises:
        ValueError: eta > 0 with neither noise nor residuals, or residuals of another length.
    """
    if residuals is not None and len(residuals) != len(timesteps):
        raise ValueError(f"{len(residuals)} residuals for a path of {len(timesteps)} timesteps")
    x_t = x_mix.float()
    for position in reversed(range(len(timesteps))):
        t, t_next = timesteps[position], timesteps[position - 1] if position else CLEAN
        alpha_bars = model.schedule.alpha_bar(t), model.schedule.alpha_bar(t_next)
        eps = model.eps_with_h_shift(x_t, t, h_shift.shift) if h_shift and h_shift.active(t) else model.eps(x_t, t)
        if residuals is not None:
            x_t = ddim_mean(x_t, eps, *alpha_bars, eta=eta) + residuals[position]
        else:
            stochastic = ddim_sigma(*alpha_bars, eta) > 0
            drawn = noise(t).to(x_t) if stochastic and noise else None
            x_t = ddim_step(x_t, eps, *alpha_bars, eta=eta, noise=drawn)
    return x_t
