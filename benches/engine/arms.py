"""Ways to invert an image and edit it once, each measured in a process of its own.

    python -m benches.engine.arms ARM MODEL PATH_STEPS SECONDS

Prints one line of JSON. A process of its own, because how the C library handles memory holds for a whole process.
"""

from __future__ import annotations

import copy
import hashlib
import json
import sys
import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import torch
from diffusers.models.unets.unet_2d import UNet2DModel
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_ddim_inverse import DDIMInverseScheduler
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benches.quality.pictures import Faces
from boundaryflow.boundary import Boundary, Calibration
from boundaryflow.diffusion import EpsModel, NoiseSchedule, invert, timestep_path
from boundaryflow.editing import edit_at_strengths
from boundaryflow.models import build_network, open_checkpoint
from boundaryflow.models.preparation import Preparation, prepared_for
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
Loop = Callable[[], object]


class Clock:
    """Seconds spent within calls of a network; on a GPU by its own events, so that nothing waits for them."""

    def __init__(self, network: nn.Module) -> None:
        self._before: list[Any] = []
        self._after: list[Any] = []
        network.register_forward_pre_hook(lambda *_: self._before.append(_moment()))
        network.register_forward_hook(lambda *_: self._after.append(_moment()))

    @property
    def calls(self) -> int:
        """Calls so far."""
        return len(self._after)

    @property
    def network_s(self) -> float:
        """Seconds so far."""
        wait()
        pairs = list(zip(self._before, self._after, strict=True))
        if device().type == "cuda":
            return sum(before.elapsed_time(after) for before, after in pairs) / 1000
        return sum(after - before for before, after in pairs)


def _moment() -> Any:
    if device().type != "cuda":
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def wait() -> None:
    """Until the device has done all that it was given."""
    if device().type == "cuda":
        torch.cuda.synchronize()


def network(model: str) -> tuple[UNet2DModel, int]:
    """A network as diffusers gives it, and how its images are folded; of the paper's with random weights."""
    unet, fold = _network(model)
    return copy.deepcopy(unet), fold


@lru_cache(maxsize=1)
def _network(model: str) -> tuple[UNet2DModel, int]:
    if model == "paper256":
        torch.manual_seed(0)
        return UNet2DModel(**_DDPM_256).eval().requires_grad_(False), 1
    checkpoint = open_checkpoint(f"data/pretrained/{model}")
    return build_network(checkpoint).eval().requires_grad_(False), checkpoint.stated.pixel_unshuffle


def images(model: str, num: int, fold: int = 1) -> Tensor:
    """Avatars for their own network, for others random pixels, on the device."""
    size = 256 if model == "paper256" else 64
    x_0 = Faces.draw(4, num).x_0 if model == "avatars64" else torch.randn(num, 3, size, size).clamp(-1, 1)
    return nn.functional.pixel_unshuffle(x_0, fold).to(device())


def release(model: str, num_steps: int, _num_images: int | None = None) -> tuple[Loop, Clock, int]:
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
    x_0 = images(model, 1, fold)
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


def diffusers(
    model: str, num_steps: int, num_images: int | None = None, dtype: torch.dtype = torch.float32
) -> tuple[Loop, Clock, int]:
    """Diffusers' own schedulers, up with DDIMInverseScheduler and down with DDIMScheduler."""
    unet, fold = network(model)
    nn.Module.to(unet, device(), dtype)
    about: dict[str, Any] = {"beta_schedule": "linear", "clip_sample": False, "timestep_spacing": "leading"}
    up, down = DDIMInverseScheduler(**about), DDIMScheduler(**about, set_alpha_to_one=True)
    num_images = num_images or _DIFFUSERS_BATCH.get(model, 32)
    x_0 = images(model, num_images, fold)
    times = torch.linspace(0, T_MIX, num_steps).long()

    def once() -> None:
        x_t = x_0.to(dtype)
        for scheduler, path in ((up, times), (down, times.flip(0))):
            scheduler.set_timesteps(1000 // (T_MIX // max(num_steps - 1, 1)))
            for t in path:
                eps = unet(x_t, t).sample
                x_t = scheduler.step(eps, int(t), x_t).prev_sample  # pyright: ignore[reportArgumentType, reportAttributeAccessIssue]

    return once, Clock(unet), num_images


def diffusers_bfloat16(model: str, num_steps: int, num_images: int | None = None) -> tuple[Loop, Clock, int]:
    """The same with the network and the recurrence in bfloat16."""
    return diffusers(model, num_steps, num_images, torch.bfloat16)


def ours_model(
    model: str, dtype: str = "auto", where: torch.device | None = None, preparation: Preparation | None = None
) -> UNetModel:
    """As the stages open it, or prepared in another way."""
    unet, fold = network(model)
    nn.Module.to(unet, resolve_dtype(dtype))
    sha256 = hashlib.sha256(model.encode()).hexdigest()
    return UNetModel(
        unet, NoiseSchedule.linear(), sha256=sha256, pixel_unshuffle=fold, device=where or device(),
        preparation=preparation,
    )  # fmt: skip


def ours(model: str, num_steps: int, num_images: int | None = None) -> tuple[Loop, Clock, int]:
    """What the stages do: num_steps calls up and as many down, with DDIM residuals; h belongs to the last step."""
    keep_freed_memory()
    net = ours_model(model)
    num_images = num_images or batch_size(net)
    once = invert_and_edit(net, images(model, num_images), num_steps)
    return once, Clock(net._network), num_images  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]


