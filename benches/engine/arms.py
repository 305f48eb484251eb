"""Ways to invert an image and edit it once, each measured in a process of its own.

    python -m benches.engine.arms ARM MODEL PATH_STEPS SECONDS

Prints one line of JSON. A process of its own, because how the C library handles memory holds for a whole process.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from diffusers.models.unets.unet_2d import UNet2DModel
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_ddim_inverse import DDIMInverseScheduler
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benches.quality.pictures import Faces
from boundaryflow.boundary import Boundary, Calibration
from boundaryflow.diffusion import NoiseSchedule, invert, timestep_path
from boundaryflow.editing import edit_at_strengths
from boundaryflow.models import build_network, open_checkpoint
from boundaryflow.models.unet import UNetModel
from boundaryflow.runtime.allocator import keep_freed_memory
from boundaryflow.runtime.device import device, resolve_dtype
from boundaryflow.runtime.frozen_model import batch_size

T_MIX = 500
MODELS = ("avatars64", "paper256")
_DDPM_256: dict[str, Any] = {  # google/ddpm-celebahq-256, the network of the paper; config.json of the hub
    "sample_size": 256, "in_channels": 3, "out_channels": 3, "block_out_channels": (128, 128, 256, 256, 512, 512),
    "layers_per_block": 2, "down_block_types": ("DownBlock2D",) * 4 + ("AttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "AttnUpBlock2D") + ("UpBlock2D",) * 4, "attention_head_dim": None,
    "downsample_padding": 0, "freq_shift": 1, "flip_sin_to_cos": False, "norm_eps": 1e-6,
}  # fmt: skip
_DIFFUSERS_BATCH = {"avatars64": 32, "paper256": 2}
Loop = Callable[[], None]


class Clock:
    """Seconds spent within a network."""

    def __init__(self, network: nn.Module) -> None:
        self.network_s, self.calls, self._started = 0.0, 0, 0.0
        network.register_forward_pre_hook(self._before)
        network.register_forward_hook(self._after)

    def _before(self, *_: object) -> None:
        _wait()
        self._started = time.perf_counter()

    def _after(self, *_: object) -> None:
        _wait()
        self.network_s += time.perf_counter() - self._started
        self.calls += 1


def _wait() -> None:
    if device().type == "cuda":
        torch.cuda.synchronize()


def network(model: str) -> tuple[UNet2DModel, int]:
    """A network as diffusers gives it, and how its images are folded; of the paper's with random weights."""
    if model == "avatars64":
        checkpoint = open_checkpoint("data/pretrained/avatars64")
        return build_network(checkpoint).eval().requires_grad_(False), checkpoint.stated.pixel_unshuffle
    torch.manual_seed(0)
    return UNet2DModel(**_DDPM_256).eval().requires_grad_(False), 1


def _images(model: str, num: int, fold: int = 1) -> Tensor:
    x_0 = Faces.draw(4, num).x_0 if model == "avatars64" else torch.randn(num, 3, 256, 256).clamp(-1, 1)
    return nn.functional.pixel_unshuffle(x_0, fold).to(device())


def release(model: str, num_steps: int) -> tuple[Loop, Clock, int]:
    """The loop of the authors' release: one image, float32, num_steps - 1 calls up and num_steps down.

    Source: github L-YeZhu/BoundaryDiffusion, commit 98c8289, as described in docs/method.md.
    """
    unet, fold = network(model)
    nn.Module.to(unet, device())
    seen: list[Tensor] = []
    changed: list[Tensor] = []

    def at_bottleneck(_module: object, _inputs: object, output: Tensor) -> Tensor:
        seen[:] = [output]
        return changed[0] if changed else output

    unet.mid_block.register_forward_hook(at_bottleneck)  # pyright: ignore[reportOptionalMemberAccess]
    x_0 = _images(model, 1, fold)
    path = timestep_path(T_MIX, num_steps)
    betas = torch.linspace(1e-4, 0.02, 1000).to(device())
    normal = torch.randn(x_0.numel(), device=device())
    normal /= normal.norm()

    def step(x_t: Tensor, t: int, t_next: int, eta: float) -> Tensor:
        eps: Tensor = unet(x_t, torch.ones(1, device=device()) * t).sample
        alphas = (1.0 - betas).cumprod(0)  # the release builds it at every step
        now, then = alphas[t], alphas[t_next] if t_next >= 0 else torch.ones((), device=device())
        x_0_t = (x_t - eps * (1 - now).sqrt()) / now.sqrt()
        sigma = eta * ((1 - now / then) * (1 - then) / (1 - now)).clamp(min=0).sqrt()
        return then.sqrt() * x_0_t + (1 - then - sigma**2).sqrt() * eps + sigma * torch.randn_like(x_t)

    def once() -> None:
        x_t, h = x_0, x_0
        changed.clear()
        for t, t_next in zip(path, path[1:], strict=False):
            x_t = step(x_t, t, t_next, 0.0)
            h = seen[0]
        flat = x_t.flatten()
        x_t = (flat + (50.0 - flat @ normal) * normal).reshape(x_t.shape)
        for t, t_next in reversed(list(zip(path, [-1, *path], strict=False))):
            changed[:] = [h]
            x_t = step(x_t, t, t_next, 1.0)
            h = seen[0]

    return once, Clock(unet), 1


