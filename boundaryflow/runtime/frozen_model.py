"""The frozen model on this machine's device, and its batch size."""

from __future__ import annotations

import logging
import os
from contextlib import nullcontext
from functools import lru_cache

import torch
from torch.utils.flop_counter import FlopCounterMode

from boundaryflow.compiler import without_compiler
from boundaryflow.diffusion import EpsModel, Features
from boundaryflow.errors import CheckpointError, ParamsError
from boundaryflow.runtime.allocator import keep_freed_memory
from boundaryflow.runtime.device import device, resolve_dtype
from boundaryflow.runtime.metering import TALLY, Metered

LOG = logging.getLogger(__name__)
_MAX_BATCH = 256
_ENOUGH_FLOPS = {"cpu": 40e9, "cuda": 4e12}
"""Floating-point operations from which a call's overhead is negligible; larger batches only need more memory
(docs/performance.md)."""
_counted: dict[str, int] = {}


def batch_size(model: EpsModel | None = None) -> int:
    """Images in one network call: BOUNDARYFLOW_BATCH_SIZE, or a default for the device and the model.

    The default depends on these two only, so that it is the same in every run: rounding depends on the batch size.
    It is halved BOUNDARYFLOW_BATCH_HALVINGS times, which the flow sets for a stage that was killed.

    Args:
        model: The frozen model; None for the small networks around it.

    Raises:
        ParamsError: A variable is not a whole number in its range.
    """
    usual = (_MAX_BATCH if device().type == "cuda" else 32) if model is None else _suits(model)
    size = _whole_number("BOUNDARYFLOW_BATCH_SIZE", usual, least=1)
    return max(1, size >> _whole_number("BOUNDARYFLOW_BATCH_HALVINGS", 0, least=0))


def _suits(model: EpsModel) -> int:
    """The smallest power of two for which a call reaches `_ENOUGH_FLOPS`."""
    enough, size = _ENOUGH_FLOPS["cuda" if device().type == "cuda" else "cpu"] / max(flops(model), 1), 1
    while size < enough and size < _MAX_BATCH:
        size *= 2
    return size


def flops(model: EpsModel) -> int:
    """Floating-point operations of one network call on one image, counted during one call."""
    if model.sha256 not in _counted:
        sample = torch.zeros(1, model.channels, model.image_size, model.image_size)
        beside = nullcontext() if getattr(model, "may_compile", True) else without_compiler()
        with beside, FlopCounterMode(display=False) as counter:
            model.eps(sample, 0)
        _counted[model.sha256] = counter.get_total_flops()
    return _counted[model.sha256]


def _whole_number(name: str, default: int, *, least: int) -> int:
    value = os.environ.get(name, "")
    if not value:
        return default
    if not value.isdecimal() or int(value) < least:
        raise ParamsError(f"{name} is {value!r}, must be a whole number of at least {least}")
    return int(value)


def open_model(source: str, dtype: str) -> EpsModel:
    """Load the frozen model once per process.

    Args:
        source: See `boundaryflow.models.load_model`.
        dtype: `auto`, `float32` or `bfloat16`.
    """
    return _open_model(source, resolve_dtype(dtype), device())


@lru_cache(maxsize=1)
def _open_model(source: str, resolved: torch.dtype, where: torch.device) -> EpsModel:
    from boundaryflow.models import load_model  # diffusers takes seconds to import

    keep_freed_memory()
    model = load_model(source, device=where, dtype=resolved)
    LOG.info("model %s (%s) on %s in %s", source, model.sha256[:12], where, str(resolved).removeprefix("torch."))
    return Metered(model, TALLY)


def check_features(model: EpsModel, features: Features, source: str) -> int:
    """Find out, by one network call, whether a model has the features that `observe.features` asks for.

    Args:
        model: The frozen model.
        features: Which.
        source: What the model was opened as, for the message.

    Returns:
        How many numbers they are.

    Raises:
        ParamsError: It has not.
    """
    sample = torch.zeros(1, model.channels, model.image_size, model.image_size)
    try:
        return model.eps_and_features(sample, 0, features)[1].shape[1]
    except CheckpointError as error:
        raise ParamsError(f"observe.features: {error}; `boundaryflow inspect {source}` lists layers") from None
