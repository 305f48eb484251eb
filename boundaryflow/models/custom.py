"""A model that a user wrote: `FILE.py:FUNCTION` names a function that gives one."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from boundaryflow.diffusion import EpsModel
from boundaryflow.errors import CheckpointError

_MEMBERS = ("image_size", "channels", "value_range", "schedule", "sha256", "eps", "eps_and_h", "eps_with_h",
            "eps_with_h_shift", "eps_and_features", "pullback")  # fmt: skip


def names_python_model(source: str) -> bool:
    """Is it `FILE.py:FUNCTION`?"""
    return re.fullmatch(r".+\.py:\w+", source) is not None


def load_python_model(source: str, *, device: torch.device | str, dtype: torch.dtype) -> EpsModel:
    """Call the function that gives the user's model.

    Args:
        source: `FILE.py:FUNCTION`; the function takes the keywords `device` and `dtype`.
        device: Where the network is to run.
        dtype: What it is to compute in.

    Raises:
        CheckpointError: File or function are missing, fail, or give something else than a model.
    """
    path, _, name = source.rpartition(":")
    function = getattr(_import(Path(path)), name, None)
    if not callable(function):
        raise CheckpointError(f"model {source}: {path} has no function {name}")
    try:
        model: Any = function(device=device, dtype=dtype)
    except CheckpointError:
        raise
    except Exception as error:
        raise CheckpointError(f"model {source}: {name} failed, {type(error).__name__}: {error}") from error
    check_members(model, source)
    return model


def check_members(model: Any, where: str) -> None:
    """Refuse an object that is not behind the protocol `EpsModel`.

    Raises:
        CheckpointError: A member is missing or of another type.
    """
    missing = [member for member in _MEMBERS if not hasattr(model, member)]
    if missing:
        raise CheckpointError(
            f"model {where}: what it gives has no {missing[0]}; a model has {', '.join(_MEMBERS)} (protocol EpsModel)"
        )
    if re.fullmatch(r"[0-9a-f]{64}", str(model.sha256)) is None:
        raise CheckpointError(f"model {where}: its sha256 is not a SHA-256; use boundaryflow.models.network_sha256")


def _import(path: Path) -> ModuleType:
    if not path.is_file():
        raise CheckpointError(f"model {path}: no such file; give FILE.py:FUNCTION")
    name = f"_boundaryflow_model_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise CheckpointError(f"model {path}: cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise CheckpointError(f"model {path}: cannot be imported, {type(error).__name__}: {error}") from error
    return module
