"""A network called in other ways: as CUDA graphs, or with compiled blocks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor

from benches.engine.guided_arm import NUM_DIRECTIONS
from boundaryflow.diffusion import Features
from boundaryflow.models.unet import UNetModel
from boundaryflow.runtime.device import device
from boundaryflow.runtime.metering import Metered, Tally

Recorded = Callable[[], Sequence[Tensor]]


def _record(work: Recorded) -> Recorded:
    """What replays work on tensors that stay where they are; without a GPU the work itself."""
    if device().type != "cuda":
        return work
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = work()

    def replay() -> Sequence[Tensor]:
        graph.replay()
        return out

    return replay


def _warm_up(work: Callable[[], object]) -> None:
    """Run work a few times where a recording will run it, so that libraries have their memory before it begins."""
    if device().type != "cuda":
        work()
        return
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            work()
    torch.cuda.current_stream().wait_stream(stream)


class Graphed(Metered):
    """A frozen model whose calls are recorded once for each shape of samples, then replayed.

    Args:
        net: The model.
    """

    def __init__(self, net: UNetModel) -> None:
        super().__init__(net, Tally())
        self._net = net
        self._calls: dict[tuple[Any, ...], tuple[Tensor, Tensor, Recorded]] = {}
        self._pullbacks: dict[tuple[Any, ...], tuple[Tensor, Tensor, Tensor, Recorded, Recorded]] = {}

    def eps(self, x_t: Tensor, t: int | Tensor) -> Tensor:
        """See `EpsModel`."""
        return self._called("eps", x_t, t, lambda x, at: (self._net.eps(x, at),))[0]

    def eps_and_h(self, x_t: Tensor, t: int | Tensor) -> tuple[Tensor, Tensor]:
        """See `EpsModel`."""
        eps, h = self._called("h", x_t, t, self._net.eps_and_h)
        return eps, h

    def eps_and_features(self, x_t: Tensor, t: int | Tensor, features: Features) -> tuple[Tensor, Tensor]:
        """See `EpsModel`."""
        eps, seen = self._called(features, x_t, t, lambda x, at: self._net.eps_and_features(x, at, features))
        return eps, seen

    def _called(
        self, what: object, x_t: Tensor, t: int | Tensor, call: Callable[[Tensor, Tensor], Sequence[Tensor]]
    ) -> list[Tensor]:
        key = (what, x_t.shape)
        if key not in self._calls:
            with torch.inference_mode(False):
                x, at = torch.zeros(x_t.shape, device=x_t.device), torch.zeros((), dtype=torch.long, device=x_t.device)
            _warm_up(lambda: call(x, at))
            self._calls[key] = (x, at, _record(lambda: call(x, at)))
        x, at, replay = self._calls[key]
        x.copy_(x_t)
        at.fill_(t)
        return [out.clone() for out in replay()]

    def pullback(
        self, x_t: Tensor, t: int | Tensor, features: Features, normals: Callable[[Tensor], Tensor]
    ) -> tuple[Tensor, Tensor]:
        """See `EpsModel`; the way up and the way back are a graph each."""
        key = (features, x_t.shape)
        if key not in self._pullbacks:
            self._pullbacks[key] = self._record_pullback(x_t, features)
        sample, at, directions, up, back = self._pullbacks[key]
        with torch.no_grad():
            sample.copy_(x_t)
            at.fill_(t)
            eps, seen = (out.detach().clone() for out in up())
            directions.copy_(normals(seen))
            return eps, back()[0].clone()

    def _record_pullback(self, x_t: Tensor, features: Features) -> tuple[Tensor, Tensor, Tensor, Recorded, Recorded]:
        net, where = self._net, x_t.device
        num_dimensions = net.eps_and_features(x_t[:1], 0, features)[1].shape[1]
        seen: list[Tensor] = []
        with torch.inference_mode(False):
            sample = torch.zeros(x_t.shape, device=where, requires_grad=True)
            at = torch.zeros((), dtype=torch.long, device=where)
            directions = torch.zeros(len(x_t), NUM_DIRECTIONS, num_dimensions, device=where)

            def up() -> Sequence[Tensor]:
                look = net._look_at(features)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
                with torch.inference_mode(False), torch.enable_grad():
                    eps = net._forward(sample, at, look)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
                seen[:] = [look.seen]
                return eps, look.seen

            def back() -> Sequence[Tensor]:
                with torch.inference_mode(False), torch.enable_grad():
                    products = (seen[0][:, None] * directions).sum((0, 2))
                    return (
                        torch.stack(
                            [torch.autograd.grad(product, sample, retain_graph=True)[0] for product in products], 1
                        ),
                    )

            _warm_up(lambda: (up(), back()))
            replay_up = _record(up)
            return sample, at, directions, replay_up, _record(back)


def compile_blocks(net: UNetModel) -> None:
    """Compile every residual block of a network by itself, so that its layers can still be looked at."""
    import torch._dynamo
    import torch._functorch.config

    torch._dynamo.config.recompile_limit = 64  # noqa: SLF001
    torch._functorch.config.donated_buffer = False  # noqa: SLF001  # a pullback goes back twice
    for module in net._network.modules():  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
        if isinstance(module, ResnetBlock2D):
            module.compile(dynamic=False)
