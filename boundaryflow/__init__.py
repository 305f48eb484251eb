"""Edit images by attribute with a frozen, unconditional diffusion model.

docs/api.md shows each of these names at work; they are stable. Importing this package loads nothing else: a name is
imported when it is first used.

Example:
    >>> import boundaryflow as bf
    >>> bf.__all__
    ['Boundary', 'Editor', 'Item', 'PipelineError', 'Run', 'load', 'load_model', 'open']
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from boundaryflow.api.boundary import Boundary
    from boundaryflow.api.editor import Editor, load, load_model
    from boundaryflow.api.run import Item, Run, open  # noqa: A004 - it is bf.open
    from boundaryflow.errors import PipelineError

__all__ = ["Boundary", "Editor", "Item", "PipelineError", "Run", "load", "load_model", "open"]
_HOMES = {
    "Boundary": "api.boundary",
    "Editor": "api.editor",
    "load": "api.editor",
    "load_model": "api.editor",
    "Item": "api.run",
    "Run": "api.run",
    "open": "api.run",
    "PipelineError": "errors",
}


def __getattr__(name: str) -> Any:
    """A public name, imported now (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module 'boundaryflow' has no attribute {name!r}; there are {', '.join(__all__)}")
    from importlib import import_module

    return getattr(import_module(f"boundaryflow.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
