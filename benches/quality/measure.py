"""From edited pictures to numbers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata
from torch import Tensor

from benches.quality.pictures import Faces
from boundaryflow import evaluation as ev
from boundaryflow.labelling import ClipLabeller

PER_IMAGE = ("success", "drift", "identity", "ssim", "rmse", "rmse_inside", "rmse_outside", "recovery")


def judge(judges: ev.Judges, faces: Faces, attributes: Sequence[str], edited: Tensor) -> dict[str, Any]:
    """Measure one edit at every strength.

    Args:
        judges: Networks that were trained on other faces.
        faces: The N inputs.
        attributes: What was to be flipped.
        edited: [N,K,3,64,64] uint8, by rising strength.

    Returns:
        `PER_IMAGE` to [K,N] values, and `spearman` to [N]: of the strengths, that of the input being
        0, with the logit that the judge gives.
    """
    before, (truth, region) = (faces.x_0 + 1) / 2, faces.counterfactuals(attributes)
    signs = torch.zeros(len(faces.ids), len(judges.attributes))
    for column, name in enumerate(attributes):
        signs[:, judges.attributes.index(name)] = faces.directions(attributes)[:, column]
    known, identity = judges.probabilities(before), judges.identity(before)
    found: dict[str, list[Any]] = {name: [] for name in PER_IMAGE}
    wanted = [_wanted(known, signs)]
    for pictures in edited.unbind(1):
        after = pictures.float() / 255
        now, who = judges.probabilities(after), judges.identity(after)
        wanted.append(_wanted(now, signs))
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
    found["spearman"] = [round(_rank_correlation(row), 4) for row in torch.stack(wanted, 1).numpy()]
    return found


def _wanted(probabilities: Tensor, signs: Tensor) -> Tensor:
    """[N] how much of what was asked for the judge sees, a logit."""
    return (torch.logit(probabilities.double(), 1e-12) * signs).sum(1)


def _rank_correlation(logits: NDArray[np.float64]) -> float:
    """Spearman's, of rising strengths with what the judge says; 0 where it says the same of all."""
    if np.ptp(logits) == 0:
        return 0.0
    return float(np.corrcoef(np.arange(len(logits)), rankdata(logits))[0, 1])


def set_distances(clip: ClipLabeller, edits: Iterable[tuple[Faces, Sequence[str], Tensor]]) -> dict[str, list[float]]:
    """How far the edits are as a set from the truths, features of CLIP.

    Args:
        clip: For the features.
        edits: Faces, what was flipped, and [N,K,3,64,64] uint8.

    Returns:
        `fid` and `kid` to [K] values.
    """
    real: list[Tensor] = []
    fake: list[Tensor] = []
    for faces, attributes, edited in edits:
        real.append(clip.image_features(faces.counterfactuals(attributes)[0]).cpu())
        features = [clip.image_features(pictures.float() / 255).cpu() for pictures in edited.unbind(1)]
        fake.append(torch.stack(features))
    truths, by_strength = torch.cat(real), torch.cat(fake, 1)
    return {
        "fid": [round(ev.frechet_distance(truths, features), 5) for features in by_strength],
        "kid": [round(ev.kernel_distance(truths, features), 6) for features in by_strength],
    }
