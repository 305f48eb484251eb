"""Any network as a frozen ε-predictor whose layers can be seen, and whose bottleneck can be replaced."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from boundaryflow.diffusion import BOTTLENECK, Features, NoiseSchedule
from boundaryflow.models.layers import Look, Reached, find_layer, layer_shapes
from boundaryflow.models.prediction import Prediction, eps_from
from boundaryflow.models.preparation import Preparation, prepared_for


class FrozenModel:
    """A network behind the protocol `EpsModel`.

    The network computes in the dtype of its weights; samples and noise are float32 in any case.

    Args:
        network: Called as `network(x_t, t)`, gives noise (or v, or x_0, see `prediction`) of the shape of
            x_t, or that and a variance behind one another in the channels; put into evaluation mode and frozen here.
        bottleneck: The module within it whose output is h, the one in the middle.
        schedule: The noise schedule it was trained with.
        image_size: Side of its images in pixels.
        channels: 1 or 3.
        sha256: Hash of its weights and of what decides how they are used, see `network_sha256`.
        value_range: What black and white are to it.
        time_scale: None hands it whole-number timesteps. A number hands it floats, the timestep
            times that number: 1 / 1000 for a network that knows time as [0, 1).
        prediction: What it gives; converted to noise in closed form.
        reverses_channels: Was it trained on BGR? Its images are RGB here all the same.
        pixel_unshuffle: The network sees an image of C x S x S as C r^2 x S/r x S/r, an exact
            re-arrangement (Shi et al. 2016, read backwards). 1 for networks on plain pixels.
        named: The module within which layers are named (see `Features`); None: the network.
        device: Where it runs.
        preparation: Its layout is taken; None is the one for the device.
    """

    def __init__(
        self,
        network: nn.Module,
        bottleneck: nn.Module,
        schedule: NoiseSchedule,
        *,
        image_size: int,
        channels: int,
        sha256: str,
        value_range: tuple[float, float] = (-1.0, 1.0),
        time_scale: float | None = None,
        prediction: Prediction = "epsilon",
        reverses_channels: bool = False,
        pixel_unshuffle: int = 1,
        named: nn.Module | None = None,
        device: torch.device | str = "cpu",
        preparation: Preparation | None = None,
    ) -> None:
        self.schedule = schedule
        self.sha256 = sha256
        self.value_range = value_range
        self.image_size = image_size
        self.channels = channels
        self._time_scale = time_scale
        self._prediction: Prediction = prediction
        self._reverses_channels = reverses_channels
        self._fold = pixel_unshuffle
        self._dtype = next(network.parameters()).dtype
        self._device = torch.device(device)
        self._layout = (preparation or prepared_for(device)).layout
        self._network = network.to(device=self._device, memory_format=self._layout).eval()  # pyright: ignore[reportCallIssue]
        self._network.requires_grad_(False)
        self._bottleneck = bottleneck
        self._named = network if named is None else named

    def eps(self, x_t: Float[Tensor, "b c h w"], t: int | Tensor) -> Float[Tensor, "b c h w"]:
        """Predicted noise at (x_t, t)."""
        return self._call(x_t, t)

    def eps_and_h(
        self, x_t: Float[Tensor, "b c h w"], t: int | Tensor
    ) -> tuple[Float[Tensor, "b c h w"], Float[Tensor, "b ch hh wh"]]:
        """Predicted noise, and the bottleneck that it was made from."""
        look = self._look_at_h()
        return self._call(x_t, t, look), look.seen.to(x_t.device)

    def eps_with_h(
        self, x_t: Float[Tensor, "b c h w"], t: int | Tensor, h: Float[Tensor, "b ch hh wh"]
    ) -> tuple[Float[Tensor, "b c h w"], Float[Tensor, "b ch hh wh"]]:
        """Predicted noise with the bottleneck replaced, and the bottleneck as it would have been."""
        look = self._look_at_h(lambda _: h)
        return self._call(x_t, t, look), look.seen.to(x_t.device)

    def eps_with_h_shift(
        self, x_t: Float[Tensor, "b c h w"], t: int | Tensor, shift: Float[Tensor, "b ch hh wh"]
    ) -> Float[Tensor, "b c h w"]:
        """Predicted noise with `shift` added to the bottleneck."""
        return self._call(x_t, t, self._look_at_h(lambda seen: seen + shift.to(seen)))

    def eps_and_features(
        self, x_t: Float[Tensor, "b c h w"], t: int | Tensor, features: Features
    ) -> tuple[Float[Tensor, "b c h w"], Float[Tensor, "b d"]]:
        """Predicted noise, and the features that a layer gave on the way; see `EpsModel.eps_and_features`."""
        look = self._look_at(features)
        return self._call(x_t, t, look), look.seen.to(x_t.device)

    def features_only(self, x_t: Float[Tensor, "b c h w"], t: int | Tensor, features: Features) -> Float[Tensor, "b d"]:
        """The features of `eps_and_features`, to the last bit, without what the network computes behind their layer."""
        look = self._look_at(features, stops=True)
        with suppress(Reached):
            self._call(x_t, t, look)
        return look.seen.to(x_t.device)

    def pullback(
        self,
        x_t: Float[Tensor, "b c h w"],
        t: int | Tensor,
        features: Features,
        normals: Callable[[Float[Tensor, "b d"]], Float[Tensor, "b a d"]],
    ) -> tuple[Float[Tensor, "b c h w"], Float[Tensor, "b a c h w"]]:
        """Predicted noise, and directions of feature space pulled back to the sample.

        See `EpsModel.pullback`. Only the part of the network before the layer keeps what a gradient needs; for the
        bottleneck, the memory is about that of one training step of half the network.
        """
        home = x_t.device
        look = self._look_at(features)
        with torch.inference_mode(False), torch.enable_grad():
            # A clone: it may be an inference tensor, which autograd does not take.
            sample = x_t.detach().to(self._device).clone().requires_grad_(True)
            eps = self._forward(sample, t, look)
        seen = look.seen
        directions = normals(seen.detach().to(home)).to(seen)
        with torch.inference_mode(False), torch.enable_grad():  # the pass has switched gradients off half-way
            products = (seen[:, None] * directions.clone()).sum((0, 2))
            last = len(products) - 1
            pulled = [
                torch.autograd.grad(product, sample, retain_graph=index < last)[0]
                for index, product in enumerate(products)
            ]
        return eps.to(home), torch.stack(pulled, 1).to(home)

    def layers(self) -> dict[str, tuple[int, ...]]:
        """Layers that `Features` may name, see `layer_shapes`; the network is called on one image."""
        sample = torch.zeros(1, self.channels, self.image_size, self.image_size)
        return layer_shapes(self._named, self._bottleneck, lambda: self.eps(sample, 0))

    def _look_at_h(self, change: Callable[[Tensor], Tensor] | None = None) -> Look:
        return Look("the bottleneck", self._bottleneck, lambda maps: maps.float().contiguous(), change, self._layout)

    def _look_at(self, features: Features, *, stops: bool = False) -> Look:
        """A look at features.

        Raises:
            CheckpointError: There is no such layer.
        """
        if features == BOTTLENECK:
            return Look("the bottleneck", self._bottleneck, features.of, stops=stops)
        return find_layer(self._named, features, stops=stops)

    @torch.inference_mode()
    def _call(self, x_t: Tensor, t: int | Tensor, look: Look | None = None) -> Tensor:
        return self._forward(x_t, t, look)

    def _forward(self, x_t: Tensor, t: int | Tensor, look: Look | None) -> Tensor:
        if x_t.shape[1:] != (self.channels, self.image_size, self.image_size):
            raise ValueError(
                f"the model works on {self.channels} x {self.image_size} x {self.image_size} images, "
                f"got {' x '.join(map(str, x_t.shape[1:]))}"
            )
        home = x_t.device
        if self._reverses_channels:
            x_t = x_t.flip(1)
        folded = F.pixel_unshuffle(x_t, self._fold) if self._fold > 1 else x_t
        sample = folded.to(self._device, self._dtype).contiguous(memory_format=self._layout)
        # Filled on the device: a copy of a number to a GPU would wait for all of its work.
        timesteps = (t if isinstance(t, Tensor) else torch.full((), t, device=self._device)).to(self._device)
        timesteps = timesteps.expand(len(x_t))
        levels = self._levels(t) if self._prediction != "epsilon" else 1.0
        if self._time_scale is not None:
            timesteps = timesteps.to(self._dtype) * self._time_scale
        with look or nullcontext():
            out: Tensor = self._network(sample, timesteps)
        out = out[:, : folded.shape[1]].float()  # networks that learn the variance put it behind the noise
        out = eps_from(self._prediction, out, folded.to(out), levels)
        eps = F.pixel_shuffle(out, self._fold) if self._fold > 1 else out
        if self._reverses_channels:
            eps = eps.flip(1)
        return eps.contiguous().to(home)

    def _levels(self, t: int | Tensor) -> Tensor | float:
        return self.schedule.alphas_cumprod[t.cpu()] if isinstance(t, Tensor) else self.schedule.alpha_bar(t)


def network_sha256(network: nn.Module, *sources: Path) -> str:
    """Hash of a network's tensors, and of the files that decide how they are used.

    Args:
        network: Any.
        sources: Files whose change should count as another model, such as the code of the network.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        plain = tensor.detach().cpu().contiguous().flatten()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(plain.view(torch.uint8).numpy().data)
    for source in sources:
        digest.update(source.read_bytes())
    return digest.hexdigest()
