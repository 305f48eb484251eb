"""The edit: move the latents once at the mixing step, then denoise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from boundaryflow.boundary import Boundary
from boundaryflow.diffusion import EpsModel, HShift, Inversion, denoise
from boundaryflow.errors import BoundaryError

MAX_COSINE = 0.99


@dataclass(frozen=True)
class Move:
    """How far each image goes along the normals of one or several attributes.

    Attributes:
        boundaries: Boundaries of one space, one per attribute.
        shifts: [B,A] distance along each boundary's own normal, in latent units; 0 leaves the
            image where it is along that normal.
    """

    boundaries: Sequence[Boundary]
    shifts: Float[Tensor, "b a"]

    def offset(self, shape: Sequence[int]) -> Float[Tensor, "b ..."]:
        """The one displacement that gives all the shifts at once.

        Normals of different attributes are not orthogonal, so the steps are solved jointly:
        N (N^T N)^-1 s moves by s_a along every normal a, whatever the order.

        Args:
            shape: Shape of one latent.

        Returns:
            [B,*shape] float32.

        Raises:
            BoundaryError: Two normals are all but the same line, so that no small step does both.
        """
        normals = torch.stack([b.normal for b in self.boundaries], 1).double()
        products = normals.T @ normals
        cosines = (products - torch.diag(products.diag())).abs()
        if float(cosines.max()) > MAX_COSINE:
            first, second = divmod(int(cosines.argmax()), len(products))
            names = [self.boundaries[index].attribute for index in (first, second)]
            raise BoundaryError(
                f"edit: the normals of {names[0]!r} and {names[1]!r} have cosine {float(products[first, second]):.3f}, "
                f"must be within {MAX_COSINE} of 0 to be moved along together; leave one of them out"
            )
        steps = torch.linalg.solve(products, self.shifts.double().T).T
        return (steps @ normals.T).float().reshape(len(steps), *shape)


def edit(
    model: EpsModel,
    inversion: Inversion,
    *,
    move_eps: Move | None,
    move_h: Move | None,
    h_window: tuple[float, float] = (1.0, 0.0),
    eta: float = 0.0,
    noise: Callable[[int], Tensor] | None = None,
) -> Float[Tensor, "b c h w"]:
    """Edit inverted images.

    Source: BoundaryDiffusion (Zhu et al. 2023), section 3.4: x' = x + shift * n, once at t_mix. In
    h-space one step changes next to nothing (the skip connections carry the image past it), so
    the shift there is kept up over a window of steps (Haas et al. 2024, section 3).

    Args:
        model: The frozen model.
        inversion: Of `invert`; with its residuals, a move of zero returns the input.
        move_eps: Move of x_mix, or None.
        move_h: Move of the bottleneck, or None.
        h_window: Noisiest and cleanest end of the h window, as shares of t_mix; (1, 1) is the
            single step of the paper.
        eta: 0 is deterministic. The residuals must have been made for the same eta.
        noise: Noise of the step that leaves timestep t, where needed (see `denoise`).

    Returns:
        Images in model range, not clipped.
    """
    x_mix = inversion.x_mix
    if move_eps is not None:
        x_mix = x_mix + move_eps.offset(x_mix.shape[1:]).to(x_mix)
    h_shift = None
    if move_h is not None:
        t_mix = inversion.timesteps[-1]
        high, low = h_window
        shift = move_h.offset(inversion.h_mix.shape[1:]).to(x_mix)
        h_shift = HShift(shift, t_high=round(high * t_mix), t_low=round(low * t_mix))
    return denoise(
        model,
        x_mix,
        inversion.timesteps,
        eta=eta,
        noise=noise,
        residuals=inversion.residuals,
        h_shift=h_shift,
    )
