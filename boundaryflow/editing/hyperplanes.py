"""Hyperplanes of a guided edit at one timestep, and how far an edited image is from its targets there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from boundaryflow.boundary import Boundary

_LARGEST_CONDITION = 1e3  # of patterns and normals; above it two attributes are one
_NEGLIGIBLE = 0.01  # in mean reaches of the attributes: what is to be undone has weight 1/2 at this length


@dataclass(frozen=True)
class Hyperplanes:
    """P hyperplanes of one timestep.

    Attributes:
        normals: [P,D] unit normals.
        intercepts: [P].
        middles: [P] signed distance half-way between the class means.
        reaches: [P] distance from the middle at which an image is typical and certain of its class.
    """

    normals: Tensor
    intercepts: Tensor
    middles: Tensor
    reaches: Tensor

    @classmethod
    def of(cls, boundaries: Sequence[Boundary], log_odds: float, like: Tensor) -> Hyperplanes:
        """Stack boundaries into tensors of the dtype and device of `like`."""

        def vector(values: list[float]) -> Tensor:
            return torch.tensor(values).to(like)

        normals = torch.stack([b.normal for b in boundaries]) if boundaries else torch.empty(0, 0)
        return cls(
            normals.to(like),
            vector([b.intercept for b in boundaries]),
            vector([b.calibration.middle for b in boundaries]),
            vector([b.calibration.reach(log_odds) for b in boundaries]),
        )

    def from_middle(self, features: Tensor) -> Tensor:
        """[B,P] signed distances from the middle between the classes."""
        return features @ self.normals.T + self.intercepts - self.middles

    def lost(self, unedited: Tensor, edited: Tensor) -> Tensor:
        """[B,P] signed distance that an edit has moved images towards the other class; moves away from it are 0."""
        side = torch.sign(unedited)
        return ((unedited - edited) * side).clamp(min=0) * side


@dataclass(frozen=True)
class TimestepTargets:
    """The hyperplanes that a guided edit uses at one timestep.

    Attributes:
        columns: [E] columns of the edited attributes that have a hyperplane at this timestep.
        edited: Hyperplanes of these E attributes.
        preserved: Hyperplanes of the preserved attributes.
        explained: [E,D] change of the features that goes with a distance of 1 from each hyperplane, and with none from
            the others, by the attributes' patterns. None where one of the edited attributes has no hyperplane at this
            timestep, so that its own change would count as unexplained, or where a pattern is unknown.
    """

    columns: list[int]
    edited: Hyperplanes
    preserved: Hyperplanes
    explained: Tensor | None

    def missing(self, unedited: Tensor, edited: Tensor, directions: Tensor, strength: Tensor) -> Tensor:
        """[B,E] signed distance from the edited image to its target, per edited attribute.

        Args:
            unedited: [B,D] features of the unedited image.
            edited: [B,D] features of the edited image.
            directions: [B,A] +1, -1 or 0; another number multiplies the strength of its attribute.
            strength: [B,1], not 0.
        """
        before, after = self.edited.from_middle(unedited), self.edited.from_middle(edited)
        asked = torch.stack([directions[:, column] for column in self.columns], 1) * strength
        sign = asked.sign()
        way = ((sign * self.edited.reaches - before) * sign).clamp(min=0) * asked.abs()
        ahead = ((before - after) * sign + way).clamp(min=0) * sign  # an image past its target is not moved back
        return torch.where(sign == 0, self.edited.lost(before, after), ahead)

    def residual(self, unedited: Tensor, edited: Tensor) -> Tensor | None:
        """[B,D] move in feature space that undoes the change which the edited attributes do not explain.

        The move lies in all E hyperplanes. None where it is not known what they explain.
        """
        if self.explained is None:
            return None
        change = edited - unedited
        return change @ self.edited.normals.T @ self.explained - change

    def restoring(
        self, unedited: Tensor, edited: Tensor, preserve: float, preserve_residual: float
    ) -> tuple[Tensor, Tensor, tuple[float, ...]]:
        """What a step should undo, where there is something to preserve; see `Guidance` for the penalties.

        Returns:
            [B,P,D] moves in feature space, [B,P] their weights from 0 to 1, and the P penalties.
        """
        moves: list[Tensor] = []
        reaches: list[Tensor] = []
        penalties: list[float] = []
        if preserve > 0 and len(self.preserved.normals):
            moves.append(self.lost(unedited, edited))
            reaches.append(self.preserved.reaches)
            penalties.append(preserve)
        if preserve_residual > 0 and (residual := self.residual(unedited, edited)) is not None:
            moves.append(residual)
            reaches.append(self.edited.reaches)
            penalties.append(preserve_residual)
        if not moves:
            return edited.new_zeros(len(edited), 0, edited.shape[1]), edited.new_zeros(len(edited), 0), ()
        every = torch.stack(moves, 1)
        negligible = _NEGLIGIBLE * torch.stack([reach.mean() for reach in reaches]).clamp(min=1e-12)
        squares = every.square().sum(2)
        return every, squares / (squares + negligible**2), tuple(penalties)

    def lost(self, unedited: Tensor, edited: Tensor) -> Tensor:
        """[B,D] move in feature space that undoes the loss of all preserved attributes together."""
        lost = self.preserved.lost(self.preserved.from_middle(unedited), self.preserved.from_middle(edited))
        return lost @ self.preserved.normals


def targets_by_timestep(
    boundaries: Sequence[Sequence[Boundary]],
    preserved: Sequence[Sequence[Boundary]],
    path: Sequence[int],
    log_odds: float,
    *,
    space: str,
    num_dimensions: int,
    like: Tensor,
) -> dict[int, TimestepTargets]:
    """Group hyperplanes by timestep.

    Args:
        boundaries: Per edited attribute its hyperplanes.
        preserved: Per preserved attribute its hyperplanes; used at the timesteps of the edited ones.
        path: Timesteps of the edit.
        log_odds: Certainty that strength 1 must reach, see `Calibration.reach`.
        space: Name of the space of the features.
        num_dimensions: How many they are, D.
        like: Tensor whose dtype and device the hyperplanes get.

    Raises:
        ValueError: A hyperplane of an edited attribute belongs to a timestep that is not on the path.
        BoundaryError: A hyperplane lies in another space, or is of another size.
    """
    at = {boundary.t for of_attribute in boundaries for boundary in of_attribute}
    if not at <= set(path):
        raise ValueError(f"hyperplanes at timesteps {sorted(at - set(path))}, which are not on the path {list(path)}")
    targets: dict[int, TimestepTargets] = {}
    for t in at:
        edited = [(c, b) for c, of_attribute in enumerate(boundaries) for b in of_attribute if b.t == t]
        others = [b for of_attribute in preserved for b in of_attribute if b.t == t]
        for boundary in (*(b for _, b in edited), *others):
            boundary.check_space(space)
            boundary.check_dimensions(num_dimensions)
        targets[t] = TimestepTargets(
            [column for column, _ in edited],
            Hyperplanes.of([boundary for _, boundary in edited], log_odds, like),
            Hyperplanes.of(others, log_odds, like),
            _explained([boundary for _, boundary in edited], like) if len(edited) == len(boundaries) else None,
        )
    return targets


def _explained(edited: Sequence[Boundary], like: Tensor) -> Tensor | None:
    """See `TimestepTargets`; None as well where the patterns do not lead across the hyperplanes."""
    known = [boundary.pattern for boundary in edited if boundary.pattern is not None]
    if len(known) < len(edited):
        return None
    patterns, normals = torch.stack(known).double(), torch.stack([boundary.normal for boundary in edited]).double()
    across = patterns @ normals.T  # [E,E] signed distance that each pattern leads from each hyperplane
    if not (across.diagonal() > 0).all() or torch.linalg.cond(across) > _LARGEST_CONDITION:
        return None
    return torch.linalg.solve(across, patterns).to(like)
