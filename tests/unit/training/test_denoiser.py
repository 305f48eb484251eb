"""How denoisers are trained: the network's start, and runs that are cut short."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import UNet2DModel
from torch import Tensor

from training.avatars import train_denoiser as avatars
from training.denoiser import TrainSettings, open_identity_path, train
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
    [(avatars.build_network, (2, 12, 32, 32)), (digits.build_network, (2, 4, 16, 16)), (tiny, (2, 4, 8, 8))],
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


def test_run_that_was_cut_short_ends_where_an_undisturbed_one_does(tmp_path: Path) -> None:
    pictures = torch.randn(16, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    settings = TrainSettings(num_steps=6, batch_size=4)
    left = 4

    def cut_short(rows: Tensor) -> Tensor:
        nonlocal left
        left -= 1
        if left < 0:
            raise KeyboardInterrupt
        return pictures[rows]

    whole = train(tiny, lambda rows: pictures[rows], 16, settings, tmp_path / "whole.pt")
    with pytest.raises(KeyboardInterrupt):
        train(tiny, cut_short, 16, settings, tmp_path / "cut.pt", checkpoint_every_s=0)
    assert torch.load(tmp_path / "cut.pt", weights_only=True)["step"] == 4
    resumed = train(tiny, lambda rows: pictures[rows], 16, settings, tmp_path / "cut.pt")
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name], value, rtol=1e-5, atol=1e-6)
