"""Upsampling folded into its convolution: the same function, for fewer products."""

from __future__ import annotations

import pytest
import torch
from diffusers.models.upsampling import Upsample2D
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from boundaryflow.models.upsampling import FoldedUpsample, fold_upsampling


@pytest.mark.parametrize(("size", "channels", "out"), [((1, 1), 3, 5), ((4, 7), 8, 4), ((16, 16), 2, 2)])
@pytest.mark.parametrize("last", [True, False], ids=["channels last", "channels first"])
def test_gives_what_the_two_layers_give(size: tuple[int, int], channels: int, out: int, *, last: bool) -> None:
    torch.manual_seed(0)
    layer = Upsample2D(channels, use_conv=True, out_channels=out).requires_grad_(False)
    assert isinstance(layer.conv, nn.Conv2d)
    x = torch.randn(3, channels, *size)
    if last:
        x = x.contiguous(memory_format=torch.channels_last)
    folded = FoldedUpsample(layer.conv)(x)
    torch.testing.assert_close(folded, layer(x), rtol=1e-5, atol=1e-5)
    assert folded.is_contiguous(memory_format=torch.channels_last) or size == (1, 1)


@pytest.mark.parametrize("size", [(1, 1), (4, 7)])
def test_plain_weights_give_the_plain_layout(size: tuple[int, int]) -> None:
    layer = Upsample2D(8, use_conv=True, out_channels=4).requires_grad_(False)
    assert isinstance(layer.conv, nn.Conv2d)
    x = torch.randn(3, 8, *size)
    folded = FoldedUpsample(layer.conv).to(memory_format=torch.contiguous_format)(x)  # pyright: ignore[reportCallIssue]
    torch.testing.assert_close(folded, layer(x), rtol=1e-5, atol=1e-5)
    assert folded.is_contiguous()


def test_costs_less_than_half() -> None:
    layer = Upsample2D(16, use_conv=True).requires_grad_(False)
    network, x = nn.Sequential(layer), torch.randn(1, 16, 32, 32)

    def flops() -> int:
        with FlopCounterMode(display=False) as counter:
            network(x)
        return counter.get_total_flops()

    before = flops()
    fold_upsampling(network)
    assert isinstance(network[0], FoldedUpsample)
    assert flops() < 0.5 * before


def test_layers_that_do_anything_else_stay() -> None:
    others = [
        Upsample2D(4),
        Upsample2D(4, use_conv_transpose=True),
        Upsample2D(4, use_conv=True, norm_type="rms_norm", eps=1e-6, elementwise_affine=True),
        Upsample2D(4, use_conv=True, kernel_size=5, padding=2),
        Upsample2D(4, use_conv=True, interpolate=False),
        Upsample2D(4, use_conv=True, name="Conv2d_0"),
    ]
    network = nn.ModuleList(others)
    fold_upsampling(network)
    assert all(kept is layer for kept, layer in zip(network, others, strict=True))


def test_other_sizes_are_refused() -> None:
    layer = FoldedUpsample(nn.Conv2d(2, 2, 3, padding=1))
    with pytest.raises(ValueError, match=r"enlarges twofold, was asked for \(5, 5\)"):
        layer(torch.zeros(1, 2, 2, 2), (5, 5))