def diffusers(model: str, num_steps: int, dtype: torch.dtype = torch.float32) -> tuple[Loop, Clock, int]:
    """Diffusers' own schedulers, up with DDIMInverseScheduler and down with DDIMScheduler."""
    unet, fold = network(model)
    nn.Module.to(unet, device(), dtype)
    about: dict[str, Any] = {"beta_schedule": "linear", "clip_sample": False, "timestep_spacing": "leading"}
    up, down = DDIMInverseScheduler(**about), DDIMScheduler(**about, set_alpha_to_one=True)
    num_images = _DIFFUSERS_BATCH[model] if device().type == "cpu" else batch_size(ours_model(model))
    x_0 = _images(model, num_images, fold)
    times = torch.linspace(0, T_MIX, num_steps).long()

    def once() -> None:
        x_t = x_0.to(dtype)
        for scheduler, path in ((up, times), (down, times.flip(0))):
            scheduler.set_timesteps(1000 // (T_MIX // max(num_steps - 1, 1)))
            for t in path:
                eps = unet(x_t, t).sample
                x_t = scheduler.step(eps, int(t), x_t).prev_sample  # pyright: ignore[reportArgumentType, reportAttributeAccessIssue]

    return once, Clock(unet), num_images


def diffusers_bfloat16(model: str, num_steps: int) -> tuple[Loop, Clock, int]:
    """The same with the network and the recurrence in bfloat16."""
    return diffusers(model, num_steps, torch.bfloat16)


def ours_model(model: str) -> UNetModel:
    """As the stages open it."""
    unet, fold = network(model)
    nn.Module.to(unet, resolve_dtype("auto"))
    schedule = NoiseSchedule.linear()
    return UNetModel(unet, schedule, sha256="f" * 64, pixel_unshuffle=fold, device=device())


def ours(model: str, num_steps: int) -> tuple[Loop, Clock, int]:
    """What the stages do: num_steps calls up and as many down, with DDIM residuals; h belongs to the last step."""
    keep_freed_memory()
    net = ours_model(model)
    num_images = batch_size(net)
    x_0 = _images(model, num_images)
    path = timestep_path(T_MIX, num_steps)
    normal = torch.randn(x_0[0].numel())
    hyperplane = Boundary(
        normal / normal.norm(), 0.0, "eps", T_MIX, "any", net.sha256, Calibration(1.0, -1.0, 1.0, 0.9, 100)
    )

    def once() -> None:
        inversion = invert(net, x_0, path, keep_residuals=True, order=2)
        edit_at_strengths(net, inversion, {"eps": [hyperplane]}, torch.ones(num_images, 1), [1.0], scales={"eps": 2.0})

    return once, Clock(net._network), num_images  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]


ARMS: dict[str, Callable[[str, int], tuple[Loop, Clock, int]]] = {
    "release": release,
    "diffusers": diffusers,
    "diffusers bfloat16": diffusers_bfloat16,
    "ours": ours,
}


def ceiling() -> dict[str, float]:
    """Operations per second of large matrix products, the best of three sizes, in what the networks compute in."""
    found: dict[str, float] = {}
    for dtype in (torch.float32, resolve_dtype("auto")):
        best = 0.0
        for size in (1024, 2048, 4096):
            a = torch.randn(size, size, device=device()).to(dtype)
            torch.matmul(a, a)
            for _ in range(5):
                _wait()
                started = time.perf_counter()
                torch.matmul(a, a)
                _wait()
                best = max(best, 2 * size**3 / (time.perf_counter() - started))
        found[str(dtype).removeprefix("torch.")] = best
    return found


def count_flops(model: str, *, is_folded: bool) -> int:
    """Operations of one call on one image."""
    unet, fold = network(model)
    if is_folded:
        UNetModel(unet, NoiseSchedule.linear(), sha256="f" * 64)
    x = _images(model, 1, fold).cpu()
    with FlopCounterMode(display=False) as counter:
        unet(x, 1)
    return counter.get_total_flops()


@torch.inference_mode()
def measure(arm: str, model: str, num_steps: int, seconds: float) -> dict[str, Any]:
    """Images per second of one arm, repeated for so long and at least once, after a call that warms it up."""
    once, clock, num_images = ARMS[arm](model, 2)
    once()
    once, clock, num_images = ARMS[arm](model, num_steps)
    started, turns = time.perf_counter(), 0
    while turns == 0 or time.perf_counter() - started < seconds:
        once()
        turns += 1
    _wait()
    wall = time.perf_counter() - started
    return {
        "arm": arm,
        "model": model,
        "batch": num_images,
        "calls": clock.calls // turns,
        "images_per_s": turns * num_images / wall,
        "network_share": clock.network_s / wall,
    }


def main(arguments: Sequence[str]) -> None:
    """Measure what the arguments say."""
    if arguments[0] == "ceiling":
        print(json.dumps(ceiling()))
        return
    arm, model, num_steps, seconds = arguments
    print(json.dumps(measure(arm, model, int(num_steps), float(seconds))))


if __name__ == "__main__":
    main(sys.argv[1:])
