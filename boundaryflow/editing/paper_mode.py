"""What the authors' release computes, its quirks included, for comparison.

Source: github L-YeZhu/BoundaryDiffusion, commit 98c8289, as described in this project's
docs/method.md. The quirks kept here: the bottleneck belongs to the timestep before the latent's;
boundaries have no intercept; strength is an absolute distance, so no strength leaves an image as
it is; the bottleneck of each step replaces that of the next one down; and with an iDDPM network it
does not, because the release hands it over in the place of the class label, which that network
does not look at (`model(xt, t, edit_h)` in utils/diffusion_utils.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from boundaryflow.diffusion import EpsModel, ddim_sigma, ddim_step
from boundaryflow.diffusion.schedule import CLEAN


@torch.inference_mode()
def paper_invert(
    model: EpsModel, x_0: Float[Tensor, "b c h w"], timesteps: Sequence[int]
) -> tuple[Float[Tensor, "b c h w"], Float[Tensor, "b ch hh wh"]]:
    """Invert, and keep the bottleneck of the last call: x is at timesteps[-1], h at timesteps[-2]."""
    x_t, h = x_0.float(), x_0
    for t, t_next in zip(timesteps, timesteps[1:], strict=False):
        eps, h = model.eps_and_h(x_t, t)
        x_t = ddim_step(x_t, eps, model.schedule.alpha_bar(t), model.schedule.alpha_bar(t_next))
    return x_t, h


def project_to(
    latents: Float[Tensor, "b ..."], normal: Float[Tensor, " d"], distance: float | Float[Tensor, " b"]
) -> Float[Tensor, "b ..."]:
    """Latents whose projections on the normal are `distance`, the intercept left out."""
    normal = normal.to(latents)
    projection = latents.flatten(1) @ normal
    distance = distance.to(latents) if isinstance(distance, Tensor) else distance
    step = (distance - projection).reshape(-1, *[1] * (latents.ndim - 1))
    return latents + step * normal.reshape(1, *latents.shape[1:])


@torch.inference_mode()
def paper_edit(
    model: EpsModel,
    x_lat: Float[Tensor, "b c h w"],
    h_lat: Float[Tensor, "b ch hh wh"],
    timesteps: Sequence[int],
    *,
    normal_eps: Float[Tensor, " d_eps"],
    normal_h: Float[Tensor, " d_h"],
    distance: float | Float[Tensor, " b"],
    inject_h: bool = True,
    eta: float = 1.0,
    noise: Callable[[int], Tensor] | None = None,
) -> Float[Tensor, "b c h w"]:
    """Move both latents to `distance`, then denoise with the bottleneck carried from step to step.

    Args:
        model: The frozen model.
        x_lat: Latents of `paper_invert`.
        h_lat: Bottlenecks of `paper_invert`.
        timesteps: The same ascending path.
        normal_eps: Unit normal in ε-space.
        normal_h: Unit normal in h-space.
        distance: Projection that each image moves to, in latent units; the release sweeps -150 to 150.
        inject_h: Does the edited bottleneck reach the network? In the release it does with DDPM
            networks, and not with iDDPM networks.
        eta: The release has 1 for edits and 0 for reconstructions.
        noise: Standard normal noise of the step that leaves timestep t, for eta > 0.

    Returns:
        Images in model range, not clipped.
    """
    x_t, h = project_to(x_lat.float(), normal_eps, distance), project_to(h_lat, normal_h, distance)
    for position in reversed(range(len(timesteps))):
        t, t_next = timesteps[position], timesteps[position - 1] if position else CLEAN
        alpha_bars = model.schedule.alpha_bar(t), model.schedule.alpha_bar(t_next)
        if inject_h:
            eps, h = model.eps_with_h(x_t, t, h)  # injects the last h, gets this step's own for the next
        else:
            eps = model.eps(x_t, t)
        drawn = noise(t).to(x_t) if noise and ddim_sigma(*alpha_bars, eta) > 0 else None
        x_t = ddim_step(x_t, eps, *alpha_bars, eta=eta, noise=drawn)
    return x_t
