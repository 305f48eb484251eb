"""How good a denoiser is: its weighted loss, and images carried to noise and back."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from boundaryflow.diffusion import EpsModel, denoise, invert, timestep_path

T_ROUND_TRIP = 500
NUM_STEPS = 40
_AT_ONCE = 32


def weighted_loss(
    predict: Callable[[Tensor, Tensor], Tensor], x_0: Tensor, t: Tensor, noise: Tensor, alphas_cumprod: Tensor
) -> Tensor:
    """Weighted mean squared error of the predicted noise.

    Args:
        predict: Gives the noise [B,C,H,W] predicted at (x_t, t).
        x_0: [B,C,H,W] images in model range.
        t: [B] timesteps.
        noise: [B,C,H,W] standard normal.
        alphas_cumprod: [T] of the schedule, where the images are.
    """
    alpha_bar = alphas_cumprod[t][:, None, None, None]
    x_t = alpha_bar.sqrt() * x_0 + (1 - alpha_bar).sqrt() * noise
    errors = (predict(x_t, t).float() - noise).square().mean((1, 2, 3))
    return (_weight(alpha_bar.flatten()) * errors).mean()


def _weight(alpha_bar: Tensor, most: float = 20.0, fine: float = 0.05) -> Tensor:
    """Weight of the squared error of ε, per noise level.

    Plain ε-MSE spends nearly all its effort below t = 100, on detail that no one sees: a wrong ε
    there moves the image by sigma times the error. What a face looks like is decided between
    t = 300 and t = 800. So: the weight of a v-prediction loss (1 / alpha_bar, Salimans and Ho 2022),
    held at `most` where the noise is all there is, and faded out below sigma^2 = `fine`.
    """
    sigma_squared = (1 - alpha_bar) / alpha_bar
    return (1 / alpha_bar).clamp(max=most) * sigma_squared / (sigma_squared + fine)


def stratified_timesteps(num: int, num_timesteps: int, draw: torch.Generator) -> Tensor:
    """[num] timesteps, one from each of as many equal parts of the schedule."""
    strata = torch.arange(num, device=draw.device) + torch.rand(num, generator=draw, device=draw.device)
    return (strata / num * num_timesteps).long().clamp(max=num_timesteps - 1)


@torch.inference_mode()
def loss_of(model: EpsModel, x_0: Tensor, seed: int = 0) -> float:
    """`weighted_loss` of a frozen model, the same timesteps and noise for the same number of images.

    Args:
        model: Any.
        x_0: [N,C,H,W] images in model range.
        seed: Of timesteps and noise.
    """
    draw = torch.Generator().manual_seed(seed)
    t = stratified_timesteps(len(x_0), model.schedule.num_train_timesteps, draw)
    noise = torch.randn(x_0.shape, generator=draw)
    alphas_cumprod = model.schedule.alphas_cumprod.float()
    parts = zip(x_0.split(_AT_ONCE), t.split(_AT_ONCE), noise.split(_AT_ONCE), strict=True)
    losses = [weighted_loss(model.eps, some, at, eps, alphas_cumprod) * len(some) for some, at, eps in parts]
    return float(torch.stack(losses).sum() / len(x_0))


def round_trip_psnr_db(model: EpsModel, x_0: Tensor) -> float:
    """Mean PSNR in dB of images carried to t = 500 and back in 40 steps each way, without correction.

    Args:
        model: Any.
        x_0: [N,C,H,W] images in [-1, 1].
    """
    path = timestep_path(T_ROUND_TRIP, NUM_STEPS)
    values: list[Tensor] = []
    for some in x_0.split(_AT_ONCE):
        returned = denoise(model, invert(model, some, path).x_mix, path).clamp(-1, 1)
        error = ((returned - some) / 2).square().mean((1, 2, 3))  # of a range of 1
        values.append(-10 * error.log10())
    return round(float(torch.cat(values).mean()), 2)
