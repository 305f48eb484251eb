"""Train a small ε-prediction denoiser (DDPM, linear betas, T = 1000), and save it in diffusers' format.

Weighted ε-MSE, uniform timesteps (stratified within a batch), horizontal flips where the data set is
symmetric. Convolution and attention matrices are updated by Muon (orthogonalised momentum), all
else by AdamW; constant learning rate, then linear to zero; power-function EMA (Karras et al. 2024,
EDM2, section 3.1) whose width grows with the run. A checkpoint holds everything, so a killed run
continues where it was.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

LOG = logging.getLogger(__name__)
NUM_TRAIN_TIMESTEPS = 1000


@dataclass(frozen=True)
class TrainSettings:
    """How a denoiser is trained.

    Attributes:
        num_steps: Optimiser steps in all; a resumed run may name more or fewer.
        decay_share: Last part of the run, over which the learning rate falls to zero.
        ema_gamma: Exponent of the power-function EMA; 6.94 is a width of 10 % of the run.
    """

    num_steps: int
    batch_size: int = 32
    muon_lr: float = 0.02
    adam_lr: float = 1e-3
    decay_share: float = 0.35
    ema_gamma: float = 6.94
    flip: bool = False
    seed: int = 0


class Muon(torch.optim.Optimizer):
    """Momentum whose matrices are orthogonalised before the step (Jordan et al. 2024).

    A convolution's weight counts as an [out, in * height * width] matrix.
    """

    def __init__(self, params: list[nn.Parameter], lr: float, momentum: float = 0.95) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Take one step; the processes of a group orthogonalise a share of the matrices each."""
        rank, world = _place()
        for group in self.param_groups:
            updates: list[Tensor] = []
            for index, p in enumerate(group["params"]):
                state = self.state[p]
                if not state:
                    state["momentum"] = torch.zeros_like(p)
                buffer = state["momentum"].lerp_(p.grad, 1 - group["momentum"])
                if index % world != rank:
                    updates.append(torch.zeros_like(p).flatten())
                    continue
                update = p.grad.lerp(buffer, group["momentum"])
                matrix = _orthogonalise(update.reshape(len(update), -1))
                gain = max(1.0, matrix.shape[0] / matrix.shape[1]) ** 0.5
                updates.append((gain * matrix).flatten())
            together = _sum_over_processes(torch.cat(updates))
            for p, update in zip(group["params"], together.split([len(u) for u in updates]), strict=True):
                p.add_(update.reshape(p.shape), alpha=-group["lr"])


@torch.no_grad()
def open_identity_path(unet: Any, offset: float = 16.0) -> None:
    """Start a `UNet2DModel` as eps(x_t, t) = x_t, which is the answer at the noisy end.

    Near t = T the noise is the sample itself, to a part in a hundred and fifty; whatever the
    network gets wrong there comes back that many times larger in the predicted image. A network
    of this class has no connection from input to output and would learn one slowly. But it can
    hold one: the first convolution copies the sample, the last skip connection hands it to
    channel pairs (+x, -x), and silu(y) - silu(-y) = y carries it through the last activation.
    Each group of the last GroupNorm also gets a pair of constants (+offset, -offset). They leave
    the group's mean at zero and make up nearly all of its variance, so the norm neither takes
    away the mean of x nor rescales it.

    Args:
        unet: A freshly made network; each group of its last norm must have room for one pair of
            constants beside whole pairs, and all groups together for a pair per channel of the
            sample.
        offset: Size of the constants, in standard deviations of the sample.

    Raises:
        ValueError: There is too little room.
    """
    folded, width = unet.conv_in.in_channels, unet.conv_in.out_channels
    groups = unet.conv_norm_out.num_groups
    size = width // groups
    pairs = size // 2 - 1
    if size % 2 or pairs * groups < folded:
        raise ValueError(
            f"{groups} groups of {size} channels hold {pairs * groups} pairs beside constants, not {folded}"
        )
    centre = unet.conv_in.weight.shape[-1] // 2
    last = unet.up_blocks[-1].resnets[-1]
    shortcut = last.conv_shortcut
    skip = shortcut.in_channels - width  # the first convolution's channels come last
    for part in (
        last.conv2.weight,
        last.conv2.bias,
        shortcut.weight,
        shortcut.bias,
        unet.conv_out.weight,
        unet.conv_out.bias,
    ):
        part.zero_()
    unet.conv_in.weight[:folded] = 0
    unet.conv_in.bias[:folded] = 0
    gain = ((2 * offset**2 + 2 * pairs) / size) ** 0.5
    for channel in range(folded):
        group, place = divmod(channel, pairs)
        first = group * size + 2 * place
        unet.conv_in.weight[channel, channel, centre, centre] = 1
        for sign, pair in ((1, first), (-1, first + 1)):
            shortcut.weight[pair, skip + channel] = sign
            unet.conv_out.weight[channel, pair, centre, centre] = sign * gain
    for group in range(groups):
        shortcut.bias[(group + 1) * size - 2] = offset
        shortcut.bias[(group + 1) * size - 1] = -offset


