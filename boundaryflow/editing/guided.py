"""The guided edit: follow the hyperplanes of many noise levels, and change only the difference.

Nothing is inverted. At every timestep of a path from the mixing step to the image, the image and
its edited self get the same fresh noise; the network denoises both; what differs between the two
predictions is how the edit has to go on (Kulikov et al. 2025, "FlowEdit", for text-conditional
flows). The edit itself comes from the boundaries: at each timestep the smallest change of this very
image that brings its bottleneck to the place asked for, found by pulling the normals back through
the network (Park et al. 2023, section 3), while the attributes that nothing is asked of are led
back to their side. One pass down the path leaves an edit half done where each noise level sees
another part of it; further passes, with other noise, start from what the last one left. With
nothing asked for, nothing differs, and the image returns bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur

from boundaryflow.boundary import Boundary
from boundaryflow.diffusion import EpsModel, noised
from boundaryflow.diffusion.schedule import CLEAN

_FADE_WIDTH = 1.0  # how far a change is smoothed before it is judged too small, in 64ths of the image
_REGION_WIDTH = 1.5  # the same for `region`


@dataclass(frozen=True)
class Guidance:
    """How an image is led across boundaries.

    Attributes:
        certainty: A strength of 1 leads to where an image is typical of its new class, and of it
            with at least this probability; in [0.5, 1). See `Calibration.reach`.
        look_ahead: Ask the network what it makes of each step before it is taken, and leave out
            what it would denoise away: one more network call a timestep. By Tweedie's formula
            this multiplies the step by the covariance of the images that fit the noisy sample.
        hold: How strictly the attributes that nothing is asked of are kept from going towards
            their other side; 0 is not at all. A step minimises |step|^2 + hold * sum over them of
            (what they lack - their part of the step)^2, in units of their normals' mean
            pulled-back length.
        sparsity: Changes smaller than this fade out at every timestep, in model range; 0 keeps all.
        region: The edit is kept where the smoothed change is above this share of its largest
            value, fading to nothing at half of that; 0 keeps it everywhere.
        num_draws: Noises at each timestep, whose edits are averaged; at least 1.
        num_passes: How often the path is walked down; at least 1.
    """

    certainty: float
    look_ahead: bool
    hold: float
    sparsity: float
    region: float
    num_draws: int
    num_passes: int

    @property
    def num_noises(self) -> int:
        """How many noises an edit needs at each timestep."""
        return self.num_draws * self.num_passes


@dataclass(frozen=True)
class NoisedSource:
    """Images as the network sees them along a path.

    Attributes:
        x_0: [B,C,H,W] images in model range.
        timesteps: The path, rising.
        noise: Gives the standard normal noise [B,C,H,W] of a timestep and a draw.
        eps: `(timestep, draw)` to the predicted noise [B,C,H,W].
        h: `(timestep, draw)` to the bottleneck [B,Ch,Hh,Wh].
    """

    x_0: Float[Tensor, "b c h w"]
    timesteps: tuple[int, ...]
    noise: Callable[[int, int], Tensor]
    eps: Mapping[tuple[int, int], Tensor]
    h: Mapping[tuple[int, int], Tensor]

    def take(self, rows: Sequence[int]) -> NoisedSource:
        """Some of the images."""
        index = list(rows)
        return NoisedSource(
            self.x_0[index],
            self.timesteps,
            lambda t, draw: self.noise(t, draw)[index],
            {key: eps[index] for key, eps in self.eps.items()},
            {key: h[index] for key, h in self.h.items()},
        )


def observe_noised(
    model: EpsModel,
    x_0: Float[Tensor, "b c h w"],
    timesteps: Sequence[int],
    noise: Callable[[int, int], Tensor],
    *,
    num_noises: int = 1,
) -> NoisedSource:
    """Look at images at every timestep of a path, noise added: one network call each, for all edits.

    Args:
        model: The frozen model.
        x_0: Images in model range.
        timesteps: Rising path.
        noise: Gives the noise of a timestep and a draw; the same whenever it is asked.
        num_noises: Noises at each timestep, see `Guidance.num_noises`.
    """
    x_0 = x_0.float()
    eps: dict[tuple[int, int], Tensor] = {}
    h: dict[tuple[int, int], Tensor] = {}
    for t in timesteps:
        for draw in range(num_noises):
            sample = noised(x_0, noise(t, draw), model.schedule.alpha_bar(t))
            eps[t, draw], h[t, draw] = model.eps_and_h(sample, t)
    return NoisedSource(x_0, tuple(timesteps), noise, eps, h)


def guided_edit(
    model: EpsModel,
    source: NoisedSource,
    boundaries: Sequence[Sequence[Boundary]],
    directions: Float[Tensor, "b a"],
    strengths: Sequence[float],
    guidance: Guidance,
    *,
    held: Sequence[Sequence[Boundary]] = (),
    mask: Float[Tensor, "b h w"] | None = None,
) -> Float[Tensor, "b k c h w"]:
    """Edit images at several strengths.

    Every strength of an image shares its noise. A strength s asks, at each timestep, for the place
    that lies s times as far as from where the unedited image is, on that noise, to where strength 1
    leads. So 0 is this very image, 1 a typical and certain member of the other class, in between is
    in between, and a negative strength goes the other way. An image that lies there already stays.

    Args:
        model: The frozen model.
        source: Of `observe_noised`.
        boundaries: For each of A attributes its planes in h-space, by timestep, each of them on the
            source's path; an attribute need not have one at every timestep.
        directions: [B,A] +1 towards the attribute, -1 away from it, 0 to leave it alone.
        strengths: K strengths.
        guidance: See `Guidance`.
        held: The same for attributes that are to stay as they are, whatever goes with what.
        mask: [B,H,W] in [0, 1]: where the image may change; None is everywhere.

    Returns:
        [B,K,C,H,W] images in model range, not clipped.

    Raises:
        ValueError: A plane holds at a timestep that is not on the path.
    """
    planes = _by_timestep(boundaries, held, source.timesteps)
    result = source.x_0[:, None].repeat(1, len(strengths), 1, 1, 1)
    active = directions.ne(0).any(1).nonzero().flatten().tolist()
    if not active:
        return result
    part, asked = source.take(active), directions[active].to(source.x_0)
    where = None if mask is None else mask[active][:, None].to(source.x_0)
    for column, strength in enumerate(strengths):
        if strength != 0:
            change = _change(model, part, planes, asked, strength, guidance, where)
            result[active, column] = part.x_0 + change
    return result


@dataclass(frozen=True)
class _Planes:
    """The planes of one timestep: those of the edited attributes first, then the held ones.

    Attributes:
        columns: Which of the attributes asked for have one here.
        edited: Their planes.
        every: The E planes of the edited attributes and the H of held ones.
        normals: [E+H,D] of all.
        intercepts: [E+H] of all.
    """

    columns: list[int]
    edited: list[Boundary]
    every: list[Boundary]
    normals: Tensor
    intercepts: Tensor

    def distances(self, h: Tensor) -> Tensor:
        """[B,E+H] signed distances."""
        return h.flatten(1) @ self.normals.to(h).T + self.intercepts.to(h)

    def missing(self, unedited: Tensor, now: Tensor, asked: Tensor, strength: float, log_odds: float) -> Tensor:
        """[B,E+H] how far each distance is from where it shall be.

        Args:
            unedited: [B,E+H] distances of the unedited image.
            now: [B,E+H] distances of the edited image.
            asked: [B,A] directions.
            strength: Not 0.
            log_odds: See `Calibration.reach`.
        """
        lack = unedited - now
        num = len(self.edited)
        side = torch.sign(unedited - torch.tensor([b.calibration.middle for b in self.every]).to(now))
        lack = (lack * side).clamp(min=0) * side  # deeper into its own side is no loss
        sign = asked[:, self.columns] * (1.0 if strength > 0 else -1.0)
        middle = torch.tensor([b.calibration.middle for b in self.edited]).to(now)
        reach = torch.tensor([b.calibration.reach(log_odds) for b in self.edited]).to(now)
        way = ((middle + sign * reach - unedited[:, :num]) * sign).clamp(min=0) * abs(strength)
        ahead = ((unedited - now)[:, :num] * sign + way).clamp(
            min=0
        ) * sign  # never back: it may have gone too far by itself
        return torch.cat([torch.where(sign == 0, lack[:, :num], ahead), lack[:, num:]], 1)


def _by_timestep(
    boundaries: Sequence[Sequence[Boundary]], held: Sequence[Sequence[Boundary]], path: Sequence[int]
) -> dict[int, _Planes]:
    at = {boundary.t for of_attribute in boundaries for boundary in of_attribute}
    if not at <= set(path):
        raise ValueError(f"planes at timesteps {sorted(at - set(path))}, which are not on the path {list(path)}")
    planes: dict[int, _Planes] = {}
    for t in at:
        edited = [(c, b) for c, of_attribute in enumerate(boundaries) for b in of_attribute if b.t == t]
        every = [b for _, b in edited] + [b for of_attribute in held for b in of_attribute if b.t == t]
        planes[t] = _Planes(
            [column for column, _ in edited],
            [boundary for _, boundary in edited],
            every,
            torch.stack([b.normal for b in every]),
            torch.tensor([b.intercept for b in every]),
        )
    return planes


@torch.inference_mode()
def _change(
    model: EpsModel,
    source: NoisedSource,
    planes: Mapping[int, _Planes],
    asked: Tensor,
    strength: float,
    guidance: Guidance,
    where: Tensor | None,
) -> Tensor:
    """[B,C,H,W] what one strength adds to each image."""
    log_odds = torch.logit(torch.tensor(guidance.certainty)).item()
    change = torch.zeros_like(source.x_0)
    begun = False
    for turn in range(guidance.num_passes):
        draws = range(turn * guidance.num_draws, (turn + 1) * guidance.num_draws)
        for position in reversed(range(len(source.timesteps))):
            t, t_next = source.timesteps[position], source.timesteps[position - 1] if position else CLEAN
            begun = begun or t in planes
            if not begun:  # the two are one as yet
                continue
            alpha_bar = model.schedule.alpha_bar(t)
            fall = _sigma(alpha_bar) - _sigma(model.schedule.alpha_bar(t_next))
            parts: list[Tensor] = []
            for draw in draws:
                x_t = noised(source.x_0 + change, source.noise(t, draw), alpha_bar)
                if t in planes:
                    eps, step = _guided_step(
                        model, x_t, t, source.h[t, draw], planes[t], asked, strength, log_odds, guidance, where
                    )
                    parts.append(step / alpha_bar**0.5 - fall * (eps - source.eps[t, draw]))
                else:
                    parts.append(-fall * (model.eps(x_t, t) - source.eps[t, draw]))
            change = change + torch.stack(parts).mean(0)
            if guidance.sparsity > 0:
                change = change * _fading(_smoothed(change, _FADE_WIDTH), guidance.sparsity)
            if where is not None:
                change = change * where
    if guidance.region > 0:
        size = _smoothed(change, _REGION_WIDTH)
        largest = size.flatten(1).quantile(0.98, dim=1).clamp(min=1e-6)[:, None, None, None]
        change = change * _fading(size, guidance.region * largest)
    return change


def _guided_step(
    model: EpsModel,
    x_t: Tensor,
    t: int,
    h_unedited: Tensor,
    planes: _Planes,
    asked: Tensor,
    strength: float,
    log_odds: float,
    guidance: Guidance,
    where: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """The noise predicted at x_t, and the step to take there."""
    num = len(planes.edited)
    normals = planes.normals if guidance.hold > 0 else planes.normals[:num]
    eps, h, gradients = model.pullback(x_t, t, normals)
    missing = planes.missing(planes.distances(h_unedited.to(h)), planes.distances(h), asked, strength, log_odds)
    if where is not None:
        gradients = gradients * where[:, None]
    step = _smallest_step(gradients, missing[:, : len(normals)], num, guidance.hold)
    if guidance.look_ahead:
        step = step - (1 - model.schedule.alpha_bar(t)) ** 0.5 * (model.eps(x_t + step, t) - eps)
    return eps, step


def _sigma(alpha_bar: float) -> float:
    """Noise beside a signal of unit size: x_t / sqrt(alpha_bar) = x_0 + sigma noise."""
    return ((1 - alpha_bar) / alpha_bar) ** 0.5


def _smallest_step(gradients: Tensor, missing: Tensor, num_edited: int, hold: float) -> Tensor:
    """The step with G_e step = missing_e that minimises |step|^2 + hold |G_h step - missing_h|^2 / mean |g_h|^2.

    In its dual form the system is as small as there are attributes: step = G^T (G G^T + R)^-1 missing,
    R diagonal, 0 for edited attributes and mean |g_h|^2 / hold for held ones.

    Args:
        gradients: [B,E+H,C,H,W] of the edited attributes, then of the held ones.
        missing: [B,E+H] what they lack.
        num_edited: E.
        hold: See `Guidance`.
    """
    flat = gradients.flatten(2).double()
    products = flat @ flat.mT
    squares = products.diagonal(dim1=1, dim2=2)
    slack = torch.empty_like(squares)
    # two attributes that are all but one have no step of their own: a little slack
    slack[:, :num_edited] = 1e-6 * squares[:, :num_edited].mean(1, keepdim=True) + 1e-30
    if squares.shape[1] > num_edited:
        slack[:, num_edited:] = squares[:, num_edited:].mean(1, keepdim=True) / hold + 1e-30
    shares = torch.linalg.solve(products + torch.diag_embed(slack), missing.double()[..., None])
    return (flat * shares).sum(1).float().reshape(gradients[:, 0].shape)


def _smoothed(change: Tensor, width: float) -> Tensor:
    """[B,1,H,W] mean size of the change over channels, smoothed over `width` sixty-fourths of the image."""
    sigma = width * change.shape[-1] / 64
    size = change.abs().mean(1, keepdim=True)
    return gaussian_blur(size, [2 * min(round(3 * sigma), (size.shape[-1] - 1) // 2) + 1] * 2, [max(sigma, 0.1)] * 2)


def _fading(size: Tensor, full: float | Tensor) -> Tensor:
    """1 from `full` on, 0 up to half of it, linear between."""
    return (2 * size / full - 1).clamp(0, 1)
