"""The search for the mixing step: curves over all timesteps, and rules that read them.

Source: BoundaryDiffusion (Zhu et al. 2023), section 3.2, defines the mixing step as where the
trajectory's distribution has come close to its limit, and follows it by the radius of latents.
The release has no search, only a radius check at a fixed step; the rules here are this project's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from boundaryflow.boundary import Gram
from boundaryflow.diffusion import EpsModel, NoiseSchedule, Order, ddim_step, walk_up
from boundaryflow.errors import BoundaryError

Rule = Literal["radius", "separability", "fixed"]


@dataclass(frozen=True)
class Curves:
    """What is measured at every timestep of a path.

    Attributes:
        timesteps: Rising path of S timesteps.
        radius_inverted: [S] mean over images of |x_t| / sqrt(d) of inverted latents; a standard
            normal has 1.
        radius_inverted_sd: [S] standard deviation over images.
        radius_sampled: [S] the same for latents on the way down from noise.
        radius_sampled_sd: [S] standard deviation over samples.
        auc: `(space, attribute)` to [S] cross-validated AUC of a linear SVM.
    """

    timesteps: tuple[int, ...]
    radius_inverted: NDArray[np.float64]
    radius_inverted_sd: NDArray[np.float64]
    radius_sampled: NDArray[np.float64]
    radius_sampled_sd: NDArray[np.float64]
    auc: Mapping[tuple[str, str], NDArray[np.float64]]

    def mean_auc(self, space: str) -> NDArray[np.float64]:
        """[S] mean AUC in one space over the attributes that could be measured; NaN where none could."""
        curves = [curve for (s, _), curve in self.auc.items() if s == space and not np.isnan(curve).any()]
        return np.mean(curves, axis=0) if curves else np.full(len(self.timesteps), np.nan)


def measure_curves(
    model: EpsModel,
    x_0: Float[Tensor, "n c h w"],
    noise: Float[Tensor, "m c h w"],
    timesteps: Sequence[int],
    labels: Mapping[str, NDArray[np.float64]],
    *,
    start_noise: Float[Tensor, "n c h w"] | None = None,
    noise_until: int = 0,
    order: Order = 1,
    batch_size: int,
    seed: int,
    on_progress: Callable[[int], None] = lambda _: None,
) -> Curves:
    """Walk images up and noise down one path, and measure both at every timestep.

    Args:
        model: The frozen model.
        x_0: Images in model range.
        noise: Standard normal noise, taken as latents at timesteps[-1].
        timesteps: Rising path over the whole schedule.
        labels: Attribute to [n] probability that each image has it; NaN where unknown.
        start_noise: See `walk_up`.
        noise_until: See `walk_up`.
        order: See `walk_up`.
        batch_size: Images in one network call.
        seed: Seed of the folds.
        on_progress: Called after each network call with the number of images in it.
    """
    path = tuple(timesteps)
    x_chunks: list[list[Tensor]] = [[] for _ in path]
    h_chunks: list[list[Tensor]] = [[] for _ in path]
    starts = [None] * len(x_0) if start_noise is None else start_noise.split(batch_size)
    for chunk, start in zip(x_0.split(batch_size), starts, strict=False):
        walk = walk_up(model, chunk, path, start_noise=start, noise_until=noise_until, order=order)
        for position, (_t, x_t, _eps, h) in enumerate(walk):
            x_chunks[position].append(x_t)
            h_chunks[position].append(h)
            on_progress(len(chunk))
    inverted = [_radius(torch.cat(chunks)) for chunks in x_chunks]
    down = [_radii_down(model, chunk, path, on_progress) for chunk in noise.split(batch_size)]
    sampled = np.concatenate(down, axis=1)
    auc: dict[tuple[str, str], NDArray[np.float64]] = {}
    for space, stored in (("eps", x_chunks), ("h", h_chunks)):
        grams = [Gram.of(torch.cat(chunks)).products for chunks in stored]
        for attribute, probability in labels.items():
            known = np.flatnonzero(~np.isnan(probability))
            has_attribute = probability[known] > 0.5
            auc[space, attribute] = np.array(
                [separability(g[np.ix_(known, known)], has_attribute, seed=seed) for g in grams]
            )
    return Curves(
        path,
        np.array([r.mean() for r in inverted]),
        np.array([r.std() for r in inverted]),
        np.array([r.mean() for r in sampled]),
        np.array([r.std() for r in sampled]),
        auc,
    )


def _radius(latents: Tensor) -> NDArray[np.float64]:
    flat = latents.flatten(1).double()
    return (flat.norm(dim=1) / flat.shape[1] ** 0.5).numpy()


@torch.inference_mode()
def _radii_down(
    model: EpsModel, noise: Tensor, path: Sequence[int], on_progress: Callable[[int], None]
) -> NDArray[np.float64]:
    """[S,m] radius at each timestep of the path, on the deterministic way down from its end."""
    x_t, radii = noise.float(), [_radius(noise)]
    for t, t_next in zip(path[::-1], path[-2::-1], strict=False):
        x_t = ddim_step(x_t, model.eps(x_t, t), model.schedule.alpha_bar(t), model.schedule.alpha_bar(t_next))
        radii.append(_radius(x_t))
        on_progress(len(noise))
    return np.stack(radii[::-1])


def separability(
    products: NDArray[np.float64], has_attribute: NDArray[np.bool_], *, seed: int, num_folds: int = 4, c: float = 1.0
) -> float:
    """Cross-validated AUC of a linear SVM, from the inner products of the latents.

    Args:
        products: [n,n] Gram matrix.
        has_attribute: [n] labels.
        seed: Seed of the folds.
        num_folds: Folds, at least 2.
        c: Penalty of the SVM.

    Returns:
        AUC in [0, 1]; NaN where a class has fewer images than there are folds.
    """
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.svm import SVC

    if min(has_attribute.sum(), (~has_attribute).sum()) < num_folds:
        return float("nan")
    folds = StratifiedKFold(num_folds, shuffle=True, random_state=seed)
    svm = SVC(kernel="precomputed", C=c)
    scores = cross_val_predict(svm, products, has_attribute, cv=folds, method="decision_function")
    return float(roc_auc_score(has_attribute, scores))


def choose_mixing_step(
    curves: Curves,
    schedule: NoiseSchedule,
    rule: Rule,
    *,
    tolerance: float,
    min_t: int,
    max_t: int,
    fixed_t: int | None = None,
) -> int:
    """Read the mixing step off the curves.

    Rules:
        radius: The first timestep at which inverted and sampled latents have the same radius to
            within `tolerance` (relative): the trajectory has mixed, as far as the radius shows.
        separability: The last timestep at which attributes are still linearly separable nearly
            as well as anywhere: mean AUC over attributes and both spaces at least
            (1 - tolerance) of its largest value.
        fixed: `fixed_t`.

    Args:
        curves: Of `measure_curves`.
        schedule: The model's noise schedule.
        rule: Which rule.
        tolerance: See the rule; in [0, 1].
        min_t: Smallest timestep allowed.
        max_t: Largest timestep allowed.
        fixed_t: The timestep of rule `fixed`.

    Raises:
        BoundaryError: No timestep between min_t and max_t satisfies the rule, or nothing can be measured.
    """
    if rule == "fixed":
        if fixed_t is None or not 1 <= fixed_t < schedule.num_train_timesteps:
            raise BoundaryError(
                f"mixing: rule 'fixed' needs fixed_t in [1, {schedule.num_train_timesteps - 1}], got {fixed_t}"
            )
        return fixed_t
    t = np.array(curves.timesteps)
    allowed = (t >= min_t) & (t <= max_t)
    if rule == "radius":
        gap = np.abs(curves.radius_inverted / curves.radius_sampled - 1)
        good, pick = allowed & (gap <= tolerance), 0
        best = f"the smallest gap there is {gap[allowed].min() if allowed.any() else float('nan'):.4f}"
    else:
        spaces = [curve for curve in map(curves.mean_auc, ("eps", "h")) if not np.isnan(curve).any()]
        if not spaces:
            raise BoundaryError(
                "mixing: rule 'separability' needs an attribute with at least 4 labelled images of each class among "
                "those measured, there is none; measure more images, label more, or set rule: radius or fixed"
            )
        mean = np.mean(spaces, axis=0)
        good, pick = allowed & (mean >= (1 - tolerance) * np.nanmax(mean)), -1
        best = f"the largest mean AUC there is {mean[allowed].max() if allowed.any() else float('nan'):.3f}"
    if not good.any():
        raise BoundaryError(
            f"mixing: rule {rule!r} with tolerance {tolerance} holds at no timestep in [{min_t}, {max_t}] ({best}); "
            "raise the tolerance, widen min_t and max_t, or set rule: fixed"
        )
    return int(t[good][pick])