def _place() -> tuple[int, int]:
    """Rank and number of processes."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def _sum_over_processes(values: Tensor) -> Tensor:
    if dist.is_initialized():
        dist.all_reduce(values)
    return values


def _average_gradients(net: nn.Module) -> None:
    parameters = list(net.parameters())
    together = _sum_over_processes(torch.cat([p.grad.flatten() for p in parameters if p.grad is not None]))
    together /= _place()[1]
    for p, grad in zip(parameters, together.split([p.numel() for p in parameters]), strict=True):
        p.grad = grad.reshape(p.shape)


def _orthogonalise(matrix: Tensor, num_iterations: int = 5) -> Tensor:
    """Quintic Newton-Schulz iteration towards the nearest semi-orthogonal matrix."""
    a, b, c = 3.4445, -4.7750, 2.0315
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    x = wide / (wide.norm() + 1e-7)
    for _ in range(num_iterations):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x if matrix.shape[0] <= matrix.shape[1] else x.T


def train(
    build: Callable[[], nn.Module],
    images: Callable[[Tensor], Tensor],
    num_images: int,
    settings: TrainSettings,
    checkpoint: Path,
    *,
    checkpoint_every_s: float = 300,
) -> nn.Module:
    """Train, or go on training, and return the network with its averaged weights.

    Args:
        build: Makes the untrained network; called as net(x_t, t).sample.
        images: Maps indices [B] to clean images [B,C,H,W] in the network's layout.
        num_images: Size of the training set.
        settings: See `TrainSettings`.
        checkpoint: Where the state of the run is kept.
        checkpoint_every_s: Seconds between checkpoints.
    """
    if "RANK" in os.environ and not dist.is_initialized():
        dist.init_process_group("gloo")
    torch.manual_seed(settings.seed)  # initial weights; nothing else in this process draws from it
    net = build().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    ema = {k: v.clone() for k, v in net.state_dict().items()}
    optimisers = _optimisers(net, settings)
    step, elapsed_s = 0, 0.0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        net.load_state_dict(state["net"])
        ema = state["ema"]
        for optimiser, kept in zip(optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(kept)
        step, elapsed_s = state["step"], state["elapsed_s"]
        LOG.info("continuing at step %d after %.0f s", step, elapsed_s)

    def save() -> None:
        if _place()[0] != 0:
            return
        temporary = checkpoint.with_suffix(".tmp")
        state = {"net": net.state_dict(), "ema": ema, "optimisers": [o.state_dict() for o in optimisers]}
        torch.save({**state, "step": step, "elapsed_s": elapsed_s + time.monotonic() - started}, temporary)
        os.replace(temporary, checkpoint)

    alphas_cumprod = (1 - torch.linspace(1e-4, 0.02, NUM_TRAIN_TIMESTEPS, dtype=torch.float64)).cumprod(0).float()
    base_lrs = [o.param_groups[0]["lr"] for o in _optimisers(net, settings)]
    started = saved = time.monotonic()
    running: float | None = None
    while step < settings.num_steps:
        draw = torch.Generator().manual_seed(settings.seed * 1_000_003 + step)
        loss = _loss(net, images, num_images, settings, alphas_cumprod, draw)
        for optimiser in optimisers:
            optimiser.zero_grad(set_to_none=True)
        loss.backward()
        _average_gradients(net)
        factor = _lr_factor(step, settings)
        for optimiser, lr in zip(optimisers, base_lrs, strict=True):
            optimiser.param_groups[0]["lr"] = lr * factor
            optimiser.step()
        step += 1
        keep = (1 - 1 / step) ** (settings.ema_gamma + 1)
        with torch.no_grad():
            for name, value in net.state_dict().items():
                ema[name].lerp_(value, 1 - keep)
        running = loss.item() if running is None else 0.98 * running + 0.02 * loss.item()
        if step % 50 == 0 and _place()[0] == 0:
            spent_s = elapsed_s + time.monotonic() - started
            LOG.info("step %d/%d loss %.4f, rate x%.2f, %.0f s", step, settings.num_steps, running, factor, spent_s)
        if time.monotonic() - saved > checkpoint_every_s:
            save()
            saved = time.monotonic()
    save()
    net.load_state_dict(ema)
    return net.eval()


def _loss(
    net: nn.Module,
    images: Callable[[Tensor], Tensor],
    num_images: int,
    settings: TrainSettings,
    alphas_cumprod: Tensor,
    draw: torch.Generator,
) -> Tensor:
    batch = settings.batch_size
    x_0 = images(torch.randint(num_images, (batch,), generator=draw))
    if settings.flip and torch.rand((), generator=draw) < 0.5:
        x_0 = images_flipped(x_0)
    strata = (torch.arange(batch) + torch.rand(batch, generator=draw)) / batch
    t = (strata * NUM_TRAIN_TIMESTEPS).long().clamp(max=NUM_TRAIN_TIMESTEPS - 1)
    noise = torch.randn(x_0.shape, generator=draw)
    rank, world = _place()
    x_0, t, noise = x_0[rank::world], t[rank::world], noise[rank::world]
    alpha_bar = alphas_cumprod[t][:, None, None, None]
    x_t = (alpha_bar.sqrt() * x_0 + (1 - alpha_bar).sqrt() * noise).contiguous(memory_format=torch.channels_last)
    errors = (net(x_t, t).sample - noise).square().mean((1, 2, 3))
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


def images_flipped(unshuffled: Tensor, factor: int = 2) -> Tensor:
    """Mirror images that are folded into channels: [B, C * factor^2, H, W]."""
    return F.pixel_unshuffle(F.pixel_shuffle(unshuffled, factor).flip(-1), factor)


def _optimisers(net: nn.Module, settings: TrainSettings) -> list[torch.optim.Optimizer]:
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, p in net.named_parameters():
        ends = name.startswith(("conv_in", "conv_out", "time_embedding")) or "conv_shortcut" in name
        (matrices if p.ndim >= 2 and not ends else others).append(p)
    return [
        Muon(matrices, lr=settings.muon_lr),
        torch.optim.AdamW(others, lr=settings.adam_lr, betas=(0.9, 0.99), weight_decay=0),
    ]


def _lr_factor(step: int, settings: TrainSettings) -> float:
    left = (settings.num_steps - step) / max(1, settings.num_steps * settings.decay_share)
    return min(1.0, (step + 1) / 100, left)


def save_pretrained(
    net: Any, folder: Path, card: dict[str, Any], settings: TrainSettings, *, pixel_unshuffle: int
) -> None:
    """Write a diffusers folder with half-precision weights, how to feed them, and how they were made."""
    half = net.half()
    half.save_pretrained(folder)
    scheduler = {
        "_class_name": "DDIMScheduler",
        "num_train_timesteps": NUM_TRAIN_TIMESTEPS,
        "beta_start": 1e-4,
        "beta_end": 0.02,
        "beta_schedule": "linear",
        "prediction_type": "epsilon",
        "clip_sample": False,
    }
    (folder / "scheduler_config.json").write_text(json.dumps(scheduler, indent=2) + "\n")
    (folder / "boundaryflow.json").write_text(json.dumps({"pixel_unshuffle": pixel_unshuffle}, indent=2) + "\n")
    (folder / "training.json").write_text(json.dumps({**card, "settings": asdict(settings)}, indent=2) + "\n")
