"""The guided edit: follow the hyperplanes of many noise levels, and change only the difference.

There is no inversion. At every timestep, from the noisiest to the cleanest, the same noise is added
to the image and to its edited version, and the network predicts the noise in both. The difference
between the two predictions is carried to the next timestep (Kulikov et al. 2025, "FlowEdit", for
text-conditional flows). The edit itself comes from the boundaries: at each timestep, the smallest
change of the noisy image that brings its bottleneck to the wanted distance from the hyperplanes. It
is found by pulling the normals back through the network (Park et al. 2023, section 3). Attributes
that are not edited are kept on their side by a penalty. Each noise level sees another part of the
image, so one pass over the timesteps may leave an edit half done; a further pass, with other noise,
starts from the result of the one before. Where nothing is asked for, the change stays zero, and the
image returns bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from boundaryflow.boundary import Boundary
from boundaryflow.diffusion import EpsModel, noise_to_signal, noised
from boundaryflow.diffusion.schedule import CLEAN

_THRESHOLD_WIDTH = 1.0  # how far a change is smoothed before it is judged too small, in 64ths of the image
_REGION_WIDTH = 1.5  # the same for `region`
_NEGLIGIBLE = (
    0.01  # of a preserved attribute's reach: a loss of this size counts half, a smaller one is mostly rounding
)


@dataclass(frozen=True)
class Guidance:
    """How an image is led across boundaries.

    Attributes:
        certainty: A strength of 1 leads to where an image is typical of its new class, and of it
            with at least this probability; in [0.5, 1). See `Calibration.reach`.
        tweedie_projection: Ask the network what it makes of each step before it is taken, and leave out
            what it would denoise away: one more network call a timestep. By Tweedie's formula
            this multiplies the step by the covariance of the images that fit the noisy sample.
        preserve: How strictly the attributes that nothing is asked of are kept from going towards
            their other side; 0 is not at all. What they have lost together is one direction in
            h-space, g_h its pullback: a step minimises
            |step|^2 + preserve w (g_h step - loss)^2 / |g_h|^2. Where next to nothing is lost, that
            direction is rounding noise, so w = loss^2 / (loss^2 + tau^2) lets go of it; tau is
            1 % of the preserved attributes' mean reach.
        soft_threshold: Changes smaller than this fade out at every timestep, in model range; 0 keeps all.
        region: The edit is kept where the smoothed change is above this share of its largest
            value, fading to nothing at half of that; 0 keeps it everywhere.
        num_draws: Noises at each timestep, whose edits are averaged; at least 1.
        num_iterations: How often the path is walked down; at least 1.
    """

    certainty: float
    tweedie_projection: bool
    preserve: float
    soft_threshold: float
    region: float
    num_draws: int
    num_iterations: int

    @property
    def num_noises(self) -> int:
        """How many noises an edit needs at each timestep."""
        return self.num_draws * self.num_iterations


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
    preserved: Sequence[Sequence[Boundary]] = (),
    mask: Float[Tensor, "b h w"] | None = None,
    num_together: int = 1,
) -> Float[Tensor, "b k c h w"]:
    """Edit images at several strengths.

    Every strength of an image shares its noise. A strength s asks, at each timestep, for the place
    that lies s times as far as from where the unedited image is, on that noise, to where strength 1
    leads. So 0 is this very image, 1 a typical and certain member of the other class, in between is
    in between, and a negative strength goes the other way. An image that lies there already stays.

    Args:
        model: The frozen model.
        source: Of `observe_noised`.
        boundaries: For each of A attributes its hyperplanes in h-space, by timestep, each of them on the
            source's path; an attribute need not have one at every timestep.
        directions: [B,A] +1 towards the attribute, -1 away from it, 0 to leave it alone.
        strengths: K strengths.
        guidance: See `Guidance`.
        preserved: The same for attributes that are to stay as they are, whatever goes with what.
        mask: [B,H,W] in [0, 1]: where the image may change; None is everywhere.
        num_together: How many strengths go through the network in one call, side by side.

    Returns:
        [B,K,C,H,W] images in model range, not clipped.

    Raises:
        ValueError: A hyperplane holds at a timestep that is not on the path.
        BoundaryError: A hyperplane is of another size than the bottleneck of the model.
    """
    log_odds = torch.logit(torch.tensor(guidance.certainty)).item()
    steps = _by_timestep(boundaries, preserved if guidance.preserve > 0 else (), source, log_odds)
    result = source.x_0[:, None].repeat(1, len(strengths), 1, 1, 1)
    active = directions.ne(0).any(1).nonzero().flatten().tolist()
    if not active:
        return result
    part, asked = source.take(active), directions[active].to(source.x_0)
    where = None if mask is None else mask[active][:, None].to(source.x_0)
    moving = [column for column, strength in enumerate(strengths) if strength != 0]
    for start in range(0, len(moving), num_together):
        some = moving[start : start + num_together]
        rows = list(range(len(active))) * len(some)
        strength = torch.tensor([strengths[column] for column in some]).to(asked)[:, None]
        strength = strength.repeat_interleave(len(active), 0)
        repeated = part if len(some) == 1 else part.take(rows)
        masked = None if where is None else where[rows]
        change = _change(model, repeated, steps, asked[rows], strength, guidance, masked)
        edited = (repeated.x_0 + change).unflatten(0, (len(some), len(active)))
        for column, images in zip(some, edited, strict=True):
            result[active, column] = images
    return result


@dataclass(frozen=True)
class _Hyperplanes:
    """Hyperplanes of one timestep.

    Attributes:
        normals: [P,D].
        intercepts: [P].
        middles: [P] half-way between the classes.
        reaches: [P] how far from there an image is typical and certain of its class.
    """

    normals: Tensor
    intercepts: Tensor
    middles: Tensor
    reaches: Tensor

    @classmethod
    def of(cls, boundaries: Sequence[Boundary], log_odds: float, like: Tensor) -> _Hyperplanes:
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
        """[B,P] signed distances from half-way between the classes."""
        return h @ self.normals.T + self.intercepts - self.middles

    def lost(self, unedited: Tensor, now: Tensor) -> Tensor:
        """[B,P] how much farther on its side the unedited image lies; deeper into its own side is no loss."""
        side = torch.sign(unedited)
        return ((unedited - now) * side).clamp(min=0) * side


@dataclass(frozen=True)
class _Step:
    """What is asked for at one timestep.

    Attributes:
        columns: Which of the attributes asked for have a hyperplane here.
        edited: Their hyperplanes.
        preserved: Hyperplanes of the attributes to be kept.
    """

    columns: list[int]
    edited: _Hyperplanes
    preserved: _Hyperplanes

    def missing(self, unedited: Tensor, now: Tensor, asked: Tensor, strength: Tensor) -> Tensor:
        """[B,E] how far the edited attributes are from where they shall be.

        Args:
            unedited: [B,D] bottleneck of the unedited image.
            now: [B,D] bottleneck of the edited image.
            asked: [B,A] directions.
            strength: [B,1], not 0.
        """
        before, after = self.edited.from_middle(unedited), self.edited.from_middle(now)
        sign = asked[:, self.columns] * strength.sign()
        way = ((sign * self.edited.reaches - before) * sign).clamp(min=0) * strength.abs()
        ahead = ((before - after) * sign + way).clamp(min=0) * sign  # never back: it may have gone too far by itself
        return torch.where(sign == 0, self.edited.lost(before, after), ahead)

    def lost(self, unedited: Tensor, now: Tensor) -> Tensor:
        """[B,D] where in h-space the preserved attributes are to be led back, all in one."""
        if not len(self.preserved.normals):
            return torch.zeros_like(now)
        lost = self.preserved.lost(self.preserved.from_middle(unedited), self.preserved.from_middle(now))
        return lost @ self.preserved.normals

    def weight(self, length: Tensor) -> Tensor:
        """[B,1] how much a loss of this length counts, from 0 to 1; see `Guidance.preserve`."""
        if not len(self.preserved.normals):
            return torch.zeros_like(length)
        negligible = _NEGLIGIBLE * self.preserved.reaches.mean().clamp(min=1e-12)
        return length**2 / (length**2 + negligible**2)


def _by_timestep(
    boundaries: Sequence[Sequence[Boundary]],
    preserved: Sequence[Sequence[Boundary]],
    source: NoisedSource,
    log_odds: float,
) -> dict[int, _Step]:
    at = {boundary.t for of_attribute in boundaries for boundary in of_attribute}
    path = source.timesteps
    if not at <= set(path):
        raise ValueError(f"hyperplanes at timesteps {sorted(at - set(path))}, which are not on the path {list(path)}")
    steps: dict[int, _Step] = {}
    for t in at:
        edited = [(c, b) for c, of_attribute in enumerate(boundaries) for b in of_attribute if b.t == t]
        kept = [b for of_attribute in preserved for b in of_attribute if b.t == t]
        for boundary in (*(b for _, b in edited), *kept):
            boundary.check_dimensions(source.h[t, 0][0].numel())
        steps[t] = _Step(
            [column for column, _ in edited],
            _Hyperplanes.of([boundary for _, boundary in edited], log_odds, source.x_0),
            _Hyperplanes.of(kept, log_odds, source.x_0),
        )
    return steps


@torch.inference_mode()
def _change(
    model: EpsModel,
    source: NoisedSource,
    steps: Mapping[int, _Step],
    asked: Tensor,
    strength: Tensor,
    guidance: Guidance,
    where: Tensor | None,
) -> Tensor:
    """[B,C,H,W] what its strength [B,1] adds to each image."""
    change = torch.zeros_like(source.x_0)
    begun = False
    for turn in range(guidance.num_iterations):
        draws = range(turn * guidance.num_draws, (turn + 1) * guidance.num_draws)
        for position in reversed(range(len(source.timesteps))):
            t, t_next = source.timesteps[position], source.timesteps[position - 1] if position else CLEAN
            begun = begun or t in steps
            if not begun:  # the image and its edit are still the same
                continue
            alpha_bar = model.schedule.alpha_bar(t)
            fall = noise_to_signal(alpha_bar) - noise_to_signal(model.schedule.alpha_bar(t_next))
            parts: list[Tensor] = []
            for draw in draws:
                x_t = noised(source.x_0 + change, source.noise(t, draw), alpha_bar)
                if t in steps:
                    eps, step = _guided_step(
                        model, x_t, t, source.h[t, draw], steps[t], asked, strength, guidance, where
                    )
                    parts.append(step / alpha_bar**0.5 - fall * (eps - source.eps[t, draw]))
                else:
                    parts.append(-fall * (model.eps(x_t, t) - source.eps[t, draw]))
            change = change + torch.stack(parts).mean(0)
            if guidance.soft_threshold > 0:
                change = change * _soft_threshold(_smoothed(change, _THRESHOLD_WIDTH), guidance.soft_threshold)
            if where is not None:
                change = change * where
    if guidance.region > 0:
        size = _smoothed(change, _REGION_WIDTH)
        largest = size.flatten(1).quantile(0.98, dim=1).clamp(min=1e-6)[:, None, None, None]
        change = change * _soft_threshold(size, guidance.region * largest)
    return change


def _guided_step(
    model: EpsModel,
    x_t: Tensor,
    t: int,
    h_unedited: Tensor,
    wanted: _Step,
    asked: Tensor,
    strength: Tensor,
    guidance: Guidance,
    where: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """The noise predicted at x_t, and the step to take there."""
    missing, weight = torch.empty(0), torch.empty(0)

    def directions(h: Tensor) -> Tensor:
        """[B,E+1,D] the edited attributes' normals, and where the preserved ones are to be led back."""
        nonlocal missing, weight
        unedited = h_unedited.to(h).flatten(1)
        lost = wanted.lost(unedited, h)
        length = lost.norm(dim=1, keepdim=True)
        missing = torch.cat([wanted.missing(unedited, h, asked, strength), length], 1)
        weight = wanted.weight(length)
        back = lost / length.clamp(min=1e-12)
        return torch.cat([wanted.edited.normals.expand(len(h), -1, -1), back[:, None]], 1)

    eps, gradients = model.pullback(x_t, t, directions)
    if where is not None:
        gradients = gradients * where[:, None]
    step = _smallest_step(gradients, missing, len(wanted.columns), guidance.preserve, weight)
    if guidance.tweedie_projection:
        step = step - (1 - model.schedule.alpha_bar(t)) ** 0.5 * (model.eps(x_t + step, t) - eps)
    return eps, step


