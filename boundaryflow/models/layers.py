"""The layers within a network: found by name, looked at while it is called, listed."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from boundaryflow.diffusion import Features
from boundaryflow.errors import CheckpointError
from boundaryflow.text import visible

_MAX_CLOSE = 3
_LEAST_MAPS = 3  # dimensions of maps [B,C,...]; what has fewer is an embedding, of the timestep above all
_LEAST_PARTS = 2  # of a block


class Reached(Exception):  # noqa: N818
    """Ends a network call at the layer that is looked at, which has been kept."""


class Look:
    """Keeps what one layer gives in one call of the network, and may replace it; a context around the call.

    What comes behind the layer is computed without gradients: nobody asks for them.

    Args:
        what: The layer, for messages.
        module: The layer.
        keep: What to keep of its output.
        change: From what was kept to what the layer gives instead; None leaves its output.
        layout: In memory, of what it gives instead.
        stops: End the call there, by raising `Reached`.
    """

    def __init__(
        self,
        what: str,
        module: nn.Module,
        keep: Callable[[Tensor], Tensor],
        change: Callable[[Tensor], Tensor] | None = None,
        layout: torch.memory_format = torch.channels_last,
        *,
        stops: bool = False,
    ) -> None:
        self._layout, self._stops = layout, stops
        self._what, self._module, self._keep, self._change = what, module, keep, change
        self._seen: Tensor | None = None
        self._hook: RemovableHandle | None = None

    def __enter__(self) -> Self:
        self._hook = self._module.register_forward_hook(self._at_layer)
        return self

    def __exit__(self, *_error: object) -> None:
        if self._hook is not None:
            self._hook.remove()

    @property
    def seen(self) -> Tensor:
        """What was kept.

        Raises:
            CheckpointError: The network did not call the layer.
        """
        if self._seen is None:
            raise CheckpointError(f"{self._what} is not called by the network")
        return self._seen

    def _at_layer(self, _module: object, _inputs: object, output: Tensor) -> Tensor:
        if self._seen is not None:
            raise CheckpointError(f"{self._what} is called more than once by the network; take one that is called once")
        self._seen = self._keep(output)
        if self._stops:
            raise Reached
        if torch.is_grad_enabled():  # a pullback
            torch.set_grad_enabled(False)  # the block in `FrozenModel.pullback` sets it back at its end
        if self._change is None:
            return output
        changed = self._change(self._seen)
        return changed.to(output.device, output.dtype).contiguous(memory_format=self._layout)


def find_layer(network: nn.Module, features: Features, *, stops: bool = False) -> Look:
    """A look at the features of a named layer; `stops` as in `Look`.

    Raises:
        CheckpointError: There is no such layer; on the way, its output is none that can be used.
    """
    modules = {name: module for name, module in network.named_modules() if name}
    name = str(features.layer)
    if name not in modules:
        close = difflib.get_close_matches(name, modules, _MAX_CLOSE)
        raise CheckpointError(
            f"the network has no layer {visible(name)!r}" + (f", did you mean {' or '.join(close)}?" if close else "")
        )
    what = f"layer {name!r}"

    def keep(output: object) -> Tensor:
        if not isinstance(output, Tensor) or not output.is_floating_point() or output.ndim < _LEAST_MAPS:
            given = list(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise CheckpointError(f"{what} gives {given}, must be maps [B,C,H,W]")
        if features.pool is not None and (output.ndim != 4 or features.pool > min(output.shape[2:])):  # noqa: PLR2004
            side = " x ".join(map(str, output.shape[2:]))
            raise CheckpointError(f"{what} gives maps of {side}, which cannot be averaged to a side of {features.pool}")
        return features.of(output)

    return Look(what, modules[name], keep, stops=stops)


def layer_shapes(network: nn.Module, bottleneck: nn.Module, call: Callable[[], object]) -> dict[str, tuple[int, ...]]:
    """The blocks of a network from its bottleneck on: a short list of the layers that `Features` may name.

    A block has several parts with weights, a convolution among them, and holds no other block: a residual block, not
    an attention or a level.

    Args:
        network: The module within which layers are named.
        bottleneck: The module in its middle.
        call: Calls the network once.

    Returns:
        Name to the shape [C,H,W] of its maps, in the order in which they are called.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    names = {module: name for name, module in network.named_modules() if name}

    def note(module: nn.Module, _inputs: object, output: object) -> None:
        is_wanted = module is bottleneck or (shapes and _is_block(module))
        if is_wanted and isinstance(output, Tensor) and output.ndim == 4:  # noqa: PLR2004
            shapes[names[module]] = tuple(output.shape[1:])

    hooks = [module.register_forward_hook(note) for module in names]
    try:
        call()
    finally:
        for hook in hooks:
            hook.remove()
    return {name: of for name, of in shapes.items() if not any(other.startswith(f"{name}.") for other in shapes)}


def _is_block(module: nn.Module) -> bool:
    weights = [list(part.parameters(recurse=False)) for part in module.modules() if part is not module]
    convolves = any(weight.ndim >= _LEAST_MAPS for of_part in weights for weight in of_part)
    return convolves and sum(map(bool, weights)) >= _LEAST_PARTS
