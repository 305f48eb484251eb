"""The noise schedule and the timesteps that a trajectory visits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

CLEAN = -1
"""The timestep of a finished image: alpha_bar is 1 there."""


@dataclass(frozen=True)
class NoiseSchedule:
    """Frozen tables of a variance-preserving diffusion process.

    Attributes:
        betas: [T] float64, variance added at each timestep, in (0, 1).
        alphas_cumprod: [T] float64, alpha_bar; written alpha in the DDIM paper.
    """

    betas: Tensor
    alphas_cumprod: Tensor

    @classmethod
    def from_betas(cls, betas: Tensor) -> NoiseSchedule:
        """Build the tables from the variances.

        Raises:
            ValueError: `betas` is not a vector of values in (0, 1).
        """
        betas = betas.to(torch.float64).cpu()
        if betas.ndim != 1 or not bool(((betas > 0) & (betas < 1)).all()):
            raise ValueError(f"betas must be a vector of values in (0, 1), got shape {tuple(betas.shape)}")
        return cls(betas, (1 - betas).cumprod(0))

    @classmethod
    def linear(cls, num_train_timesteps: int = 1000, start: float = 1e-4, end: float = 0.02) -> NoiseSchedule:
        """Linear variances (Ho et al. 2020, section 4)."""
        return cls.from_betas(torch.linspace(start, end, num_train_timesteps, dtype=torch.float64))

    @property
    def num_train_timesteps(self) -> int:
        """T."""
        return len(self.betas)

    def alpha_bar(self, t: int) -> float:
        """Cumulative signal level at timestep t; 1.0 at t = -1, the finished image.

        Raises:
            ValueError: t is outside [-1, T-1].
        """
        if not CLEAN <= t < self.num_train_timesteps:
            raise ValueError(f"timestep {t} is outside [-1, {self.num_train_timesteps - 1}]")
        return 1.0 if t == CLEAN else float(self.alphas_cumprod[t])


def timestep_path(t_end: int, num_steps: int, power: float = 1.0) -> tuple[int, ...]:
    """Timesteps from 0 to t_end, cut to whole numbers.

    Source: the grid of the authors' release, `int(v * t_0)` for v in linspace(0, 1, N).

    Args:
        t_end: Last timestep, the noisiest.
        num_steps: Number of timesteps, both ends included, at least 2.
        power: 1 spaces them evenly; more makes them denser towards the image (v ** power).

    Returns:
        Strictly ascending timesteps, first 0, last t_end.

    Raises:
        ValueError: Fewer than 2 timesteps, or more than there are between 0 and t_end.
    """
    if not 2 <= num_steps <= t_end + 1:
        raise ValueError(f"a path from 0 to {t_end} has 2 to {t_end + 1} timesteps, not {num_steps}")
    path = [int(v**power * t_end) for v in np.linspace(0, 1, num_steps)]
    for position in range(1, num_steps):  # cutting makes neighbours equal where steps are hardly longer than 1
        path[position] = max(path[position], path[position - 1] + 1)
    for position in range(num_steps - 1, 0, -1):
        path[position - 1] = min(path[position - 1], min(path[position], t_end) - 1)
    return (*path[:-1], t_end)
