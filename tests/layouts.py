"""Names and shapes of the tensors of the reference networks, to make checkpoints of any size in their format.

Written from the published networks (pesser/pytorch_diffusion, openai/guided-diffusion), not from
our converters; `test_checkpoints.py` holds them against the golden files.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

Shapes = dict[str, tuple[int, ...]]


def ddpm_layout(
    ch: int, mult: Sequence[int], num_res_blocks: int, attention_levels: Sequence[int], *, channels: int = 3
) -> Shapes:
    """Of the DDPM network."""
    shapes: Shapes = {}
    emb = 4 * ch

    def layer(name: str, out: int, *inner: int) -> None:
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (out, *inner), (out,)

    def resnet(name: str, before: int, after: int) -> None:
        layer(f"{name}.norm1", before)
        layer(f"{name}.conv1", after, before, 3, 3)
        layer(f"{name}.temb_proj", after, emb)
        layer(f"{name}.norm2", after)
        layer(f"{name}.conv2", after, after, 3, 3)
        if before != after:
            layer(f"{name}.nin_shortcut", after, before, 1, 1)

    def attention(name: str, width: int) -> None:
        layer(f"{name}.norm", width)
        for part in ("q", "k", "v", "proj_out"):
            layer(f"{name}.{part}", width, width, 1, 1)

    layer("temb.dense.0", emb, ch)
    layer("temb.dense.1", emb, emb)
    layer("conv_in", ch, channels, 3, 3)
    now, skips, last = ch, [ch], len(mult) - 1
    for level, m in enumerate(mult):
        for block in range(num_res_blocks):
            resnet(f"down.{level}.block.{block}", now, ch * m)
            now = ch * m
            if level in attention_levels:
                attention(f"down.{level}.attn.{block}", now)
            skips.append(now)
        if level != last:
            layer(f"down.{level}.downsample.conv", now, now, 3, 3)
            skips.append(now)
    resnet("mid.block_1", now, now)
    attention("mid.attn_1", now)
    resnet("mid.block_2", now, now)
    for level in reversed(range(len(mult))):
        for block in range(num_res_blocks + 1):
            resnet(f"up.{level}.block.{block}", now + skips.pop(), ch * mult[level])
            now = ch * mult[level]
            if level in attention_levels:
                attention(f"up.{level}.attn.{block}", now)
        if level:
            layer(f"up.{level}.upsample.conv", now, now, 3, 3)
    layer("norm_out", now)
    layer("conv_out", channels, now, 3, 3)
    return shapes


def iddpm_layout(
    ch: int,
    mult: Sequence[int],
    num_res_blocks: int,
    attention_levels: Sequence[int],
    *,
    resblock_updown: bool,
    scale_shift: bool = True,
    learn_sigma: bool = True,
    channels: int = 3,
) -> Shapes:
    """Of the improved-diffusion and guided-diffusion network."""
    shapes: Shapes = {}
    emb = 4 * ch

    def layer(name: str, out: int, *inner: int) -> None:
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (out, *inner), (out,)

    def resnet(name: str, before: int, after: int) -> None:
        layer(f"{name}.in_layers.0", before)
        layer(f"{name}.in_layers.2", after, before, 3, 3)
        layer(f"{name}.emb_layers.1", after * (2 if scale_shift else 1), emb)
        layer(f"{name}.out_layers.0", after)
        layer(f"{name}.out_layers.3", after, after, 3, 3)
        if before != after:
            layer(f"{name}.skip_connection", after, before, 1, 1)

    def attention(name: str, width: int) -> None:
        layer(f"{name}.norm", width)
        layer(f"{name}.qkv", 3 * width, width, 1)
        layer(f"{name}.proj_out", width, width, 1)

    def resample(name: str, width: int, convolution: str) -> None:
        if resblock_updown:
            resnet(name, width, width)
        else:
            layer(f"{name}.{convolution}", width, width, 3, 3)

    layer("time_embed.0", emb, ch)
    layer("time_embed.2", emb, emb)
    layer("input_blocks.0.0", ch, channels, 3, 3)
    now, skips, position = ch, [ch], 1
    for level, m in enumerate(mult):
        for _ in range(num_res_blocks):
            resnet(f"input_blocks.{position}.0", now, ch * m)
            now = ch * m
            if level in attention_levels:
                attention(f"input_blocks.{position}.1", now)
            skips.append(now)
            position += 1
        if level != len(mult) - 1:
            resample(f"input_blocks.{position}.0", now, "op")
            skips.append(now)
            position += 1
    resnet("middle_block.0", now, now)
    attention("middle_block.1", now)
    resnet("middle_block.2", now, now)
    position = 0
    for level in reversed(range(len(mult))):
        for block in range(num_res_blocks + 1):
            resnet(f"output_blocks.{position}.0", now + skips.pop(), ch * mult[level])
            now, inside = ch * mult[level], 1
            if level in attention_levels:
                attention(f"output_blocks.{position}.1", now)
                inside = 2
            if level and block == num_res_blocks:
                resample(f"output_blocks.{position}.{inside}", now, "conv")
            position += 1
    layer("out.0", now)
    layer("out.2", channels * (2 if learn_sigma else 1), now, 3, 3)
    return shapes


def random_state(shapes: Mapping[str, tuple[int, ...]], seed: int = 0) -> dict[str, Tensor]:
    """Tensors of these shapes, small enough that the network stays finite."""
    generator = torch.Generator().manual_seed(seed)
    return dict(_draw(shapes, generator))


def _draw(shapes: Mapping[str, tuple[int, ...]], generator: torch.Generator) -> Iterator[tuple[str, Tensor]]:
    for name, shape in shapes.items():
        if name.endswith("weight") and len(shape) == 1:
            yield name, torch.ones(shape)  # of a norm
        elif name.endswith("bias"):
            yield name, torch.zeros(shape)
        else:
            yield name, torch.randn(shape, generator=generator) / math.sqrt(math.prod(shape[1:]))
