"""Checkpoints of the DDPM family: pesser/pytorch_diffusion, ermongroup/ddim, SDEdit.

Facts of the network (Ho et al. 2020): the time embedding is [sin, cos] over half - 1 frequencies,
strided convolutions are padded at the right and bottom only, GroupNorm has an epsilon of 1e-6,
attention has one head.
"""

from __future__ import annotations

from collections.abc import Mapping

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

_RESNET = {"norm1": "norm1", "conv1": "conv1", "temb_proj": "time_emb_proj", "norm2": "norm2", "conv2": "conv2",
           "nin_shortcut": "conv_shortcut"}  # fmt: skip
_PROJECTIONS = {"q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0"}


def convert_ddpm(state: Mapping[str, Tensor], stated: Stated, where: object) -> Architecture:
    """Infer the architecture, and give the tensors diffusers' names.

    Args:
        state: State dict of the family.
        stated: What a sidecar states beside it.
        where: For messages.

    Raises:
        CheckpointError: A part is missing, or of a variant that is not known.
    """
    shape = checked_shape(lambda: _shape_of(state), where)
    levels = len(shape.widths)
    size, assumptions = image_size_from(stated.image_size, shape.attends, levels, where)
    if levels > 1 and not any(f"down.0.downsample.{name}.weight" in state for name in ("conv", "op")):
        raise CheckpointError(f"model {where}: it resamples without convolutions; this variant is not known")
    renamer = Renamer(state)
    for old, new in (("temb.dense.0", "time_embedding.linear_1"), ("temb.dense.1", "time_embedding.linear_2"),
                     ("conv_in", "conv_in"), ("norm_out", "conv_norm_out"), ("conv_out", "conv_out")):  # fmt: skip
        renamer.module(old, new)
    for side, new_side in (("down", "down_blocks"), ("up", "up_blocks")):
        for level in range(levels):
            new = f"{new_side}.{level if side == 'down' else levels - 1 - level}"
            for block in range(shape.num_res_blocks + (side == "up")):
                renamer.modules(f"{side}.{level}.block.{block}", f"{new}.resnets.{block}", _RESNET)
                _attention(renamer, f"{side}.{level}.attn.{block}", f"{new}.attentions.{block}")
            for name in ("conv", "op"):
                renamer.module(f"{side}.{level}.{side}sample.{name}", f"{new}.{side}samplers.0.conv")
    renamer.modules("mid.block_1", "mid_block.resnets.0", _RESNET)
    _attention(renamer, "mid.attn_1", "mid_block.attentions.0")
    renamer.modules("mid.block_2", "mid_block.resnets.1", _RESNET)
    check_all_taken(renamer, where)
    config = common_config(size, shape) | {
        "down_block_types": ["AttnDownBlock2D" if a else "DownBlock2D" for a in shape.attends],
        "up_block_types": ["AttnUpBlock2D" if a else "UpBlock2D" for a in reversed(shape.attends)],
        "downsample_padding": 0,  # diffusers then pads right and bottom
        "flip_sin_to_cos": False,
        "freq_shift": 1,
        "norm_eps": 1e-6,
        "attention_head_dim": stated.head_channels,
        "resnet_time_scale_shift": "default",
    }
    if stated.num_heads is None and stated.head_channels is None:
        assumptions.append("attention with one head, as in all networks of this family")
    heads = stated.num_heads if stated.num_heads != 1 else None
    return Architecture("ddpm", config, renamer.taken, tuple(assumptions), heads, stated.image_size is None)


def _shape_of(state: Mapping[str, Tensor]) -> Shape:
    levels = num_blocks(state, "down")
    return Shape(
        width=int(state["temb.dense.0.weight"].shape[1]),
        first=int(state["conv_in.weight"].shape[0]),
        widths=[int(state[f"down.{i}.block.0.conv1.weight"].shape[0]) for i in range(levels)],
        num_res_blocks=len({name.split(".")[3] for name in state if name.startswith("down.0.block.")}),
        attends=[f"down.{i}.attn.0.q.weight" in state for i in range(levels)],
        in_channels=int(state["conv_in.weight"].shape[1]),
        out_channels=int(state["conv_out.weight"].shape[0]),
    )


def _attention(renamer: Renamer, old: str, new: str) -> None:
    renamer.module(f"{old}.norm", f"{new}.group_norm")
    for before, after in _PROJECTIONS.items():
        weight = renamer.take(f"{old}.{before}.weight")
        if weight is not None:
            renamer.tensor(f"{new}.{after}.weight", weight.flatten(1))  # a 1 x 1 convolution is a linear layer
        renamer.module(f"{old}.{before}", f"{new}.{after}")
