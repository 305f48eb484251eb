"""Noise added, and one DDIM step. Source: Song et al. 2021, "Denoising diffusion implicit models", eq. 12 and 16."""

from __future__ import annotations

import math

from jaxtyping import Float
from torch import Tensor


def noised(
    x_0: Float[Tensor, "b c h w"], noise: Float[Tensor, "b c h w"], alpha_bar: float
) -> Float[Tensor, "b c h w"]:
    """A draw of the forward process: sqrt(alpha_bar) x_0 + sqrt(1 - alpha_bar) noise (DDPM eq. 4).

    Args:
        x_0: Images in model range.
        noise: Standard normal noise, moved to where the images are.
        alpha_bar: Cumulative signal level, in (0, 1].
    """
    return alpha_bar**0.5 * x_0.float() + (1 - alpha_bar) ** 0.5 * noise.to(x_0.device)


def noise_to_signal(alpha_bar: float) -> float:
    """The factor of the noise where the image has factor 1, as in x_t / sqrt(alpha_bar) = x_0 + factor noise."""
    return ((1 - alpha_bar) / alpha_bar) ** 0.5


def ddim_sigma(alpha_bar_t: float, alpha_bar_next: float, eta: float) -> float:
    """Standard deviation of the noise that one step adds (DDIM eq. 16).

    Args:
        alpha_bar_t: Cumulative signal level now, in (0, 1].
        alpha_bar_next: The same after the step.
        eta: 0 is deterministic, 1 has the variance of DDPM.

    Raises:
        ValueError: eta is outside [0, 1], or above 0 on a step towards noise.
    """
    if not 0 <= eta <= 1:
        raise ValueError(f"eta is {eta}, must be in [0, 1]")
    if eta == 0 or alpha_bar_next >= 1:
        return 0.0
    if alpha_bar_next < alpha_bar_t:
        raise ValueError(f"eta is {eta} on a step towards noise; inversion is deterministic, set eta to 0")
    variance = (1 - alpha_bar_next) / (1 - alpha_bar_t) * (1 - alpha_bar_t / alpha_bar_next)
    return eta * math.sqrt(variance)


def ddim_mean(
    x_t: Float[Tensor, "b c h w"],
    eps: Float[Tensor, "b c h w"],
    alpha_bar_t: float,
    alpha_bar_next: float,
    *,
    eta: float = 0.0,
) -> Float[Tensor, "b c h w"]:
    """What one DDIM step gives before its noise is added (DDIM eq. 12 without the last term).

    Args:
        x_t: Sample at the current timestep, model range, not clipped.
        eps: Noise predicted at (x_t, t), about unit variance.
        alpha_bar_t: Cumulative signal level now, in (0, 1].
        alpha_bar_next: The same after the step; 1.0 is the clean end.
        eta: 0 is deterministic.
    """
    sigma = ddim_sigma(alpha_bar_t, alpha_bar_next, eta)
    along_x = math.sqrt(alpha_bar_next / alpha_bar_t)
    along_eps = math.sqrt(max(0.0, 1 - alpha_bar_next - sigma**2)) - along_x * math.sqrt(1 - alpha_bar_t)
    return along_x * x_t + along_eps * eps


def ddim_step(
    x_t: Float[Tensor, "b c h w"],
    eps: Float[Tensor, "b c h w"],
    alpha_bar_t: float,
    alpha_bar_next: float,
    *,
    eta: float = 0.0,
    noise: Float[Tensor, "b c h w"] | None = None,
) -> Float[Tensor, "b c h w"]:
    """Move a sample one DDIM step, towards noise (inversion) or towards the image.

    Source: Song et al. 2021 (DDIM), eq. 12 and 16; their alpha is our alpha_bar.

    Args:
        x_t: Sample at the current timestep, model range, not clipped.
        eps: Noise predicted at (x_t, t), about unit variance.
        alpha_bar_t: Cumulative signal level now, in (0, 1].
        alpha_bar_next: The same after the step; 1.0 is the clean end.
        eta: 0 is deterministic. Must be 0 when alpha_bar_next < alpha_bar_t.
        noise: Standard normal, required when the step is stochastic.

    Returns:
        Sample at the next timestep, on the device and in the dtype of x_t.

    Raises:
        ValueError: A stochastic step without noise, or eta > 0 while inverting.
    """
    mean = ddim_mean(x_t, eps, alpha_bar_t, alpha_bar_next, eta=eta)
    sigma = ddim_sigma(alpha_bar_t, alpha_bar_next, eta)
    if sigma == 0:
        return mean
    if noise is None:
        raise ValueError(f"eta is {eta} but no noise was given; pass standard normal noise of the shape of x_t")
    return mean + sigma * noise
