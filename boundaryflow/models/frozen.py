"""Any network as a frozen ε-predictor with its bottleneck open to view."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from boundaryflow.diffusion import NoiseSchedule
from boundaryflow.models.prediction import Prediction, eps_from


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
        device: Where it runs.
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
        device: torch.device | str = "cpu",
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
        self._network = network.to(device=self._device, memory_format=torch.channels_last).eval()  # pyright: ignore[reportCallIssue]
        self._network.requires_grad_(False)
        self._change_h: Callable[[Tensor], Tensor] | None = None
        self._seen_h: Tensor | None = None
        bottleneck.register_forward_hook(self._at_bottleneck)

    def eps(self, x_t: Float[Tensor, "b c h w"], t: int | Tensor) -> Float[Tensor, "b c h w"]:
        """Predicted noise at (x_t, t)."""
        return self._call(x_t, t, None)[0]

    def eps_and_h(
        self, x_t: Float[Tensor, "b c h w"], t: int | Tensor
    ) -> tuple[Float[Tensor, "b c h w"], Float[Tensor, "b ch hh wh"]]:
        """Predicted noise, and the bottleneck that it was made from."""
        return self._call(x_t, t, None)

    def eps_with_h(
        self, x_t: Float[Tensor, "b c h w"], t: int | Tensor, h: Float[Tensor, "b ch hh wh"]
    ) -> tuple[Float[Tensor, "b c h w"], Float[Tensor, "b ch hh wh"]]:
        """Predicted noise with the bottleneck replaced, and the bottleneck as it would have been."""
        return self._call(x_t, t, lambda _: h)

    def eps_with_h_shift(
        self, x_t: Float[Tensor, "b c h w"], t: int | Tensor, shift: Float[Tensor, "b ch hh wh"]
    ) -> Float[Tensor, "b c h w"]:
        """Predicted noise with `shift` added to the bottleneck."""
        return self._call(x_t, t, lambda seen: seen + shift.to(seen))[0]

    def pullback(
        self,
        x_t: Float[Tensor, "b c h w"],
        t: int | Tensor,
        normals: Callable[[Float[Tensor, "b d"]], Float[Tensor, "b a d"]],
    ) -> tuple[Float[Tensor, "b c h w"], Float[Tensor, "b a c h w"]]:
        """Predicted noise, and directions of h-space pulled back to the sample.

        See `EpsModel.pullback`. Only the part of the network before the bottleneck keeps what a
        gradient needs, so that the memory is about that of one training step of half the network.
        """
        home = x_t.device
        with torch.inference_mode(False), torch.enable_grad():
            # A clone: it may be an inference tensor, which autograd does not take.
            sample = x_t.detach().to(self._device).clone().requires_grad_(True)
            eps, h = self._forward(sample, t, None)
        directions = normals(h.detach().flatten(1).to(home)).to(h)
        with torch.inference_mode(False), torch.enable_grad():  # the pass has switched gradients off half-way
            products = (h.flatten(1)[:, None] * directions.clone()).sum((0, 2))
            last = len(products) - 1
            pulled = [
                torch.autograd.grad(product, sample, retain_graph=index < last)[0]
                for index, product in enumerate(products)
            ]
        return eps.to(home), torch.stack(pulled, 1).to(home)

    @torch.inference_mode()
    def _call(self, x_t: Tensor, t: int | Tensor, change_h: Callable[[Tensor], Tensor] | None) -> tuple[Tensor, Tensor]:
        return self._forward(x_t, t, change_h)

    def _forward(
        self, x_t: Tensor, t: int | Tensor, change_h: Callable[[Tensor], Tensor] | None
    ) -> tuple[Tensor, Tensor]:
        if x_t.shape[1:] != (self.channels, self.image_size, self.image_size):
            raise ValueError(
                f"the model works on {self.channels} x {self.image_size} x {self.image_size} images, "
                f"got {' x '.join(map(str, x_t.shape[1:]))}"
            )
        home = x_t.device
        if self._reverses_channels:
            x_t = x_t.flip(1)
        folded = F.pixel_unshuffle(x_t, self._fold) if self._fold > 1 else x_t
        sample = folded.to(self._device, self._dtype).contiguous(memory_format=torch.channels_last)
        timesteps = torch.as_tensor(t, device=self._device).expand(len(x_t))
        levels = self.schedule.alphas_cumprod[timesteps.cpu()] if self._prediction != "epsilon" else 1.0
        if self._time_scale is not None:
            timesteps = timesteps.to(self._dtype) * self._time_scale
        self._change_h = change_h
        try:
            out: Tensor = self._network(sample, timesteps)
        finally:
            self._change_h, seen, self._seen_h = None, self._seen_h, None
        if seen is None:
            raise RuntimeError("the network's bottleneck was not called")
        out = out[:, : folded.shape[1]].float()  # networks that learn the variance put it behind the noise
        out = eps_from(self._prediction, out, folded.to(out), levels)
        eps = F.pixel_shuffle(out, self._fold) if self._fold > 1 else out
        if self._reverses_channels:
            eps = eps.flip(1)
        return eps.contiguous().to(home), seen.to(home)

    def _at_bottleneck(self, _module: object, _inputs: object, output: Tensor) -> Tensor:
        self._seen_h = output.float().contiguous()
        if torch.is_grad_enabled():  # a pullback: nothing beyond the bottleneck is asked for its gradient
            torch.set_grad_enabled(False)  # the block in `pullback` that called sets it back at its end
        if self._change_h is None:
            return output
        changed = self._change_h(self._seen_h)
        return changed.to(output.device, output.dtype).contiguous(memory_format=torch.channels_last)


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
