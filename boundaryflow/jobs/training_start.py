"""The model whose weights a training starts from, instead of an untrained network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from boundaryflow.config.places import meet
from boundaryflow.errors import CheckpointError, ParamsError
from boundaryflow.files import MAX_SETTINGS_BYTES, RefusedFileError, file_sha256, read_bytes
from boundaryflow.formats.tensor_files import read_tensors
from boundaryflow.formats.tensor_headers import parse_json_object, read_header
from boundaryflow.jobs.training_state import CARD, MADE_BY, check_shapes
from boundaryflow.models.folders import WEIGHTS
from boundaryflow.text import visible
from boundaryflow.training import NetworkSettings, build_network

_MAX_NUMBER, _MAX_LEVELS = 2**14, 16  # of a network's settings


@dataclass(frozen=True)
class Start:
    """A model to start from.

    Attributes:
        network: Its architecture.
        weights: Its parameters, finite float32, on the CPU.
        facts: `name`, `sha256` of the weights' file, `images_seen` in all its trainings, and `licence` of all pictures
            it was trained on: `started_from` of `training.json`.
    """

    network: NetworkSettings
    weights: Mapping[str, Tensor]
    facts: Mapping[str, Any]


def read_start(model: Path, out: Path, asked: Mapping[str, Any]) -> Start:
    """Read a model that `train-denoiser` made.

    Args:
        model: Its folder.
        out: Folder of the model that will be trained.
        asked: Fields of `NetworkSettings` that the architecture must have; None accepts the model's.

    Raises:
        CheckpointError: `train-denoiser` did not make it, it is damaged, or `out` lies in it or contains it.
        ParamsError: Another architecture is asked for.
    """
    where = f"train-denoiser --start-from {visible(str(model))}"
    if meet(str(model), str(out)):
        raise CheckpointError(f"{where}: {visible(str(out))} lies in it, or contains it; name another OUT")
    try:
        card = parse_json_object(read_bytes(model / CARD, MAX_SETTINGS_BYTES))
    except (OSError, ValueError, RefusedFileError):
        card = {}
    if card.get("made_by") != MADE_BY or "network" not in card:
        raise CheckpointError(
            f"{where}: has no {CARD} that train-denoiser wrote; give the folder of a model that it trained"
        )
    path = model / WEIGHTS[0]
    try:
        network, facts = _network_of(card["network"]), {"name": visible(model.resolve().name), **_facts_of(card)}
    except (KeyError, TypeError, ValueError, AttributeError, ParamsError):
        raise CheckpointError(f"{where}: its {CARD} is damaged; fetch the folder again") from None
    try:
        weights = _weights_of(path, network)
        facts["sha256"] = file_sha256(path)
    except (SafetensorError, OSError, ValueError, RefusedFileError) as error:
        reason = visible(str(error))[:200]
        raise CheckpointError(f"{where}: {path.name} cannot be used ({reason}); fetch the folder again") from None
    for name, value in asdict(network).items():
        if asked.get(name) not in (None, value):
            raise ParamsError(
                f"{where}: its {name} is {value}, and {asked[name]} is asked for; leave that option out, or train "
                "without --start-from"
            )
    return Start(network, weights, facts)


def _network_of(facts: Mapping[str, Any]) -> NetworkSettings:
    """Raises KeyError, TypeError, ValueError, AttributeError or ParamsError where the facts are damaged."""
    whole: list[Any] = [facts[name] for name in ("image_size", "channels", "pixel_unshuffle", "layers")]
    widths: tuple[Any, ...] = tuple(facts["widths"])
    attention: tuple[Any, ...] = tuple(facts["attention"])
    is_sound = all(type(n) is int and 1 <= n <= _MAX_NUMBER for n in (*whole, *widths, *attention))
    if not is_sound or len(widths) > _MAX_LEVELS or facts["schedule"] not in ("linear", "squaredcos_cap_v2"):
        raise ValueError("a value is out of range")
    values: dict[str, Any] = {**facts, "widths": widths, "attention": attention}
    return NetworkSettings(**values)


def _facts_of(card: Mapping[str, Any]) -> dict[str, Any]:
    """Images seen and licences, the model's own start included; raises like `_network_of`."""
    before: Mapping[str, Any] = card.get("started_from") or {"images_seen": 0, "licence": ""}
    seen: list[Any] = [card["images_seen"], before["images_seen"]]
    if not all(type(num) is int and num >= 0 for num in seen):
        raise ValueError("images_seen is no number of images")
    licences = dict.fromkeys(visible(str(of["licence"])) for of in (before, card["data"]) if of["licence"])
    return {"images_seen": sum(seen), "licence": "; ".join(licences)}


def _weights_of(path: Path, network: NetworkSettings) -> dict[str, Tensor]:
    """Raises SafetensorError, OSError, ValueError or RefusedFileError where they are damaged or of another network."""
    shapes = read_header(path).shapes
    if network.layers > len(shapes):  # before a network of that many blocks is described
        raise ValueError(f"{len(shapes)} tensors, too few for {network.layers} layers")
    with torch.device("meta"):
        expected = {name: tuple(p.shape) for name, p in build_network(network).named_parameters()}
    check_shapes(shapes, expected)
    tensors = read_tensors(path)[0]
    for name, value in tensors.items():
        if not value.is_floating_point() or not value.float().isfinite().all():
            raise ValueError(f"tensor {name} is not of finite floating-point numbers")
    return {name: value.float() for name, value in tensors.items()}
