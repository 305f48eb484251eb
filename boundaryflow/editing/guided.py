"""The guided edit: follow the hyperplanes of many noise levels, and change only the difference.

There is no inversion. At every timestep, from the noisiest to the cleanest, the same noise is added
to the image and to its edited version, and the network predicts the noise in both. The difference
between the two predictions is carried to the next timestep (Kulikov et al. 2025, "FlowEdit", for
text-conditional flows). The edit itself comes from the boundaries: at each timestep, the smallest
change of the noisy image that brings its features to the target distance from the hyperplanes. The
change is computed by pulling the normals back through the network (Park et al. 2023, section 3). One
penalty preserves the attributes that are not edited, another one all features that do not go with
the edited ones. One iteration over the timesteps may leave an edit incomplete; a further one starts
from its result, with new noise. An image whose directions are all 0 is returned bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from boundaryflow.blur import gaussian_blur
from boundaryflow.boundary import Boundary
from boundaryflow.diffusion import BOTTLENECK, EpsModel, Features, noise_to_signal, noised
from boundaryflow.diffusion.schedule import CLEAN
from boundaryflow.editing.guidance import Guidance
from boundaryflow.editing.hyperplanes import TimestepTargets, targets_by_timestep

_THRESHOLD_WIDTH = 1.0  # sigma of the smoothing before `soft_threshold`, in 64ths of the image width
_REGION_WIDTH = 1.5  # the same for `region`


@dataclass(frozen=True)
class NoisedSource:
    """Images with noise added at every timestep of a path, and what the network computes from them.

    Attributes:
        x_0: [B,C,H,W] images in model range.
        timesteps: The path, ascending.
        noise: `(timestep, draw)` to standard normal noise [B,C,H,W], where the images are.
        eps: `(timestep, draw)` to the predicted noise [B,C,H,W].
        features: Features that the hyperplanes lie in.
        seen: `(timestep, draw)` to these features [B,D].
    """

    x_0: Float[Tensor, "b c h w"]
    timesteps: tuple[int, ...]
    noise: Mapping[tuple[int, int], Tensor]
    eps: Mapping[tuple[int, int], Tensor]
    features: Features
    seen: Mapping[tuple[int, int], Tensor]

    def take(self, rows: Sequence[int]) -> NoisedSource:
        """Select images by row."""
        index = torch.tensor(list(rows), dtype=torch.long, device=self.x_0.device)
        return NoisedSource(
            self.x_0[index],
            self.timesteps,
            {key: noise[index] for key, noise in self.noise.items()},
            {key: eps[index] for key, eps in self.eps.items()},
            self.features,
            {key: seen[index] for key, seen in self.seen.items()},
        )


def observe_noised(
    model: EpsModel,
    x_0: Float[Tensor, "b c h w"],
    timesteps: Sequence[int],
    noise: Callable[[int, int], Tensor],
    *,
    num_noises: int = 1,
    features: Features = BOTTLENECK,
) -> NoisedSource:
    """Add noise to images at every timestep of a path and run the network, once for all edits.

    Args:
        model: The frozen model.
        x_0: Images in model range.
        timesteps: Ascending path.
        noise: `(timestep, draw)` to noise [B,C,H,W]; called once for each.
        num_noises: Noises per timestep, see `Guidance.num_noises`.
        features: Features that the hyperplanes lie in.
    """
    x_0 = x_0.float()
    drawn: dict[tuple[int, int], Tensor] = {}
    eps: dict[tuple[int, int], Tensor] = {}
    seen: dict[tuple[int, int], Tensor] = {}
    for t in timesteps:
        for draw in range(num_noises):
            drawn[t, draw] = noise(t, draw).to(x_0.device)
            sample = noised(x_0, drawn[t, draw], model.schedule.alpha_bar(t))
            eps[t, draw], seen[t, draw] = model.eps_and_features(sample, t, features)
    return NoisedSource(x_0, tuple(timesteps), drawn, eps, features, seen)


def guided_edit(
    model: EpsModel,
    source: NoisedSource,
    boundaries: Sequence[Sequence[Boundary]],
    directions: Float[Tensor, "b a"],
    strengths: Sequence[float],
    guidance: Guidance,
    *,
    preserved: Sequence[Sequence[Boundary]] = (),
    mask: Float[Tensor, "b h w"] | None = None,
    num_together: int = 1,
) -> Float[Tensor, "b k c h w"]:
    """Edit images at several strengths.

    All strengths of an image share its noise. At each timestep there is a distance at which a noisy image is a
    typical and certain member of the other class. Strength s asks for s * `guidance.gain` times the way there from
    the unedited image: 0 returns the image itself, and a negative strength goes the other way. An image that
    already lies there is not moved.

    Args:
        model: The frozen model.
        source: Result of `observe_noised`.
        boundaries: Per attribute (A of them) its hyperplanes in the space of the source's features. Their timesteps
            must be on the source's path; an attribute need not have one at every timestep.
        directions: [B,A] +1 towards the attribute, -1 away from it, 0 for no edit; another number multiplies the
            strength of its attribute.
        strengths: K strengths.
        guidance: See `Guidance`.
        preserved: Hyperplanes of the attributes to preserve, per attribute.
        mask: [B,H,W] in [0, 1], 1 where the image may change; None is everywhere.
        num_together: Number of strengths per network call.

    Returns:
        [B,K,C,H,W] images in model range, not clipped.

    Raises:
        ValueError: A hyperplane belongs to a timestep that is not on the path.
        BoundaryError: A hyperplane lies in another space than the source's features, or is of another size.
    """
    log_odds = torch.logit(torch.tensor(guidance.certainty)).item()
    others = preserved if guidance.preserve > 0 else ()
    num_dimensions = next(iter(source.seen.values())).shape[1]
    targets = targets_by_timestep(
        boundaries, others, source.timesteps, log_odds,
        space=source.features.space, num_dimensions=num_dimensions, like=source.x_0,
    )  # fmt: skip
    result = source.x_0[:, None].repeat(1, len(strengths), 1, 1, 1)
    active = directions.ne(0).any(1).nonzero().flatten().tolist()
    if not active:
        return result
    part, signs = source.take(active), directions[active].to(source.x_0)
    masks = None if mask is None else mask[active][:, None].to(source.x_0)
    moving = [column for column, strength in enumerate(strengths) if strength != 0]
    for start in range(0, len(moving), num_together):
        some = moving[start : start + num_together]
        rows = list(range(len(active))) * len(some)
        strength = torch.tensor([guidance.gain * strengths[column] for column in some]).to(signs)[:, None]
        strength = strength.repeat_interleave(len(active), 0)
        repeated = part if len(some) == 1 else part.take(rows)
        repeated_masks = None if masks is None else masks[rows]
        change = _change(model, repeated, targets, signs[rows], strength, guidance, repeated_masks)
        edited = (repeated.x_0 + change).unflatten(0, (len(some), len(active)))
        for column, images in zip(some, edited, strict=True):
            result[active, column] = images
    return result


@torch.inference_mode()
def _change(
    model: EpsModel,
    source: NoisedSource,
    targets: Mapping[int, TimestepTargets],
    directions: Tensor,
    strength: Tensor,
    guidance: Guidance,
    mask: Tensor | None,
) -> Tensor:
    """[B,C,H,W] difference between the edited and the unedited images, for strengths [B,1] and masks [B,1,H,W]."""
    change = torch.zeros_like(source.x_0)
    begun = False
    for iteration in range(guidance.num_iterations):
        draws = range(iteration * guidance.num_draws, (iteration + 1) * guidance.num_draws)
        for position in reversed(range(len(source.timesteps))):
            t, t_next = source.timesteps[position], source.timesteps[position - 1] if position else CLEAN
            begun = begun or t in targets
            if not begun:  # the image and its edit are still the same
                continue
            alpha_bar = model.schedule.alpha_bar(t)
            fall = noise_to_signal(alpha_bar) - noise_to_signal(model.schedule.alpha_bar(t_next))
            parts: list[Tensor] = []
            for draw in draws:
                x_t = noised(source.x_0 + change, source.noise[t, draw], alpha_bar)
                if t in targets:
                    eps, step = _guided_step(
                        model, x_t, t, source.features, source.seen[t, draw], targets[t], directions, strength,
                        guidance, mask,
                    )  # fmt: skip
                    step = _shortened(step / alpha_bar**0.5, guidance.max_step)
                    parts.append(step - fall * (eps - source.eps[t, draw]))
                else:
                    parts.append(-fall * (model.eps(x_t, t) - source.eps[t, draw]))
            change = change + torch.stack(parts).mean(0)
            if guidance.soft_threshold > 0:
                change = change * _soft_threshold(_smoothed(change, _THRESHOLD_WIDTH), guidance.soft_threshold)
            if mask is not None:
                change = change * mask
    if guidance.region > 0:
        size = _smoothed(change, _REGION_WIDTH)
        largest = size.flatten(1).quantile(0.98, dim=1).clamp(min=1e-6)[:, None, None, None]
        change = change * _soft_threshold(size, guidance.region * largest)
    return change


def _guided_step(
    model: EpsModel,
    x_t: Tensor,
    t: int,
    features: Features,
    unedited: Tensor,
    targets: TimestepTargets,
    directions: Tensor,
    strength: Tensor,
    guidance: Guidance,
    mask: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """The noise predicted at x_t, and the step to take there, where the unedited image has the features [B,D]."""
    missing, weight = torch.empty(0), torch.empty(0)
    penalties: tuple[float, ...] = ()

    def cotangents(edited: Tensor) -> Tensor:
        """[B,E+P,D] normals of the edited attributes, then the directions that restore what is to be preserved."""
        nonlocal missing, weight, penalties
        before = unedited.to(edited)
        moves, weight, penalties = targets.restoring(before, edited, guidance.preserve, guidance.preserve_residual)
        lengths = moves.norm(dim=2)
        missing = torch.cat([targets.missing(before, edited, directions, strength), lengths], 1)
        back = moves / lengths.clamp(min=1e-12)[..., None]
        return torch.cat([targets.edited.normals.expand(len(edited), -1, -1), back], 1)

    eps, gradients = model.pullback(x_t, t, features, cotangents)
    if mask is not None:
        gradients = gradients * mask[:, None]
    step = _smallest_step(gradients, missing, weight, penalties)
    if guidance.tweedie_projection:
        step = step - (1 - model.schedule.alpha_bar(t)) ** 0.5 * (model.eps(x_t + step, t) - eps)
    return eps, step


def _smallest_step(gradients: Tensor, missing: Tensor, weight: Tensor, penalties: Sequence[float]) -> Tensor:
    """The smallest step that meets every g_e step = missing_e, with a penalty on what is preserved.

    It minimises |step|^2 + sum_p p w (g_p step - missing_p)^2 / |g_p|^2. In dual form the system has one row per
    gradient: step = G^T (G G^T + R)^-1 missing, with R diagonal, 0 for edited attributes and |g_p|^2 / p for what is
    preserved, whose rows of G and of missing are scaled by sqrt(w).

    Args:
        gradients: [B,E+P,C,H,W] of the edited attributes, then of what is preserved.
        missing: [B,E+P] distances to their targets.
        weight: [B,P] w, from 0 to 1.
        penalties: P penalties p, above 0.
    """
    num_edited = gradients.shape[1] - len(penalties)
    flat, distances = gradients.flatten(2).double(), missing.double()
    preserved = flat[:, num_edited:].square().sum(2)
    scale = torch.cat([torch.ones_like(distances[:, :num_edited]), weight.double().sqrt()], 1)
    flat, distances = flat * scale[..., None], distances * scale
    products = flat @ flat.mT
    squares = products.diagonal(dim1=1, dim2=2)
    # nearly parallel gradients make the system singular: a small ridge
    slack = (1e-6 * squares[:, :num_edited].mean(1, keepdim=True) + 1e-30).repeat(1, missing.shape[1])
    for column, penalty in enumerate(penalties):  # no tensor of them: a copy to a GPU would wait for its work
        slack[:, num_edited + column] += preserved[:, column] / penalty
    # solve_ex: the check of `solve` would wait for a GPU; the ridge leaves no system singular
    shares, _info = torch.linalg.solve_ex(products + torch.diag_embed(slack), distances[..., None])
    return (flat * shares).sum(1).float().reshape(gradients[:, 0].shape)


def _shortened(step: Tensor, most: float) -> Tensor:
    """Steps [B,C,H,W] with a root mean square of at most `most` each; 0 is no limit."""
    if most == 0:
        return step
    size = step.flatten(1).square().mean(1).sqrt().clamp(min=1e-12)
    return step * (most / size).clamp(max=1)[:, None, None, None]


def _smoothed(change: Tensor, width: float) -> Tensor:
    """[B,1,H,W] absolute change, averaged over channels and blurred with sigma `width` in 64ths of the image width."""
    sigma = width * change.shape[-1] / 64
    size = change.abs().mean(1, keepdim=True)
    return gaussian_blur(size, min(round(3 * sigma), (size.shape[-1] - 1) // 2), max(sigma, 0.1))


def _soft_threshold(size: Tensor, full: float | Tensor) -> Tensor:
    """1 from `full` on, 0 up to half of it, linear in between."""
    return (2 * size / full - 1).clamp(0, 1)
