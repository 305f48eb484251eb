"""Muon, the optimiser of convolution and attention matrices."""

from __future__ import annotations

from collections import defaultdict

import torch
from torch import Tensor, nn


class Muon(torch.optim.Optimizer):
    """Momentum whose matrices are orthogonalised before the step (Jordan et al. 2024).

    A convolution's weight counts as an [out, in * height * width] matrix. Matrices of one shape are
    orthogonalised together, on a GPU in bfloat16.
    """

    def __init__(self, params: list[nn.Parameter], lr: float, momentum: float = 0.95) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            by_shape: defaultdict[tuple[int, int], list[nn.Parameter]] = defaultdict(list)
            for p in group["params"]:
                if not self.state[p]:
                    self.state[p]["momentum"] = torch.zeros_like(p)
                by_shape[len(p), p[0].numel()].append(p)
            for (rows, columns), params in by_shape.items():
                self._step_together(params, group, gain=max(1.0, rows / columns) ** 0.5)

    def _step_together(self, params: list[nn.Parameter], group: dict[str, float], gain: float) -> None:
        ahead: list[Tensor] = []  # Nesterov's momentum
        for p in params:
            grad = p.grad if p.grad is not None else torch.zeros_like(p)
            buffer = self.state[p]["momentum"].lerp_(grad, 1 - group["momentum"])
            ahead.append(grad.lerp(buffer, group["momentum"]).reshape(len(p), -1))
        for p, matrix in zip(params, _orthogonalise(torch.stack(ahead)).unbind(), strict=True):
            p.add_(matrix.reshape(p.shape), alpha=-group["lr"] * gain)


def _orthogonalise(matrices: Tensor, num_iterations: int = 5) -> Tensor:
    """[K,M,N] by the quintic Newton-Schulz iteration towards the nearest semi-orthogonal matrices."""
    a, b, c = 3.4445, -4.7750, 2.0315
    is_tall = matrices.shape[1] > matrices.shape[2]
    wide = matrices.mT if is_tall else matrices
    x = wide / (wide.norm(dim=(1, 2), keepdim=True) + 1e-7)
    if x.is_cuda:
        x = x.bfloat16()
    for _ in range(num_iterations):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if is_tall else x