def invert_and_edit(net: EpsModel, x_0: Tensor, num_steps: int) -> Callable[[], Tensor]:
    """Invert images and edit them once, by a random hyperplane."""
    path = timestep_path(T_MIX, num_steps)
    normal = torch.randn(x_0[0].numel())
    hyperplane = Boundary(
        normal / normal.norm(), 0.0, "eps", T_MIX, "any", net.sha256, Calibration(1.0, -1.0, 1.0, 0.9, 100)
    )

    def once() -> Tensor:
        inversion = invert(net, x_0, path, keep_residuals=True, order=2)
        return edit_at_strengths(
            net, inversion, {"eps": [hyperplane]}, torch.ones(len(x_0), 1), [1.0], scales={"eps": 2.0}
        )

    return once


ARMS: dict[str, Callable[[str, int, int | None], tuple[Loop, Clock, int]]] = {
    "release": release,
    "diffusers": diffusers,
    "diffusers bfloat16": diffusers_bfloat16,
    "ours": ours,
}


def ceiling(sizes: Sequence[int] = (1024, 2048, 4096)) -> dict[str, float]:
    """Operations per second of large matrix products, the best of some sizes, in what the networks compute in."""
    found: dict[str, float] = {}
    for dtype in (torch.float32, resolve_dtype("auto")):
        best = 0.0
        for size in sizes:
            a = torch.randn(size, size, device=device()).to(dtype)
            torch.matmul(a, a)
            for _ in range(5):
                wait()
                started = time.perf_counter()
                torch.matmul(a, a)
                wait()
                best = max(best, 2 * size**3 / (time.perf_counter() - started))
        found[str(dtype).removeprefix("torch.")] = best
    return found


def count_flops(model: str, *, is_ours: bool) -> int:
    """Operations of one call on one image, of the network as diffusers has it or as ours is prepared here."""
    unet, fold = network(model)
    if is_ours and prepared_for(device()).folds_upsampling:
        UNetModel(unet, NoiseSchedule.linear(), sha256="f" * 64)
    nn.Module.to(unet, device())
    x = images(model, 1, fold)
    with FlopCounterMode(display=False) as counter:
        unet(x, 1)
    return counter.get_total_flops()


def repeated(once: Loop, seconds: float) -> tuple[int, float]:
    """How often a loop ran in at least so many seconds, once at least, and in how many."""
    wait()
    started, turns = time.perf_counter(), 0
    while turns == 0 or time.perf_counter() - started < seconds:
        once()
        wait()
        turns += 1
    return turns, time.perf_counter() - started


@torch.inference_mode()
def measure(arm: str, model: str, num_steps: int, seconds: float, num_images: int | None = None) -> dict[str, Any]:
    """Images per second of one arm, repeated for so long and at least once, after a call that warms it up."""
    once, clock, num_images = ARMS[arm](model, 2, num_images)
    once()
    once, clock, num_images = ARMS[arm](model, num_steps, num_images)
    turns, wall = repeated(once, seconds)
    return {
        "arm": arm,
        "model": model,
        "batch": num_images,
        "calls": clock.calls // turns,
        "wall_s": wall / turns,
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
