"""A network rearranged for its device: the same function."""

from __future__ import annotations

import copy

import pytest
import torch
from diffusers.models.unets.unet_2d import UNet2DModel
from torch import Tensor

from boundaryflow.diffusion import BOTTLENECK, NoiseSchedule
from boundaryflow.models.preparation import ON_CPU, ON_CUDA, Preparation, prepared_for
from boundaryflow.models.unet import UNetModel
from boundaryflow.models.upsampling import FoldedUpsample

WAYS = [Preparation(channels_last=last, folds_upsampling=folds) for last in (True, False) for folds in (True, False)]


@pytest.fixture
def unet() -> UNet2DModel:
    torch.manual_seed(0)
    return UNet2DModel(
        sample_size=16, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4, attention_head_dim=8,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    )  # fmt: skip


def opened(unet: UNet2DModel, preparation: Preparation | None = None) -> UNetModel:
    return UNetModel(copy.deepcopy(unet), NoiseSchedule.linear(), sha256="f" * 64, preparation=preparation)


def answers(model: UNetModel) -> list[Tensor]:
    """What every kind of call gives."""
    torch.manual_seed(1)
    x_t = torch.randn(2, 3, 16, 16)
    eps, h = model.eps_and_h(x_t, 300)
    normals = torch.randn(1, 2, h[0].numel())
    _, pulled = model.pullback(x_t, 300, BOTTLENECK, lambda _: normals.expand(2, -1, -1))
    return [eps, h, model.eps_with_h(x_t, 300, h + 1)[0], model.eps_with_h_shift(x_t, 300, h.flip(0)), pulled]


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_every_preparation_gives_what_the_plain_network_gives(unet: UNet2DModel, way: Preparation) -> None:
    plain = answers(opened(unet, Preparation(channels_last=False, folds_upsampling=False)))
    with torch.no_grad():
        torch.manual_seed(1)
        torch.testing.assert_close(plain[0], unet(torch.randn(2, 3, 16, 16), 300).sample)
    torch.testing.assert_close(answers(opened(unet, way)), plain, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_weights_and_maps_lie_as_asked(unet: UNet2DModel, way: Preparation) -> None:
    net = copy.deepcopy(unet)
    model = UNetModel(net, NoiseSchedule.linear(), sha256="f" * 64, preparation=way)
    seen: list[Tensor] = []
    net.conv_out.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    model.eps(torch.randn(2, 3, 16, 16), 300)
    assert seen[0].is_contiguous(memory_format=way.layout)
    maps = [weight for weight in net.parameters() if weight.ndim == 4]  # noqa: PLR2004
    assert all(weight.is_contiguous(memory_format=way.layout) for weight in maps)
    assert any(isinstance(module, FoldedUpsample) for module in net.modules()) == way.folds_upsampling


def test_cpu_keeps_its_preparation_to_the_bit(unet: UNet2DModel) -> None:
    as_ever = Preparation(channels_last=True, folds_upsampling=True)
    assert prepared_for("cpu") == ON_CPU == as_ever
    expected = answers(opened(unet, as_ever))
    assert all(torch.equal(one, other) for one, other in zip(answers(opened(unet)), expected, strict=True))


def test_device_decides() -> None:
    assert prepared_for(torch.device("cuda", 1)) == ON_CUDA
