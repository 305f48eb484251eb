"""The device and the dtype of networks."""

from __future__ import annotations

import os

import torch

from boundaryflow.errors import ParamsError


def device() -> torch.device:
    """The device that BOUNDARYFLOW_DEVICE names; `auto` is the GPU if one is available.

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
