"""Where an edited image's bottleneck should lie at each timestep, relative to the hyperplanes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from boundaryflow.boundary import Boundary

_NEGLIGIBLE = 0.01  # share of the mean reach: a loss of this size has half weight, a smaller one is mostly rounding


@dataclass(frozen=True)
class Hyperplanes:
    """The hyperplanes of P attributes at one timestep.

    Attributes:
        normals: [P,D].
        intercepts: [P].
        middles: [P] signed distance half-way between the class means.
        reaches: [P] distance from there at which an image is typical of its class and has its target
            probability; see `Calibration.reach`.
    """

    normals: Tensor
    intercepts: Tensor
    middles: Tensor
    reaches: Tensor

    @classmethod
    def of(cls, boundaries: Sequence[Boundary], log_odds: float, like: Tensor) -> Hyperplanes:
        def vector(values: list[float]) -> Tensor:
            return torch.tensor(values).to(like)

        normals = torch.stack([b.normal for b in boundaries]) if boundaries else torch.empty(0, 0)
        return cls(
            normals.to(like),
            vector([b.intercept for b in boundaries]),
            vector([b.calibration.middle for b in boundaries]),
            vector([b.calibration.reach(log_odds) for b in boundaries]),
        )

    def from_middle(self, h: Tensor) -> Tensor:
        """[B,P] signed distances of bottlenecks [B,D], measured from half-way between the class means."""
        return h @ self.normals.T + self.intercepts - self.middles

    def lost(self, unedited: Tensor, now: Tensor) -> Tensor:
        """[B,P] signed distance that the edit moved towards the other class; moving deeper into its own is 0."""
        side = torch.sign(unedited)
        return ((unedited - now) * side).clamp(min=0) * side


@dataclass(frozen=True)
class Constraints:
    """Where the edited image's bottleneck should lie at one timestep.

    Attributes:
        columns: Which of the A edited attributes have a hyperplane at this timestep: E of them.
        edited: Their hyperplanes.
        preserved: Hyperplanes of the attributes that should not change.
    """

    columns: list[int]
    edited: Hyperplanes
    preserved: Hyperplanes

    def missing(self, unedited: Tensor, now: Tensor, asked: Tensor, strength: Tensor) -> Tensor:
        """[B,E] distance from the edited image's bottleneck to its target, per edited attribute.

        Args:
            unedited: [B,D] bottleneck of the unedited image.
            now: [B,D] bottleneck of the edited image.
            asked: [B,A] +1 towards the attribute, -1 away from it, 0 to keep it as it is.
            strength: [B,1], not 0.
        """
        before, after = self.edited.from_middle(unedited), self.edited.from_middle(now)
        sign = asked[:, self.columns] * strength.sign()
        way = ((sign * self.edited.reaches - before) * sign).clamp(min=0) * strength.abs()
        ahead = ((before - after) * sign + way).clamp(min=0) * sign  # an edit that overshoots is not moved back
        return torch.where(sign == 0, self.edited.lost(before, after), ahead)

    def lost(self, unedited: Tensor, now: Tensor) -> Tensor:
        """[B,D] the sum over preserved attributes of what each lost, along its normal."""
        if not len(self.preserved.normals):
            return torch.zeros_like(now)
        lost = self.preserved.lost(self.preserved.from_middle(unedited), self.preserved.from_middle(now))
        return lost @ self.preserved.normals

    def weight(self, length: Tensor) -> Tensor:
        """[B,1] weight of a loss of this length [B,1], in [0, 1); see `Guidance.preserve`."""
        if not len(self.preserved.normals):
            return torch.zeros_like(length)
        negligible = _NEGLIGIBLE * self.preserved.reaches.mean().clamp(min=1e-12)
        return length**2 / (length**2 + negligible**2)


def constraints_by_timestep(
    boundaries: Sequence[Sequence[Boundary]],
    preserved: Sequence[Sequence[Boundary]],
    path: Sequence[int],
    log_odds: float,
    h: Tensor,
) -> dict[int, Constraints]:
    """Sort hyperplanes by timestep.

    Args:
        boundaries: Of each edited attribute, by timestep.
        preserved: Of each attribute to preserve, by timestep.
        path: Timesteps of the edit.
        log_odds: Of the target probability, see `Calibration.reach`.
        h: A bottleneck [1,D], for its size, device and dtype.

    Raises:
        ValueError: A hyperplane is of a timestep that is not on the path.
        BoundaryError: A hyperplane is of another size than the bottleneck.
    """
    at = {boundary.t for of_attribute in boundaries for boundary in of_attribute}
    if not at <= set(path):
        raise ValueError(f"hyperplanes at timesteps {sorted(at - set(path))}, which are not on the path {list(path)}")
    steps: dict[int, Constraints] = {}
    for t in at:
        edited = [(c, b) for c, of_attribute in enumerate(boundaries) for b in of_attribute if b.t == t]
        kept = [b for of_attribute in preserved for b in of_attribute if b.t == t]
        for boundary in (*(b for _, b in edited), *kept):
            boundary.check_dimensions(h.numel())
        steps[t] = Constraints(
            [column for column, _ in edited],
            Hyperplanes.of([boundary for _, boundary in edited], log_odds, h),
            Hyperplanes.of(kept, log_odds, h),
        )
    return steps
