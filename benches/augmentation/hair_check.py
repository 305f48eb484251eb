"""Which edits show what they are to show, by a judge that knows no label but those of the training set."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benches.augmentation.classifier import balancing, logits, trained
from benches.augmentation.hair import LABEL, OTHER
from benches.augmentation.hair_arms import NUM_STEPS
from benches.augmentation.hair_edits import Edits, Route
from benches.augmentation.sets import Pictures
from benches.checkout import ROOT
from boundaryflow.evaluation.panel import load_judges
from boundaryflow.jobs.batch import weakest

NUM_FOLDS = 5
Judge = Callable[[NDArray[np.int64], Tensor], NDArray[np.float64]]
"""(rows of the edited pictures [N], pictures [N,3,64,64]) to probabilities [N,2] of LABEL and OTHER."""


def cross_fitted(real: Pictures, rows: NDArray[np.int64]) -> Judge:
    """Classifiers of both attributes, none of which has learned from the picture whose edit it judges.

    They learn as the arm with re-weighting does.

    Args:
        real: The training set.
        rows: [N] what its pictures are called.
    """
    fold = np.empty(len(rows), np.int64)
    for group in range(4):  # as many of each group in every fold
        of_group = np.flatnonzero(real.group == group)
        fold[of_group] = np.arange(len(of_group)) % NUM_FOLDS
    truth = np.stack([real.label, real.other], 1)
    nets = [
        trained(
            real.take(fold != k).images_u8, truth[fold != k], k, classic=True,
            weights=balancing(real.group[fold != k]), num_steps=NUM_STEPS,
        )
        for k in range(NUM_FOLDS)
    ]  # fmt: skip
    fold_of = dict(zip(rows.tolist(), fold.tolist(), strict=True))

    def judge(edited: NDArray[np.int64], images_u8: Tensor) -> NDArray[np.float64]:
        says = np.stack([logits(net, images_u8) for net in nets])
        own = np.array([fold_of[row] for row in edited.tolist()])
        return 1 / (1 + np.exp(-says[own, np.arange(len(own))].astype(np.float64)))

    return judge


def built_in() -> Judge:
    """The judges of faces, which learned from thousands of labels; a row apart."""
    judges = load_judges(ROOT / "data/pretrained/faces64_judges")
    columns = [judges.attributes.index(name) for name in (LABEL, OTHER)]
    return lambda _rows, images_u8: judges.probabilities(images_u8.float() / 255)[:, columns].double().numpy()


def seen_by(judge: Judge, edits: Edits) -> NDArray[np.float64]:
    """[N,K,2] probabilities of LABEL and OTHER in the edits."""
    return np.stack([judge(edits.rows, pictures) for pictures in edits.edited.unbind(1)], 1)


def accepted(
    edits: Edits, route: Route, seen: NDArray[np.float64], strengths: Sequence[float], min_probability: float
) -> Pictures:
    """The weakest edit of each picture that shows the change and keeps the other attribute, by the rule of `augment`.

    Args:
        edits: All edits of a route.
        route: What was changed.
        seen: [N,K,2] probabilities of LABEL and OTHER in them.
        strengths: [K].
        min_probability: Least probability of the change.
    """
    goal = np.array([route.group >= 2, route.group % 2 == 1])
    column = (LABEL, OTHER).index(route.attribute)
    agrees = np.where(goal, seen, 1 - seen)
    good = (agrees[..., column] >= min_probability) & (agrees[..., 1 - column] > 0.5)
    chosen = [(n, k) for n, k in enumerate(weakest(strengths, row) for row in good.tolist()) if k is not None]
    num = len(chosen)
    pictures = [edits.edited[n, k] for n, k in chosen]
    images = torch.stack(pictures) if pictures else edits.edited[:0, 0]
    return Pictures(images, np.full(num, goal[0]), np.full(num, goal[1]), np.ones(num, bool))
