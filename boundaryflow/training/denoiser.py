"""Training of a small ε-prediction denoiser (DDPM), step by step.

Weighted ε-MSE, uniform timesteps (stratified within a batch), images mirrored at random where the data
set is symmetric. Convolution and attention matrices are updated by Muon (orthogonalised momentum), all
else by AdamW; constant learning rate, then linear to zero; power-function EMA (Karras et al. 2024,
EDM2, section 3.1) whose width grows with the run. What a step draws depends on the seed and its number
alone, so a run that goes on from its state ends where an undisturbed one does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from boundaryflow.diffusion import NoiseSchedule
from boundaryflow.pixels import to_model_range
from boundaryflow.training.muon import Muon
from boundaryflow.training.network import NetworkSettings, build_network
from boundaryflow.training.quality import stratified_timesteps, weighted_loss

_WARM_UP_STEPS = 100
_ADAM_SHARE = 0.05  # of Muon's learning rate


@dataclass(frozen=True)
class TrainSettings:
    """How a denoiser is trained.

    Attributes:
        batch_size: Images in a step.
        learning_rate: Of Muon; AdamW's is a twentieth.
        decay_share: Last part of the run, over which the learning rate falls to zero.
        ema_gamma: Exponent of the power-function EMA; 6.94 is a width of 10 % of the run.
        mirror: Mirror half of the images, left to right.
        seed: Of the initial weights and of all draws.
    """

    batch_size: int = 32
    learning_rate: float = 0.02
    decay_share: float = 0.35
    ema_gamma: float = 6.94
    mirror: bool = False
    seed: int = 0


class DenoiserTraining:
    """A network in training.

    Args:
        network: What is trained.
        settings: How.
        schedule: Noise schedule.
        device: Where.
        dtype: bfloat16 computes the network in it (autocast); weights and optimisers stay float32.

    Attributes:
        step: Steps taken.
        loss: Running mean of the loss over about 50 steps, on the device.
    """

    def __init__(
        self,
        network: NetworkSettings,
        settings: TrainSettings,
        schedule: NoiseSchedule,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self._settings, self._device, self._dtype = settings, device, dtype
        self._fold = network.pixel_unshuffle
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            self.network = build_network(network)
        nn.Module.to(self.network, device=device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self._averaged = {name: p.detach().clone() for name, p in self.network.named_parameters()}
        self._optimisers = _optimisers(self.network, settings)
        self._alphas_cumprod = schedule.alphas_cumprod.float().to(device)
        self.step, self.loss = 0, torch.zeros((), device=device)

    def advance(self, pixels: NDArray[np.uint8] | Tensor, rows: NDArray[np.int64], share: float) -> None:
        """Take one step.

        Args:
            pixels: [N,C,S,S] uint8 images; a tensor is faster where it lies on the device.
            rows: Which of them may be drawn.
            share: How much of the run is done, in [0, 1): it decides the learning rate.
        """
        seed = self._settings.seed * 1_000_003 + self.step
        draw, near = torch.Generator().manual_seed(seed), torch.Generator(self._device).manual_seed(seed + 1)
        chosen = rows[torch.randint(len(rows), (self._settings.batch_size,), generator=draw).numpy()]
        if isinstance(pixels, Tensor):
            x_0 = to_model_range(pixels[torch.from_numpy(chosen).to(pixels.device)].to(self._device))
        else:
            x_0 = to_model_range(torch.from_numpy(np.ascontiguousarray(pixels[chosen])).to(self._device))
        if self._settings.mirror:
            mirrored = torch.rand(len(x_0), generator=draw).lt(0.5).to(self._device)
            x_0 = torch.where(mirrored[:, None, None, None], x_0.flip(-1), x_0)
        t = stratified_timesteps(len(x_0), len(self._alphas_cumprod), near)
        noise = torch.randn(x_0.shape, generator=near, device=self._device)
        loss = weighted_loss(self._predict, x_0, t, noise, self._alphas_cumprod)
        for optimiser in self._optimisers:
            optimiser.zero_grad(set_to_none=True)
        loss.backward()
        factor = min(1.0, (self.step + 1) / _WARM_UP_STEPS, (1 - share) / max(self._settings.decay_share, 1e-9))
        for optimiser, scale in zip(self._optimisers, (1, _ADAM_SHARE), strict=True):
            optimiser.param_groups[0]["lr"] = self._settings.learning_rate * scale * factor
            optimiser.step()
        self.step += 1
        self._average()
        self.loss = loss.detach() if self.step == 1 else self.loss.lerp(loss.detach(), 0.02)

    @torch.no_grad()
    def start_from(self, weights: Mapping[str, Tensor]) -> None:
        """Start from the weights of a trained network instead of an untrained one.

        Args:
            weights: Name of each parameter to its value.
        """
        for name, p in self.network.named_parameters():
            p.copy_(weights[name])
            self._averaged[name].copy_(p)

    def averaged_half(self) -> dict[str, Tensor]:
        """The averaged weights in half precision, on the CPU."""
        return {name: value.half().cpu().contiguous() for name, value in self._averaged.items()}

    def state(self) -> dict[str, Tensor]:
        """Everything that the next steps depend on, but for `step`."""
        tensors = {"loss": self.loss, **{f"averaged.{name}": value for name, value in self._averaged.items()}}
        tensors |= {f"network.{name}": p.detach() for name, p in self.network.named_parameters()}
        for number, optimiser in enumerate(self._optimisers):
            kept = cast("dict[int, dict[str, Tensor]]", optimiser.state_dict()["state"])
            tensors |= {f"{number}.{p}.{name}": value for p, of_p in kept.items() for name, value in of_p.items()}
        return tensors

    def state_shapes(self, step: int) -> dict[str, tuple[int, ...]]:
        """Names and shapes of `state` after so many steps."""
        shapes: dict[str, tuple[int, ...]] = {"loss": ()}
        for name, p in self.network.named_parameters():
            shapes |= {f"network.{name}": tuple(p.shape), f"averaged.{name}": tuple(p.shape)}
        for number, optimiser in enumerate(self._optimisers if step else ()):
            is_muon = isinstance(optimiser, Muon)
            for index, p in enumerate(optimiser.param_groups[0]["params"]):
                names = ("momentum",) if is_muon else ("exp_avg", "exp_avg_sq")
                shapes |= {f"{number}.{index}.{name}": tuple(p.shape) for name in names}
                shapes |= {} if is_muon else {f"{number}.{index}.step": ()}
        return shapes

    def go_on_from(self, tensors: Mapping[str, Tensor], step: int) -> None:
        """Take up a state of the same network and settings.

        Args:
            tensors: Of the names and shapes of `state_shapes`.
            step: Steps taken.

        Raises:
            ValueError: A tensor is of another type, or has NaN or infinite values.
        """
        for name, value in tensors.items():
            if value.dtype != torch.float32 or not value.isfinite().all():
                raise ValueError(f"tensor {name} is not of finite float32 numbers")
        self.step, self.loss = step, tensors["loss"].to(self._device)
        with torch.no_grad():
            for name, p in self.network.named_parameters():
                p.copy_(tensors[f"network.{name}"])
                self._averaged[name].copy_(tensors[f"averaged.{name}"])
        for number, optimiser in enumerate(self._optimisers):
            kept: dict[int, dict[str, Tensor]] = {}
            for key, value in tensors.items():
                if key.startswith(f"{number}."):
                    _, p, name = key.split(".")
                    kept.setdefault(int(p), {})[name] = value
            optimiser.load_state_dict({**optimiser.state_dict(), "state": kept})

    def _predict(self, x_t: Tensor, t: Tensor) -> Tensor:
        folded = F.pixel_unshuffle(x_t, self._fold).contiguous(memory_format=torch.channels_last)
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._dtype == torch.bfloat16):
            eps: Any = self.network(folded, t)
        return F.pixel_shuffle(eps.sample, self._fold)

    @torch.no_grad()
    def _average(self) -> None:
        keep = (1 - 1 / self.step) ** (self._settings.ema_gamma + 1)
        get_ema_multi_avg_fn(keep)(list(self._averaged.values()), list(self.network.parameters()), self.step)


def _optimisers(network: nn.Module, settings: TrainSettings) -> list[torch.optim.Optimizer]:
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, p in network.named_parameters():
        ends = name.startswith(("conv_in", "conv_out", "time_embedding")) or "conv_shortcut" in name
        (matrices if p.ndim >= 2 and not ends else others).append(p)
    adam = torch.optim.AdamW(others, lr=settings.learning_rate * _ADAM_SHARE, betas=(0.9, 0.99), weight_decay=0)
    return [Muon(matrices, lr=settings.learning_rate), adam]
