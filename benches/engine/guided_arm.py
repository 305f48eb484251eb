"""The guided edit as the stages make it, of random images by random hyperplanes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import yaml
from torch import Tensor
from torch.nn.functional import normalize
from torch.utils.flop_counter import FlopCounterMode

from benches.checkout import ROOT
from benches.engine.arms import images, wait
from boundaryflow.boundary import Boundary, Calibration
from boundaryflow.diffusion import BOTTLENECK, EpsModel, timestep_path
from boundaryflow.diffusion.observation import DENSITY
from boundaryflow.editing import Guidance, NoisedSource, guided_edit, observe_noised
from boundaryflow.rng import item_noise

NUM_PRESERVED = 6
_FAR = 100.0  # class means so far apart that an edit by a random hyperplane is no change below its threshold
NUM_DIRECTIONS = 3  # pulled back at a timestep: the edited attribute's normal, and two ways back to what is preserved


def default_guidance() -> tuple[Guidance, tuple[int, ...]]:
    """The guided edit of params.yaml's defaults, and the timesteps that it visits."""
    defaults = yaml.safe_load((ROOT / "params.yaml").read_text())["defaults"]
    guidance = Guidance(**defaults["edit"]["guided"])
    observe = defaults["observe"]
    return guidance, guidance.path(timestep_path(observe["t_max"], observe["num_steps"], DENSITY))


@dataclass
class GuidedArm:
    """One attribute edited at one strength, six others preserved.

    Attributes:
        net: The frozen model.
        model: Its name.
        num_images: In one batch.
        num_timesteps: Only the first so many of the timesteps; None is all.
        seconds: Spent so far on noise, on `observe` and on `edit`.
    """

    net: EpsModel
    model: str
    num_images: int
    num_timesteps: int | None = None
    seconds: dict[str, float] = field(default_factory=lambda: {"noise": 0.0, "observe": 0.0, "edit": 0.0})

    def __post_init__(self) -> None:
        self.guidance, path = default_guidance()
        self.path = path[: self.num_timesteps]
        torch.manual_seed(0)
        self.x_0 = images(self.model, self.num_images)
        num_dimensions = self.net.eps_and_features(self.x_0[:1], 0, BOTTLENECK)[1].shape[1]
        self._planes = [
            [_plane(self.net, t, f"attribute {number}", num_dimensions) for t in self.path]
            for number in range(1 + NUM_PRESERVED)
        ]

    def __call__(self) -> None:
        """Observe a batch, and edit it."""
        wait()
        started = time.perf_counter()
        source = self.observe()
        wait()
        observed = time.perf_counter()
        self.edit(source)
        wait()
        self.seconds["observe"] += observed - started
        self.seconds["edit"] += time.perf_counter() - observed

    def observe(self) -> NoisedSource:
        """What `GuidedEditor.open` does."""
        return observe_noised(self.net, self.x_0, self.path, self._noise, num_noises=self.guidance.num_noises)

    def edit(self, source: NoisedSource) -> Tensor:
        """What `GuidedEditor.edit` does: [B,1,C,H,W]."""
        edited, *preserved = self._planes
        directions = torch.ones(self.num_images, 1)
        return guided_edit(self.net, source, [edited], directions, [1.0], self.guidance, preserved=preserved)

    def _noise(self, t: int, draw: int) -> Tensor:
        started = time.perf_counter()
        noise = item_noise(0, [str(row) for row in range(self.num_images)], f"{t} {draw}", self.x_0.shape[1:])
        self.seconds["noise"] += time.perf_counter() - started
        return noise

    def flops(self) -> tuple[float, int]:
        """Operations for one image, and the calls of the network among them."""
        x_t, plane = self.x_0[:1], self._planes[0][0].normal.to(self.x_0)
        with FlopCounterMode(display=False) as counter:
            self.net.eps(x_t, 0)
        call = counter.get_total_flops()
        with FlopCounterMode(display=False) as counter:
            self.net.pullback(x_t, 0, BOTTLENECK, lambda seen: plane.expand(len(seen), NUM_DIRECTIONS, -1))
        pullback = counter.get_total_flops()
        noised = len(self.path) * self.guidance.num_noises
        projected = noised if self.guidance.tweedie_projection else 0
        return noised * (call + pullback) + projected * call, 2 * noised + projected

    def short(self) -> GuidedArm:
        """The same with one timestep, to warm up."""
        return replace(self, num_timesteps=1, seconds={"noise": 0.0, "observe": 0.0, "edit": 0.0})

    def per_turn(self, turns: int) -> dict[str, Any]:
        """Seconds of one batch."""
        return {f"{name}_s": seconds / turns for name, seconds in self.seconds.items()}


def _plane(net: EpsModel, t: int, attribute: str, num_dimensions: int) -> Boundary:
    normal = normalize(torch.randn(num_dimensions), dim=0)
    calibration = Calibration(_FAR, -_FAR, _FAR, 0.9, 100)
    return Boundary(normal, 0.0, "h", t, attribute, net.sha256, calibration, pattern=normal)


def largest_difference(one: Sequence[Tensor], other: Sequence[Tensor]) -> float:
    """Between the values of two lists of tensors."""
    return max(float((a.cpu() - b.cpu()).abs().max()) for a, b in zip(one, other, strict=True))
