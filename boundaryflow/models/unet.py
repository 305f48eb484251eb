"""diffusers' `UNet2DModel` as a frozen model."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from boundaryflow.diffusion import NoiseSchedule
from boundaryflow.models.diffusers_parts import UNet2DModel
from boundaryflow.models.families import Family
from boundaryflow.models.frozen import FrozenModel
from boundaryflow.models.prediction import Prediction
from boundaryflow.models.preparation import Preparation, prepared_for
from boundaryflow.models.upsampling import fold_upsampling


class UNetModel(FrozenModel):
    """A `UNet2DModel` behind the protocol `EpsModel`; h is the output of its middle block.

    Args:
        unet: The network; put into evaluation mode, frozen and rearranged here.
        schedule: The noise schedule it was trained with.
        sha256: Hash of its weights.
        family: What its checkpoint was trained as: ddpm, iddpm or diffusers.
        value_range: See `FrozenModel`.
        prediction: See there.
        reverses_channels: See there.
        pixel_unshuffle: See there.
        device: Where it runs.
        preparation: How it is rearranged; None is what is fastest on the device.
    """

    may_compile = False  # when it is called; a model of someone else's may

    def __init__(
        self,
        unet: UNet2DModel,
        schedule: NoiseSchedule,
        *,
        sha256: str,
        family: Family = "diffusers",
        value_range: tuple[float, float] = (-1.0, 1.0),
        prediction: Prediction = "epsilon",
        reverses_channels: bool = False,
        pixel_unshuffle: int = 1,
        device: torch.device | str = "cpu",
        preparation: Preparation | None = None,
    ) -> None:
        config = unet.config
        self.family = family
        preparation = preparation or prepared_for(device)
        if preparation.folds_upsampling:
            fold_upsampling(unet)
        super().__init__(
            _Noise(unet),
            unet.mid_block,  # pyright: ignore[reportArgumentType]
            schedule,
            image_size=int(config["sample_size"]) * pixel_unshuffle,
            channels=int(config["in_channels"]) // pixel_unshuffle**2,
            sha256=sha256,
            value_range=value_range,
            prediction=prediction,
            reverses_channels=reverses_channels,
            pixel_unshuffle=pixel_unshuffle,
            named=unet,
            device=device,
            preparation=preparation,
        )


class _Noise(nn.Module):
    """What a UNet2DModel gives, without its wrapping."""

    def __init__(self, unet: UNet2DModel) -> None:
        super().__init__()
        self._unet = unet

    def forward(self, x_t: Tensor, timesteps: Tensor) -> Tensor:
        return self._unet(x_t, timesteps).sample
