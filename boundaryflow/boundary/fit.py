"""Fit a linear SVM in a space of very many dimensions, through the Gram matrix of its few points.

Source: BoundaryDiffusion (Zhu et al. 2023), section 3.3, fits scikit-learn's linear SVC with C = 1 on
the latents themselves. A linear SVM sees its points only through their inner products, so one
[n,n] matrix serves all attributes, folds and bootstraps, and the normal is a combination of the
points: the same plane, at a cost that does not grow with the dimension.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from sklearn.svm import SVC
from torch import Tensor

from boundaryflow.boundary.hyperplane import Boundary, Calibration, Space
from boundaryflow.errors import BoundaryError


@dataclass(frozen=True)
class Gram:
    """Latents of one space with their inner products.

    Attributes:
        latents: [n,d] float32.
        products: [n,n] float64 inner products of the latents.
    """

    latents: Float[Tensor, "n d"]
    products: NDArray[np.float64]

    @classmethod
    def of(cls, latents: Float[Tensor, "n ..."]) -> Gram:
        """Flatten latents and multiply each with each."""
        flat = latents.flatten(1).float()
        return cls(flat, (flat @ flat.T).double().numpy())


@dataclass(frozen=True)
class FitReport:
    """How a boundary was fitted and how steady it is.

    Attributes:
        num_positive: Training images with the attribute.
        num_negative: Training images without.
        train_accuracy: Share of training images on their own side, in [0, 1].
        bootstrap_cosine: Mean cosine between normals fitted on independent bootstrap samples of
            the training images, in [-1, 1]; NaN with fewer than two bootstraps.
    """

    num_positive: int
    num_negative: int
    train_accuracy: float
    bootstrap_cosine: float


def fit_boundary(
    gram: Gram,
    has_attribute: NDArray[np.bool_],
    train: NDArray[np.int64],
    held_out: NDArray[np.int64],
    *,
    space: Space,
    t_mix: int,
    attribute: str,
    model_sha256: str,
    c: float = 1.0,
    num_bootstraps: int = 0,
    seed: int = 0,
) -> tuple[Boundary, FitReport]:
    """Fit one attribute's boundary in one space.

    Args:
        gram: All latents of the space.
        has_attribute: [n] the label of each latent; only those in `train` and `held_out` are read.
        train: Rows to fit on.
        held_out: Rows to calibrate on; none of them may be in `train`.
        space: Which latent space this is.
        t_mix: Timestep of the latents.
        attribute: Name, for messages and the file.
        model_sha256: Hash of the model.
        c: Penalty of the SVM; large is a hard margin.
        num_bootstraps: Bootstrap samples for the steadiness of the normal.
        seed: Seed of the bootstraps.

    Raises:
        BoundaryError: A class has fewer than two images to fit on or one to calibrate on.
    """
    _check_classes(has_attribute, train, held_out, attribute)
    alphas, offset = _solve(gram, has_attribute, train, c)
    direction = torch.from_numpy(alphas).float() @ gram.latents
    norm = float(direction.norm())
    normal, intercept = direction / norm, offset / norm
    distances = (gram.latents @ normal).double().numpy() + intercept
    boundary = Boundary(
        normal=normal,
        intercept=intercept,
        space=space,
        t_mix=t_mix,
        attribute=attribute,
        model_sha256=model_sha256,
        calibration=_calibrate(distances[held_out], has_attribute[held_out]),
    )
    report = FitReport(
        num_positive=int(has_attribute[train].sum()),
        num_negative=int((~has_attribute[train]).sum()),
        train_accuracy=float(((distances[train] > 0) == has_attribute[train]).mean()),
        bootstrap_cosine=_bootstrap_cosine(gram, has_attribute, train, c, num_bootstraps, seed),
    )
    return boundary, report


def _check_classes(
    has_attribute: NDArray[np.bool_], train: NDArray[np.int64], held_out: NDArray[np.int64], attribute: str
) -> None:
    for rows, least, purpose in ((train, 2, "to fit on"), (held_out, 1, "to calibrate on")):
        positive = int(has_attribute[rows].sum())
        negative = len(rows) - positive
        if min(positive, negative) < least:
            raise BoundaryError(
                f"boundary {attribute!r}: {positive} images with it and {negative} without {purpose}, must be at "
                f"least {least} each; add labelled images or leave the attribute out"
            )


def _solve(
    gram: Gram, has_attribute: NDArray[np.bool_], rows: NDArray[np.int64], c: float
) -> tuple[NDArray[np.float64], float]:
    """Weights of all latents in the normal, and the SVM's own intercept."""
    svm = SVC(kernel="precomputed", C=c)
    svm.fit(gram.products[np.ix_(rows, rows)], has_attribute[rows])
    alphas = np.zeros(len(gram.products))
    np.add.at(alphas, rows[svm.support_], svm.dual_coef_[0])
    return alphas, float(svm.intercept_[0])


def _calibrate(distances: NDArray[np.float64], has_attribute: NDArray[np.bool_]) -> Calibration:
    positive, negative = distances[has_attribute], distances[~has_attribute]
    within = np.concatenate([positive - positive.mean(), negative - negative.mean()])
    return Calibration(
        mean_positive=float(positive.mean()),
        mean_negative=float(negative.mean()),
        sd=float(np.sqrt((within**2).mean())),
        auc=float(roc_auc_score(has_attribute, distances)),
        num=len(distances),
    )


def _bootstrap_cosine(
    gram: Gram, has_attribute: NDArray[np.bool_], train: NDArray[np.int64], c: float, num: int, seed: int
) -> float:
    """Mean cosine between bootstrap normals, without ever forming them: w = X^T a, so w.v = a^T (X X^T) b."""
    if num < 2:
        return float("nan")
    rng = np.random.default_rng(seed)
    weights: list[NDArray[np.float64]] = []
    while len(weights) < num:
        rows = rng.choice(train, len(train))
        if 2 <= has_attribute[rows].sum() <= len(rows) - 2:
            weights.append(_solve(gram, has_attribute, rows, c)[0])
    stacked = np.stack(weights)
    products = stacked @ gram.products @ stacked.T
    norms = np.sqrt(np.diag(products))
    cosines = products / np.outer(norms, norms)
    return float(cosines[np.triu_indices(num, 1)].mean())
