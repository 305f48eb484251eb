"""From edited photographs to numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benches.quality.measure import rank_correlation, wanted_logits
from benches.quality.pictures import Pictures
from boundaryflow.evaluation.attributes import attribute_drift, target_reached
from boundaryflow.evaluation.distribution import frechet_distance
from boundaryflow.evaluation.panel import Judges
from boundaryflow.evaluation.structure import ssim
from boundaryflow.jobs.batch import weakest
from boundaryflow.pixels import to_u8

PER_IMAGE = ("success", "drift", "others_changed", "identity", "ssim", "preserved")
PRESERVED = {"mouth_open": "smiling", "blond_hair": "male", "smiling": "male", "male": "smiling"}
"""What an edit should leave alone in particular."""


def same_person(judges: Judges, pictures: Pictures) -> float:
    """The cosine of embeddings above which two photographs show the same person.

    It is the 99th percentile of the cosines of two different photographs, which nearly always show two people.
    """
    who = judges.identity((pictures.x_0 + 1) / 2)
    if who is None:
        raise ValueError("the built-in judges have no identity network")
    cosines = who @ who.T
    return float(cosines[~torch.eye(len(who), dtype=torch.bool)].quantile(0.99))


def deliver(
    labeller: Judges,
    some: Pictures,
    attribute: str,
    edited: Tensor,
    strengths: Sequence[float],
    min_probability: float,
) -> tuple[Tensor, Tensor]:
    """What `bulk-edit` with `min_probability` would deliver of each picture.

    Args:
        labeller: Networks that share no training picture with the judges.
        some: The N inputs.
        attribute: What was to be flipped.
        edited: [N,K,3,H,W] uint8, by rising strength.
        strengths: K, none of them 0.
        min_probability: How sure of the new class the labeller must be.

    Returns:
        [N,1,3,H,W] uint8, the weakest edit of which it is so sure, or the input; and [N] bool, whether there is one.
    """
    column, is_wanted = labeller.attributes.index(attribute), some.directions([attribute])[:, 0] > 0
    with_it = torch.stack([labeller.probabilities(of.float() / 255)[:, column] for of in edited.unbind(1)], 1)
    is_sure = torch.where(is_wanted[:, None], with_it, 1 - with_it) >= min_probability
    best = [weakest(strengths, row) for row in is_sure.tolist()]
    before = to_u8(some.x_0)
    chosen = [before[row] if k is None else edited[row, k] for row, k in enumerate(best)]
    return torch.stack(chosen)[:, None], torch.tensor([k is not None for k in best])


def measure_edit(
    judges: Judges, some: Pictures, attribute: str, edited: Tensor, is_delivered: Tensor | None = None
) -> dict[str, Any]:
    """Measure the edits of one attribute at every strength.

    Args:
        judges: Networks that were trained on other photographs.
        some: The N inputs.
        attribute: What was to be flipped.
        edited: [N,K,3,H,W] uint8, by rising strength.
        is_delivered: [N], whether there is an edit: where there is none it failed, and nothing else is measured.

    Returns:
        `PER_IMAGE` to [K][N], NaN where the judges do not know it; `monotonicity` to [N], the rank correlation of
        strength and logit, that of the input being 0; `frechet` to [K], between the embeddings before and after;
        `male` to [N], what the judges see before the edit.
    """
    before, names = (some.x_0 + 1) / 2, judges.attributes
    known, who = judges.probabilities(before), judges.identity(before)
    signs = torch.zeros(len(some.ids), len(names))
    signs[:, names.index(attribute)] = some.directions([attribute])[:, 0]
    unknown, other = torch.full((len(some.ids),), torch.nan), PRESERVED.get(attribute)
    found: dict[str, Any] = {name: [] for name in (*PER_IMAGE, "frechet")}
    wanted = [wanted_logits(known, signs)]
    for pictures in edited.unbind(1):
        after = pictures.float() / 255
        now, then = judges.probabilities(after), judges.identity(after)
        wanted.append(wanted_logits(now, signs))
        flipped = (now > 0.5) != (known > 0.5)
        columns: dict[str, Tensor] = {
            "success": target_reached(now, signs).float(),
            "drift": attribute_drift(known, now, signs),
            "others_changed": flipped[:, [n != attribute for n in names]].float().mean(1),
            "identity": unknown if who is None or then is None else (who * then).sum(1),
            "ssim": ssim(after, before),
            "preserved": 1 - flipped[:, names.index(other)].float() if other in names else unknown,
        }
        if is_delivered is not None:
            columns = {name: values.where(is_delivered, torch.nan) for name, values in columns.items()}
            columns["success"] = columns["success"].nan_to_num(0)
        for name, values in columns.items():
            found[name].append([round(float(value), 4) for value in values])
        is_there = slice(None) if is_delivered is None else is_delivered
        distance = np.nan if who is None or then is None else frechet_distance(who[is_there], then[is_there])
        found["frechet"].append(round(distance, 4))
    ranks = [round(rank_correlation(row), 4) for row in torch.stack(wanted, 1).numpy()]
    found["monotonicity"] = ranks if is_delivered is None else [np.nan] * len(ranks)  # of one strength there is none
    found["male"] = (known[:, names.index("male")] > 0.5).tolist() if "male" in names else []
    return found
