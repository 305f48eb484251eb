"""The network that is trained: how it starts."""

from __future__ import annotations

import pytest
import torch
from diffusers import UNet2DModel

from boundaryflow.training import build_network, open_identity_path
from training.avatars import train_denoiser as avatars
from training.digits import train as digits


def untrained(channels: int, widths: tuple[int, int], num_groups: int) -> UNet2DModel:
    return UNet2DModel(
        sample_size=8,
        in_channels=channels,
        out_channels=channels,
        layers_per_block=1,
        block_out_channels=widths,
        down_block_types=("DownBlock2D",) * 2,
        up_block_types=("UpBlock2D",) * 2,
        norm_num_groups=num_groups,
        attention_head_dim=16,
    )


def tiny() -> UNet2DModel:
    unet = untrained(4, (32, 32), 4)
    open_identity_path(unet)
    return unet


@pytest.mark.parametrize(
    ("build", "shape"),
    [
        (lambda: build_network(avatars.NETWORK), (2, 12, 32, 32)),
        (lambda: build_network(digits.NETWORK), (2, 4, 16, 16)),
        (tiny, (2, 4, 8, 8)),
    ],
    ids=["avatars", "digits", "tiny"],
)
@torch.inference_mode()
def test_untrained_network_returns_its_input_and_keeps_its_mean(build, shape: tuple[int, ...]) -> None:  # noqa: ANN001
    x_t = 0.7 * torch.randn(shape, generator=torch.Generator().manual_seed(0)) + 0.3
    x_t[1] += 0.5
    eps = build()(x_t, torch.tensor([999, 20])).sample
    torch.testing.assert_close(eps, x_t, rtol=0.01, atol=1e-3)


def test_too_narrow_a_network_is_refused() -> None:
    unet = untrained(12, (16, 32), 8)
    with pytest.raises(ValueError, match="8 groups of 2 channels hold 0 pairs beside constants, not 12"):
        open_identity_path(unet)
