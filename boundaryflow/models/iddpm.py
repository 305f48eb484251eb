"""Checkpoints of the iDDPM family: improved-diffusion, guided-diffusion, ILVR, P2 weighting.

Facts of the network (Nichol and Dhariwal 2021; Dhariwal and Nichol 2021): the time embedding is
[cos, sin] over half frequencies, GroupNorm has an epsilon of 1e-5; a network that learns the
variance gives it behind the noise. How many heads attend, and in which order queries, keys and
values are packed, leaves no trace in the tensors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from boundaryflow.errors import CheckpointError
from boundaryflow.models.architecture import (
    Architecture,
    Renamer,
    Shape,
    check_all_taken,
    checked_shape,
    common_config,
    image_size_from,
    num_blocks,
)
from boundaryflow.models.stated import Stated

USUAL_HEAD_CHANNELS = 64
"""guided-diffusion's released models, ILVR, P2: --num_head_channels 64."""
USUAL_NUM_HEADS = 4
"""improved-diffusion's default: --num_heads 4."""
_RESNET = {"in_layers.0": "norm1", "in_layers.2": "conv1", "emb_layers.1": "time_emb_proj", "out_layers.0": "norm2",
           "out_layers.3": "conv2", "skip_connection": "conv_shortcut"}  # fmt: skip


@dataclass(frozen=True)
class _Shape(Shape):
    """What the tensors say in this family."""

    resblock_updown: bool
    scale_shift: bool


