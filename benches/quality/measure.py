"""From edited pictures to numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata
from torch import Tensor, nn

from benches.quality.pictures import Faces
from boundaryflow.evaluation.attributes import attribute_drift, target_reached
from boundaryflow.evaluation.counterfactual import counterfactual_recovery, rmse
from boundaryflow.evaluation.distribution import frechet_distance, kernel_distance
from boundaryflow.evaluation.judges import FILES, JudgeNet, in_batches, read_judge
from boundaryflow.evaluation.panel import Judges
from boundaryflow.evaluation.structure import ssim

PER_IMAGE = (
    "success", "drift", "identity", "same_face", "ssim", "rmse", "rmse_inside", "rmse_outside", "recovery", "mnac",
    "cout",
)  # fmt: skip
OF_SETS = ("fid", "kid", "fid_judge", "sfid", "cd")
_SAME_FACE = 0.5  # cosine of two identity vectors, as in FVA
_COUT_STEPS = 10


def judge(judges: Judges, faces: Faces, attributes: Sequence[str], edited: Tensor) -> dict[str, Any]:
    """Measure one edit at every strength.

    Args:
        judges: Networks that were trained on other faces.
        faces: The N inputs.
        attributes: What was to be flipped.
        edited: [N,K,3,64,64] uint8, by rising strength.

    Returns:
        `PER_IMAGE` to [K,N] values, `changes` to [K,N,A], for each attribute of the judges -1, 0 or 1 as it was lost,
        stayed or was gained; and `spearman` to [N]: of the strengths, that of the input being 0, with the logit that
        the judge gives. `same_face` (FVA) is a cosine of the identity vectors above 0.5. `mnac` is the number
        of changed attributes, the target included, and NaN where the target was not reached.
    """
    before, (truth, region) = (faces.x_0 + 1) / 2, faces.counterfactuals(attributes)
    signs = torch.zeros(len(faces.ids), len(judges.attributes))
    for column, name in enumerate(attributes):
        signs[:, judges.attributes.index(name)] = faces.directions(attributes)[:, column]
    known, identity = judges.probabilities(before), judges.identity(before)
    found: dict[str, list[Any]] = {name: [] for name in (*PER_IMAGE, "changes")}
    wanted = [wanted_logits(known, signs)]
    for pictures in edited.unbind(1):
        after = pictures.float() / 255
        now, who = judges.probabilities(after), judges.identity(after)
        wanted.append(wanted_logits(now, signs))
        success, changed = target_reached(now, signs), (now > 0.5).int() - (known > 0.5).int()
        cosine = (who * identity).sum(1) if who is not None and identity is not None else now[:, 0] * np.nan
        columns = {
            "success": success,
            "drift": attribute_drift(known, now, signs),
            "identity": cosine,
            "same_face": cosine > _SAME_FACE,
            "ssim": ssim(after, before),
            "rmse": rmse(after, truth),
            "rmse_inside": rmse(after, truth, region),
            "rmse_outside": rmse(after, truth, ~region),
            "recovery": counterfactual_recovery(before, after, truth),
            "mnac": changed.abs().sum(1).double().masked_fill(~success, float("nan")),
            "cout": cout(judges, before, after, signs),
        }
        found["changes"].append(changed.tolist())
        for name, values in columns.items():
            found[name].append([round(float(v), 5) for v in values])
    found["spearman"] = [round(rank_correlation(row), 4) for row in torch.stack(wanted, 1).numpy()]
    return found


def wanted_logits(probabilities: Tensor, signs: Tensor) -> Tensor:
    """[N] how much of what was asked for the judge sees, a logit."""
    return (torch.logit(probabilities.double(), 1e-12) * signs).sum(1)


def rank_correlation(logits: NDArray[np.float64]) -> float:
    """Spearman's, of rising strengths with what the judge says; 0 where it says the same of all."""
    if np.ptp(logits) == 0:
        return 0.0
    return float(np.corrcoef(np.arange(len(logits)), rankdata(logits))[0, 1])