def _smallest_step(gradients: Tensor, missing: Tensor, num_edited: int, preserve: float, weight: Tensor) -> Tensor:
    """The step with G_e step = missing_e that minimises |step|^2 + preserve w (g_h step - missing_h)^2 / |g_h|^2.

    In its dual form the system is as small as there are attributes: step = G^T (G G^T + R)^-1 missing,
    R diagonal, 0 for edited attributes and |g_h|^2 / preserve for what is preserved, whose row of G and of
    missing is scaled by sqrt(w).

    Args:
        gradients: [B,E+1,C,H,W] of the edited attributes, then of what is preserved.
        missing: [B,E+1] what they lack.
        num_edited: E.
        preserve: See `Guidance`; 0 leaves the last one out.
        weight: [B,1] w, from 0 to 1.
    """
    num = num_edited + (1 if preserve > 0 else 0)
    flat, lacking = gradients[:, :num].flatten(2).double(), missing[:, :num].double()
    preserved = flat[:, num_edited:].square().sum(2)  # [B,1], or [B,0] where nothing is preserved
    scale = torch.cat([torch.ones_like(lacking[:, :num_edited]), weight.double().sqrt()[:, : num - num_edited]], 1)
    flat, lacking = flat * scale[..., None], lacking * scale
    products = flat @ flat.mT
    squares = products.diagonal(dim1=1, dim2=2)
    # nearly parallel gradients make the system singular: a small ridge
    slack = (1e-6 * squares[:, :num_edited].mean(1, keepdim=True) + 1e-30).expand(-1, num).clone()
    if preserve > 0:
        slack[:, num_edited:] += preserved / preserve
    shares = torch.linalg.solve(products + torch.diag_embed(slack), lacking[..., None])
    return (flat * shares).sum(1).float().reshape(gradients[:, 0].shape)


def _smoothed(change: Tensor, width: float) -> Tensor:
    """[B,1,H,W] mean size of the change over channels, smoothed over `width` sixty-fourths of the image."""
    from torchvision.transforms.functional import gaussian_blur

    sigma = width * change.shape[-1] / 64
    size = change.abs().mean(1, keepdim=True)
    return gaussian_blur(size, [2 * min(round(3 * sigma), (size.shape[-1] - 1) // 2) + 1] * 2, [max(sigma, 0.1)] * 2)


def _soft_threshold(size: Tensor, full: float | Tensor) -> Tensor:
    """1 from `full` on, 0 up to half of it, linear between."""
    return (2 * size / full - 1).clamp(0, 1)