def convert_iddpm(state: Mapping[str, Tensor], stated: Stated, where: object) -> Architecture:
    """Infer the architecture, and give the tensors diffusers' names.

    Args:
        state: State dict of the family.
        stated: What a sidecar states beside it.
        where: For messages.

    Raises:
        CheckpointError: A part is missing, or of a variant that is not known; or the stated heads do
            not divide the channels.
    """
    shape = checked_shape(lambda: _shape_of(state, where), where)
    levels = len(shape.widths)
    size, assumptions = image_size_from(stated.image_size, shape.attends, levels, where, shape.widths)
    attended = sorted({width for width, attends in zip(shape.widths, shape.attends, strict=True) if attends}
                      | {shape.widths[-1]})  # fmt: skip
    heads = _heads(stated, shape, attended, assumptions, where)
    if stated.qkv_order is None:
        assumptions.append("queries, keys and values packed head by head (the legacy order of released models)")
    renamer = Renamer(state)
    _rename(renamer, shape, heads, stated.qkv_order == "new")
    check_all_taken(renamer, where)
    resample = "resnet" if shape.resblock_updown else "conv"
    plain = (
        ("ResnetDownsampleBlock2D", "ResnetUpsampleBlock2D") if shape.resblock_updown else ("DownBlock2D", "UpBlock2D")
    )
    head_channels = {width // heads[width] for width in attended}
    config = common_config(size, shape) | {
        "down_block_types": ["AttnDownBlock2D" if a else plain[0] for a in shape.attends],
        "up_block_types": ["AttnUpBlock2D" if a else plain[1] for a in reversed(shape.attends)],
        "downsample_type": resample,
        "upsample_type": resample,
        "downsample_padding": 1,
        "flip_sin_to_cos": True,
        "freq_shift": 0,
        "norm_eps": 1e-5,
        "attn_norm_num_groups": 32,  # else diffusers' middle block has no norm where there is scale and shift
        "attention_head_dim": head_channels.pop() if len(head_channels) == 1 else None,
        "resnet_time_scale_shift": "scale_shift" if shape.scale_shift else "default",
    }
    num_heads = heads[attended[0]] if config["attention_head_dim"] is None else None
    return Architecture("iddpm", config, renamer.taken, tuple(assumptions), num_heads, stated.image_size is None)


def _shape_of(state: Mapping[str, Tensor], where: object) -> _Shape:
    """Read the plan of the network off its output blocks, where every level ends with an upsampler but the last."""
    num_inputs, num_outputs = num_blocks(state, "input_blocks"), num_blocks(state, "output_blocks")
    ends = [k for k in range(num_outputs) if _upsampler(state, k) is not None]
    per_level = ends[0] + 1 if ends else num_outputs
    levels = len(ends) + 1
    if per_level < 2 or levels * per_level != num_outputs or num_inputs != levels * per_level:  # noqa: PLR2004
        raise CheckpointError(
            f"model {where}: {num_inputs} input and {num_outputs} output blocks do not form a U-Net with equal levels; "
            "it resamples without parameters, or the file is incomplete"
        )
    num_res_blocks = per_level - 1
    firsts = [1 + level * per_level for level in range(levels)]
    widths = [int(state[f"input_blocks.{k}.0.in_layers.2.weight"].shape[0]) for k in firsts]
    return _Shape(
        width=int(state["time_embed.0.weight"].shape[1]),
        first=int(state["input_blocks.0.0.weight"].shape[0]),
        widths=widths,
        num_res_blocks=num_res_blocks,
        attends=[f"input_blocks.{k}.1.qkv.weight" in state for k in firsts],
        resblock_updown=bool(ends) and "in_layers" in str(_upsampler(state, ends[0])),
        scale_shift=int(state["input_blocks.1.0.emb_layers.1.weight"].shape[0]) == 2 * widths[0],
        in_channels=int(state["input_blocks.0.0.weight"].shape[1]),
        out_channels=int(state["out.2.weight"].shape[0]),
    )


def _upsampler(state: Mapping[str, Tensor], block: int) -> str | None:
    """Name of a tensor of the upsampler that ends an output block, or None."""
    for position in (1, 2):
        for part in ("conv.weight", "in_layers.2.weight"):
            name = f"output_blocks.{block}.{position}.{part}"
            if name in state:
                return name
    return None


def _heads(stated: Stated, shape: _Shape, attended: list[int], assumptions: list[str], where: object) -> dict[int, int]:
    """Heads at each width that attends."""
    channels, num = stated.head_channels, stated.num_heads
    if channels is None and num is None:
        if shape.resblock_updown:
            channels = USUAL_HEAD_CHANNELS
            assumptions.append(f"{channels} channels an attention head, as in released models with resblock_updown")
        else:
            num = USUAL_NUM_HEADS
            assumptions.append(f"{num} attention heads, the default of improved-diffusion")
    for width in attended:
        if width % (channels or num or 1):
            raise CheckpointError(
                f"model {where}: {channels} channels a head do not divide {width}; state head_channels or num_heads"
                if channels
                else f"model {where}: {num} heads do not divide {width} channels; state head_channels or num_heads"
            )
    return {width: width // channels if channels else int(num or 1) for width in attended}


def _rename(renamer: Renamer, shape: _Shape, heads: Mapping[int, int], new_order: bool) -> None:
    for old, new in (("time_embed.0", "time_embedding.linear_1"), ("time_embed.2", "time_embedding.linear_2"),
                     ("input_blocks.0.0", "conv_in"), ("out.0", "conv_norm_out"), ("out.2", "conv_out")):  # fmt: skip
        renamer.module(old, new)
    levels, per_level = len(shape.widths), shape.num_res_blocks + 1
    for level in range(levels):
        for block in range(shape.num_res_blocks):
            old, new = f"input_blocks.{1 + level * per_level + block}", f"down_blocks.{level}"
            renamer.modules(f"{old}.0", f"{new}.resnets.{block}", _RESNET)
            _attention(renamer, f"{old}.1", f"{new}.attentions.{block}", heads, new_order)
        if level < levels - 1:
            _resampler(
                renamer, f"input_blocks.{(level + 1) * per_level}.0", f"down_blocks.{level}.downsamplers.0", "op"
            )
        for block in range(per_level):
            old, new = f"output_blocks.{level * per_level + block}", f"up_blocks.{level}"
            renamer.modules(f"{old}.0", f"{new}.resnets.{block}", _RESNET)
            attends = renamer.has(f"{old}.1.qkv")
            _attention(renamer, f"{old}.1", f"{new}.attentions.{block}", heads, new_order)
            if block == per_level - 1:
                _resampler(renamer, f"{old}.{2 if attends else 1}", f"{new}.upsamplers.0", "conv")
    renamer.modules("middle_block.0", "mid_block.resnets.0", _RESNET)
    _attention(renamer, "middle_block.1", "mid_block.attentions.0", heads, new_order)
    renamer.modules("middle_block.2", "mid_block.resnets.1", _RESNET)


def _resampler(renamer: Renamer, old: str, new: str, convolution: str) -> None:
    renamer.module(f"{old}.{convolution}", f"{new}.conv")
    renamer.modules(old, new, _RESNET)


def _attention(renamer: Renamer, old: str, new: str, heads: Mapping[int, int], new_order: bool) -> None:
    renamer.module(f"{old}.norm", f"{new}.group_norm")
    for part in ("weight", "bias"):
        packed = renamer.take(f"{old}.qkv.{part}")
        if packed is None:
            continue
        packed = packed.reshape(packed.shape[0], -1) if part == "weight" else packed[:, None]
        width = packed.shape[0] // 3
        if new_order:
            apart = packed.reshape(3, width, -1)
        else:
            apart = packed.reshape(heads[width], 3, width // heads[width], -1).transpose(0, 1).reshape(3, width, -1)
        for name, tensor in zip(("to_q", "to_k", "to_v"), apart, strict=True):
            renamer.tensor(f"{new}.{name}.{part}", (tensor if part == "weight" else tensor[:, 0]).contiguous())
    projection = renamer.take(f"{old}.proj_out.weight")
    if projection is not None:
        renamer.tensor(f"{new}.to_out.0.weight", projection.flatten(1))
    renamer.module(f"{old}.proj_out", f"{new}.to_out.0")
