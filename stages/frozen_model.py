"""Where and how the frozen model runs on this machine: device, dtype, batch size."""

from __future__ import annotations

import logging
import os
from functools import lru_cache

import torch
from torch.utils.flop_counter import FlopCounterMode

from boundaryflow.allocator import keep_freed_memory
from boundaryflow.diffusion import EpsModel
from boundaryflow.errors import ParamsError
from stages.metering import TALLY, Metered

LOG = logging.getLogger(__name__)
_MAX_BATCH = 256
_ENOUGH_FLOPS = {"cpu": 40e9, "cuda": 4e12}
"""Work that a network call needs to be worth its overhead; more at once only takes memory (docs/performance.md)."""
_counted: dict[str, int] = {}


def device() -> torch.device:
    """The device that BOUNDARYFLOW_DEVICE names; `auto` is the GPU where there is one.

    Raises:
        ParamsError: The variable names no device of this machine.
    """
    name = os.environ.get("BOUNDARYFLOW_DEVICE", "auto")
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(name)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ParamsError(f"BOUNDARYFLOW_DEVICE is {name!r}: {reason}; set it to auto, cpu or cuda") from None
    return chosen


def resolve_dtype(name: str) -> torch.dtype:
    """`auto` is bfloat16 where the hardware multiplies it, float32 elsewhere."""
    if name != "auto":
        return {"float32": torch.float32, "bfloat16": torch.bfloat16}[name]
    if device().type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    return torch.bfloat16 if _cpu_multiplies_bfloat16() else torch.float32


def _cpu_multiplies_bfloat16() -> bool:
    capabilities = torch.backends.cpu.get_cpu_capability()
    if "AVX512" not in capabilities and "AMX" not in capabilities:
        return False
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()) and _cpu_flag("amx_bf16", "avx512_bf16")  # noqa: SLF001


def _cpu_flag(*names: str) -> bool:
    try:
        with open("/proc/cpuinfo") as file:
            flags = next((line for line in file if line.startswith("flags")), "")
    except OSError:
        return False
    return bool(set(names) & set(flags.split()))


def batch_size(model: EpsModel | None = None) -> int:
    """Images in one network call: BOUNDARYFLOW_BATCH_SIZE, or what suits the device and the model.

    What suits depends on nothing but the two, so that it is the same in every run: batches of other sizes round
    otherwise. Halved as often as BOUNDARYFLOW_BATCH_HALVINGS says, which the flow sets for a stage that was killed.

    Args:
        model: The frozen model; None for the small networks around it.

    Raises:
        ParamsError: A variable is not such a number.
    """
    usual = (_MAX_BATCH if device().type == "cuda" else 32) if model is None else _suits(model)
    size = _whole_number("BOUNDARYFLOW_BATCH_SIZE", usual, least=1)
    return max(1, size >> _whole_number("BOUNDARYFLOW_BATCH_HALVINGS", 0, least=0))


def _suits(model: EpsModel) -> int:
    """The smallest power of two that gives a network call enough to do."""
    enough, size = _ENOUGH_FLOPS["cuda" if device().type == "cuda" else "cpu"] / max(flops(model), 1), 1
    while size < enough and size < _MAX_BATCH:
        size *= 2
    return size


def flops(model: EpsModel) -> int:
    """Floating-point operations of one network call on one image, counted while it is made."""
    if model.sha256 not in _counted:
        sample = torch.zeros(1, model.channels, model.image_size, model.image_size)
        with FlopCounterMode(display=False) as counter:
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
