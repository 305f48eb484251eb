"""Without torch's compiler, which takes nearly as long to import as torch itself and is used nowhere here.

Torch and diffusers import it for decorators that matter to compiled functions only. Where this project alone runs, a
stand-in is there for as long as they ask.
"""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

COMPILER = "torch._dynamo"
_OURS = ("boundaryflow", "stages", "flows")


def is_own_process() -> bool:
    """Whether `boundaryflow`, or `python -m` with a module of this project, started this process.

    Anybody else may compile models after what is imported here.
    """
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    return Path(sys.argv[0]).name == "boundaryflow" or (spec is not None and spec.name.partition(".")[0] in _OURS)


@contextmanager
def without_compiler() -> Generator[None]:
    """Import no compiler within; has an effect in a process of our own only, and where it is not imported yet."""
    if not is_own_process() or COMPILER in sys.modules:
        yield
        return
    stand_in = ModuleType(COMPILER)
    stand_in.__dict__.update(allow_in_graph=_unchanged, disable=_unchanged)
    sys.modules[COMPILER] = stand_in
    try:
        yield
    finally:
        if sys.modules.get(COMPILER) is stand_in:
            del sys.modules[COMPILER]


def _unchanged(function: Any = None, *_: object, **__: object) -> Any:
    """As a decorator, with arguments or without, changes nothing."""
    return _unchanged if function is None else function
