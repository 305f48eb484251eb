"""diffusers' `UNet2DModel` as a frozen ε-predictor with its bottleneck open to view."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from diffusers.models.unets.unet_2d import UNet2DModel
from jaxtyping import Float
from torch import Tensor

from boundaryflow.diffusion import NoiseSchedule


class UNetModel:
    """A `UNet2DModel` behind the protocol `EpsModel`.

    The network computes in the dtype of its weights; samples and noise are float32 in any case.

    Args:
        unet: The network; put into evaluation mode and frozen here.
        schedule: The noise schedule it was trained with.
        sha256: Hash of its weights.
        pixel_unshuffle: The network sees an image of C x S x S as C r^2 x S/r x S/r, an exact
            re-arrangement (Shi et al. 2016, read backwards). 1 for networks on plain pixels.
        device: Where it runs.
    """

    def __init__(
        self,
        unet: UNet2DModel,
        schedule: NoiseSchedule,
        *,
        sha256: str,
        pixel_unshuffle: int = 1,
        device: torch.device | str = "cpu",
    ) -> None:
        self.schedule = schedule
        self.sha256 = sha256
        self.value_range = (-1.0, 1.0)
        self._fold = pixel_unshuffle
        self._dtype = unet.dtype
        self._device = torch.device(device)
        self._unet = unet.to(device=self._device, memory_format=torch.channels_last).eval()  # pyright: ignore[reportCallIssue, reportArgumentType]
        self._unet.requires_grad_(False)
        self._change_h: Callable[[Tensor], Tensor] | None = None
        self._seen_h: Tensor | None = None
        self._unet.mid_block.register_forward_hook(self._at_bottleneck)
        config = unet.config
        self.image_size = int(config["sample_size"]) * pixel_unshuffle
        self.channels = int(config["in_channels"]) // pixel_unshuffle**2
        depth = len(config["block_out_channels"]) - 1
        side = -(-int(config["sample_size"]) // 2**depth)
        self.h_shape = (int(config["block_out_channels"][-1]), side, side)

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

    @torch.inference_mode()
    def _call(self, x_t: Tensor, t: int | Tensor, change_h: Callable[[Tensor], Tensor] | None) -> tuple[Tensor, Tensor]:
        if x_t.shape[1:] != (self.channels, self.image_size, self.image_size):
            raise ValueError(
                f"the model works on {self.channels} x {self.image_size} x {self.image_size} images, "
                f"got {' x '.join(map(str, x_t.shape[1:]))}"
            )
        home = x_t.device
        folded = F.pixel_unshuffle(x_t, self._fold) if self._fold > 1 else x_t
        sample = folded.to(self._device, self._dtype).contiguous(memory_format=torch.channels_last)
        timesteps = torch.as_tensor(t, device=self._device).expand(len(x_t))
        self._change_h = change_h
        try:
            out: Tensor = self._unet(sample, timesteps).sample
        finally:
            self._change_h, seen, self._seen_h = None, self._seen_h, None
        if seen is None:
            raise RuntimeError("the network's middle block was not called")
        out = out[:, : folded.shape[1]].float()  # networks that learn the variance put it behind the noise
        eps = F.pixel_shuffle(out, self._fold) if self._fold > 1 else out
        return eps.contiguous().to(home), seen.float().contiguous().to(home)

    def _at_bottleneck(self, _module: object, _inputs: object, output: Tensor) -> Tensor:
        self._seen_h = output
        if self._change_h is None:
            return output
        changed = self._change_h(output.float().contiguous())
        return changed.to(output.device, output.dtype).contiguous(memory_format=torch.channels_last)