def cout(judges: Judges, before: Tensor, after: Tensor, signs: Tensor) -> Tensor:
    """[N] COUT (Khorram and Fuxin 2022): do the pixels that change most bring the target about?

    The pixels of the edit are put into the input, those of the largest change first. The area under the probability of
    the target less that under its opposite's, in [-1, 1]; of several targets, their mean.
    """
    size = (after - before).abs().sum(1).flatten(1)
    ranks = size.argsort(1, descending=True).argsort(1).view(len(before), 1, *before.shape[2:])
    curve: list[Tensor] = []
    for step in range(_COUT_STEPS + 1):
        mixed = torch.where(ranks < size.shape[1] * step / _COUT_STEPS, after, before)
        curve.append(((2 * judges.probabilities(mixed) - 1) * signs).sum(1) / signs.abs().sum(1))
    return torch.trapezoid(torch.stack(curve), dx=1 / _COUT_STEPS, dim=0)


def correlation_difference(changes: NDArray[np.int64], target: int) -> float:
    """CD (Jeanneret et al. 2022) of one attribute: how much the changes of the others go with its own.

    The sum over attributes of the difference between the correlation of their changes with the target's, and that
    of their labels, which is 0 for avatars: their attributes are drawn independently.

    Args:
        changes: [N,A] -1, 0 or 1; an attribute that never changes, or always alike, is uncorrelated.
        target: Which of the A was edited.
    """
    centred = changes - changes.mean(0)
    lengths = np.linalg.norm(centred, axis=0)
    correlations = centred.T @ centred[:, target] / np.maximum(lengths * lengths[target], 1e-12)
    return float(np.abs(np.delete(correlations, target)).sum())


Features = Callable[[Tensor], Tensor]
Edits = tuple[Faces, Sequence[str], Tensor, Sequence[Sequence[float]]]
"""Faces, what was flipped, [N,K,3,64,64] uint8, and [K,N] whether it was."""


def set_distances(clip: Features, of_judge: Features, edits: Sequence[Edits]) -> dict[str, list[float]]:
    """How far the edits are as a set from the truths, and from the inputs.

    Args:
        clip: [N,3,64,64] in [0, 1] to features of CLIP.
        of_judge: The same of the judge of attributes.
        edits: Of one row.

    Returns:
        To [K] values: `fid` and `kid` between edits and truths, on features of CLIP; and as papers on counterfactuals
        have them, on the judge's: `fid_judge` between the inputs and their edits that succeeded, and `sfid`, the mean
        of the two distances between one half of the inputs and the edits of the other half.
    """
    inputs = torch.cat([(faces.x_0 + 1) / 2 for faces, *_ in edits])
    truths = clip(torch.cat([faces.counterfactuals(attributes)[0] for faces, attributes, *_ in edits]))
    seen = of_judge(inputs)
    half = torch.arange(len(inputs)) % 2 == 0
    found: dict[str, list[float]] = {name: [] for name in ("fid", "kid", "fid_judge", "sfid")}
    for k in range(edits[0][2].shape[1]):
        pictures = torch.cat([edited[:, k] for _, _, edited, _ in edits]).float() / 255
        flipped = torch.cat([torch.tensor(success[k]) for *_, success in edits]) > 0
        now, features = of_judge(pictures), clip(pictures)
        halves = [(half, flipped & ~half), (~half, flipped & half)]
        values = {
            "fid": frechet_distance(truths, features),
            "kid": kernel_distance(truths, features),
            "fid_judge": frechet_distance(seen, now[flipped]),
            "sfid": sum(frechet_distance(seen[a], now[b]) for a, b in halves) / 2,
        }
        for name, value in values.items():
            found[name].append(round(value, 6))
    return found


def judge_features(folder: Path) -> Features:
    """[N,3,64,64] in [0, 1] to the means over the last maps of the judge of attributes, [N,D]."""
    net = read_judge(folder / FILES["classify"], "classify")[0]
    body = cast(JudgeNet, net).body

    def of(images_01: Tensor) -> Tensor:
        with torch.inference_mode():
            return in_batches(nn.Sequential(body, nn.AdaptiveAvgPool2d(1), nn.Flatten()), images_01 * 2 - 1)

    return of
