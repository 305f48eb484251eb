"""Several strengths of one edit, from one inversion."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from boundaryflow.boundary import Boundary
from boundaryflow.boundary.hyperplane import Space
from boundaryflow.diffusion import EpsModel, Inversion
from boundaryflow.editing.single_step import Move, edit


def edit_at_strengths(
    model: EpsModel,
    inversion: Inversion,
    boundaries: Mapping[Space, Sequence[Boundary]],
    directions: Float[Tensor, "b a"],
    strengths: Sequence[float],
    *,
    scales: Mapping[Space, float],
    h_window: tuple[float, float] = (1.0, 0.0),
    eta: float = 0.0,
    noise: Callable[[int], Tensor] | None = None,
    num_together: int = 1,
) -> Float[Tensor, "b k c h w"]:
    """Edit each image at each strength.

    A strength of 1 moves a latent, in each space, by `scales` times the distance between the
    means of held-out images with and without the attribute; 0 leaves it. All strengths of an
    image share its inversion and its noise, so they differ in nothing but the strength.

    Args:
        model: The frozen model.
        inversion: Of `invert`.
        boundaries: Space to the boundaries of the A attributes, in one order; a space that is
            left out is not moved in.
        directions: [B,A] +1 towards the attribute, -1 away from it, 0 to leave it alone; another number multiplies the
            strength of its attribute.
        strengths: K strengths.
        scales: Space to the factor above.
        h_window: See `edit`.
        eta: See `edit`.
        noise: See `edit`.
        num_together: How many strengths go through the network in one call, side by side.

    Returns:
        [B,K,C,H,W] images in model range, not clipped.
    """
    num = len(inversion.x_mix)
    results: list[Tensor] = []
    for start in range(0, len(strengths), num_together):
        some = list(strengths[start : start + num_together])
        rows = list(range(num)) * len(some)
        factor = torch.tensor(some).repeat_interleave(num)[:, None]
        moves: dict[str, Move] = {}
        for space, of_space in boundaries.items():
            gaps = torch.tensor([b.calibration.gap for b in of_space])
            moves[space] = Move(of_space, factor * scales[space] * gaps * directions[rows])
        edited = edit(
            model,
            inversion if len(some) == 1 else inversion.take(rows),
            move_eps=moves.get("eps"),
            move_h=moves.get("h"),
            h_window=h_window,
            eta=eta,
            noise=(lambda t, rows=rows: noise(t)[rows]) if noise else None,
        )
        results += edited.unflatten(0, (len(some), num)).unbind(0)
    return torch.stack(results, 1)
