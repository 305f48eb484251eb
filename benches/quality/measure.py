"""From edited pictures to numbers, and from numbers to what holds at one target success."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr
from torch import Tensor

from benches.quality.pictures import Faces
from boundaryflow import evaluation as ev
from boundaryflow.labelling import ClipLabeller

PER_IMAGE = ("success", "drift", "identity", "ssim", "rmse", "rmse_inside", "rmse_outside", "recovery")


@dataclass(frozen=True)
class Eyes:
    """What pictures are judged with.

    Attributes:
        judges: Networks that were trained on other faces.
        clip: For features of the Fréchet and kernel distances.
    """

    judges: ev.Judges
    clip: ClipLabeller


def judge(eyes: Eyes, faces: Faces, attributes: Sequence[str], edited: Tensor) -> dict[str, Any]:
    """Measure one edit at every strength.

    Args:
        eyes: Who judges.
        faces: The N inputs.
        attributes: What was to be flipped.
        edited: [N,K,3,64,64] in model range.

    Returns:
        `PER_IMAGE` to [K,N] values, `spearman` to [N], `fid` and `kid` to [K].
    """
    before, (truth, region) = (faces.x_0 + 1) / 2, faces.counterfactuals(attributes)
    signs = torch.zeros(len(faces.ids), len(eyes.judges.attributes))
    for column, name in enumerate(attributes):
        signs[:, eyes.judges.attributes.index(name)] = faces.directions(attributes)[:, column]
    known, identity = eyes.judges.probabilities(before), eyes.judges.identity(before)
    real = eyes.clip.image_features(truth).cpu()
    found: dict[str, list[Any]] = {name: [] for name in (*PER_IMAGE, "fid", "kid")}
    wanted: list[Tensor] = []
    for pictures in edited.unbind(1):
        after = (((pictures + 1) / 2).clamp(0, 1) * 255).round() / 255
        now, who = eyes.judges.probabilities(after), eyes.judges.identity(after)
        features = eyes.clip.image_features(after).cpu()
        wanted.append((torch.logit(now.double(), 1e-12) * signs).sum(1))
        columns = {
            "success": ev.target_reached(now, signs),
            "drift": ev.attribute_drift(known, now, signs),
            "identity": (who * identity).sum(1) if who is not None and identity is not None else now[:, 0] * np.nan,
            "ssim": ev.ssim(after, before),
            "rmse": ev.rmse(after, truth),
            "rmse_inside": ev.rmse(after, truth, region),
            "rmse_outside": ev.rmse(after, truth, ~region),
            "recovery": ev.counterfactual_recovery(before, after, truth),
        }
        for name, values in columns.items():
            found[name].append([round(float(v), 5) for v in values])
        found["fid"].append(round(ev.frechet_distance(real, features), 5))
        found["kid"].append(round(ev.kernel_distance(real, features), 6))
    found["spearman"] = [round(_rank_correlation(row), 4) for row in torch.stack(wanted, 1).numpy()]
    return found


def _rank_correlation(logits: NDArray[np.float64]) -> float:
    """Spearman's, of rising strengths with what the judge says; 0 where it says the same of all."""
    if np.ptp(logits) == 0:
        return 0.0
    return float(spearmanr(np.arange(len(logits)), logits).statistic)


def curve(measured: dict[str, dict[str, Any]], name: str) -> list[float]:
    """[K] mean over attributes and images of one measure."""
    return np.nanmean([np.nanmean(of[name], axis=1) for of in measured.values()], axis=0).tolist()


def at_success(measured: dict[str, dict[str, Any]], level: float) -> dict[str, float] | None:
    """Every measure where the mean target success is `level`, between the strengths on both sides of it.

    Returns:
        None where no strength of the row reaches it.
    """
    success = curve(measured, "success")
    curves = {name: curve(measured, name) for name in PER_IMAGE}
    if success[0] >= level:
        return {name: values[0] for name, values in curves.items()}
    for k, (low, high) in enumerate(pairwise(success)):
        if low < level <= high:
            share = (level - low) / (high - low)
            return {name: v[k] + share * (v[k + 1] - v[k]) for name, v in curves.items()}
    return None


def best_recovery(of_attribute: dict[str, Any]) -> tuple[int, float]:
    """The strength with the largest median recovery, and that median."""
    medians = [float(np.nanmedian(values)) for values in of_attribute["recovery"]]
    best = int(np.argmax(medians))
    return best, medians[best]
