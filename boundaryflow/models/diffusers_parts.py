"""What this project uses of diffusers, imported in a fifth of the time.

To import diffusers' UNet2DModel is to import all of its networks, torch's compiler, torchvision and scipy.stats: twice
the time that torch itself takes, at every start of a stage or job, and nothing of it is used here. In a process of our
own, stand-ins take the place of two packages, for the length of the import; their modules are found, but not all of
them are imported. Whatever is imported later is the real one. Should diffusers come to need more, it is imported as
usual.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

from boundaryflow.compiler import is_own_process, without_compiler

_PACKAGES = ("diffusers.models.transformers", "diffusers.models.unets")


def _import_parts() -> None:
    for name in ("models.attention_processor", "models.unets.unet_2d", "models.upsampling"):
        importlib.import_module(f"diffusers.{name}")


def import_quickly(import_parts: Callable[[], None] = _import_parts) -> bool:
    """Import what is used of diffusers and little else.

    Args:
        import_parts: Imports it.

    Returns:
        Whether that was possible; if not, nothing of diffusers has been imported.
    """
    try:
        with without_compiler(), _stand_ins():
            import_parts()
    except (ImportError, AttributeError, RuntimeError):  # RuntimeError is what diffusers makes of an ImportError
        for name in [name for name in sys.modules if name.partition(".")[0] == "diffusers"]:
            del sys.modules[name]
        return False
    return True


@contextmanager
def _stand_ins() -> Generator[None]:
    found = find_spec("diffusers")
    if found is None or found.origin is None:
        raise ImportError("diffusers is not installed")
    modules = {name: ModuleType(name) for name in _PACKAGES}
    for name, module in modules.items():
        module.__path__ = [str(Path(found.origin).parent / "models" / name.rpartition(".")[2])]
    sys.modules.update(modules)
    try:
        yield
    finally:
        for name in modules:
            sys.modules.pop(name, None)


if is_own_process() and "diffusers" not in sys.modules:
    import_quickly()

from diffusers.models.attention_processor import Attention  # noqa: E402
from diffusers.models.unets.unet_2d import UNet2DModel  # noqa: E402
from diffusers.models.upsampling import Upsample2D  # noqa: E402

__all__ = ["Attention", "UNet2DModel", "Upsample2D"]
