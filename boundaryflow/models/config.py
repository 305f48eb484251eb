"""config.json of a diffusers network: what it says is checked before anything is built from it."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from boundaryflow.errors import CheckpointError
from boundaryflow.models.diffusers_parts import UNet2DModel
from boundaryflow.models.stated import MAX_IMAGE_SIZE

_MAX_LEVELS = 12
_LARGE = 2**20
_WHOLE = {
    "sample_size": (1, MAX_IMAGE_SIZE), "in_channels": (1, _LARGE), "out_channels": (1, _LARGE),
    "layers_per_block": (1, _LARGE), "norm_num_groups": (1, _LARGE), "downsample_padding": (0, 1), "freq_shift": (0, 1),
    "attention_head_dim": (1, _LARGE), "attn_norm_num_groups": (1, _LARGE), "time_embedding_dim": (1, _LARGE),
}  # fmt: skip
_MAY_BE_NULL = {"attention_head_dim", "attn_norm_num_groups", "time_embedding_dim"}
_FLAGS = ("center_input_sample", "flip_sin_to_cos", "add_attention")
_WORDS = ("act_fn", "mid_block_type", "downsample_type", "upsample_type", "resnet_time_scale_shift")
_NUMBERS = {"norm_eps": 1.0, "dropout": 1.0, "mid_block_scale_factor": 1e6}


def check_config(folder: Path, config: dict[str, Any]) -> dict[str, Any]:
    """Refuse what cannot be edited with or makes no sense; give what older releases called otherwise its present name.

    Args:
        folder: For messages.
        config: Content of config.json.

    Raises:
        CheckpointError: It is of another kind of network, or a value is of another type or out of range.
    """
    kind = config.get("_class_name", "UNet2DModel")
    if kind != "UNet2DModel":
        raise CheckpointError(
            f"model {folder}: it is a {kind}; only unconditional pixel models (UNet2DModel) can be edited with"
        )
    if config.get("num_class_embeds") or config.get("class_embed_type"):
        raise CheckpointError(f"model {folder}: it is conditional on a class; use an unconditional model")
    if config.get("time_embedding_type", "positional") != "positional":
        raise CheckpointError(
            f"model {folder}: time_embedding_type is {config['time_embedding_type']!r}, must be 'positional'; it is "
            "of a process without timesteps"
        )
    if "attention_head_dim" not in config and "num_head_channels" in config:
        config = {**config, "attention_head_dim": config["num_head_channels"]}
    whole = network_config(config)
    wrong = next(_wrong_values(whole), None)
    if wrong is not None:
        raise CheckpointError(f"model {folder}: config.json has {wrong}")
    return {**config, **{name: whole[name] for name in ("sample_size", "in_channels", "out_channels")}}


def network_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Every argument that the network takes: of config.json, else diffusers' own default."""
    usual = inspect.signature(UNet2DModel.__init__).parameters
    return {name: config.get(name, usual[name].default) for name in usual if name != "self"}


def _wrong_values(config: Mapping[str, Any]) -> Iterator[str]:
    for name, (least, most) in _WHOLE.items():
        value = config[name]
        if type(value) is not int and not (value is None and name in _MAY_BE_NULL):
            yield f"{name} {value!r:.60}, must be a whole number"
        elif value is not None and not least <= value <= most:
            yield f"{name} {value!r:.60}, must be {least} to {most:,}"
    for name in _FLAGS:
        if type(config[name]) is not bool:
            yield f"{name} {config[name]!r:.60}, must be true or false"
    for name in _WORDS:
        if not isinstance(config[name], str):
            yield f"{name} {config[name]!r:.60}, must be a word"
    for name, most in _NUMBERS.items():
        value = config[name]
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not 0 <= value < most or (value == 0 and name != "dropout"):
            least = "of at least 0" if name == "dropout" else "above 0"
            yield f"{name} {value!r:.60}, must be a number {least} and below {most:g}"
    widths = config["block_out_channels"]
    if not _is_list(widths, int) or not all(1 <= width <= _LARGE for width in widths):
        yield f"block_out_channels {widths!r:.60}, must be a list of 1 to {_MAX_LEVELS} whole numbers"
    elif config["sample_size"] % 2 ** (len(widths) - 1):
        yield f"sample_size {config['sample_size']}, must be a multiple of {2 ** (len(widths) - 1)}, as it is halved"
    for name in ("down_block_types", "up_block_types"):
        if not _is_list(config[name], str):
            yield f"{name} {config[name]!r:.60}, must be a list of 1 to {_MAX_LEVELS} words"


def _is_list(value: Any, kind: type) -> bool:
    return isinstance(value, list | tuple) and 1 <= len(value) <= _MAX_LEVELS and all(type(v) is kind for v in value)
