"""Metrics of single edited pictures against their inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from boundaryflow.avatars import Avatar, render, segment
from boundaryflow.evaluation.attributes import attribute_drift, num_flipped, target_reached
from boundaryflow.evaluation.best_strength import SUCCESS_BY
from boundaryflow.evaluation.counterfactual import counterfactual_recovery, rmse
from boundaryflow.evaluation.directional import directional_similarity
from boundaryflow.evaluation.panel import Judges, load_judges
from boundaryflow.evaluation.structure import psnr_db, segmentation_consistency, ssim
from boundaryflow.labelling.clip_labels import ClipLabeller, load_clip

BATCH = 256
MAX_REAL = 256
"""Real images to which the edits of one direction are compared."""


@dataclass(frozen=True)
class MetricModels:
    """Networks and facts that metrics are computed with.

    Attributes:
        judges: Judges, or None.
        clip: CLIP, or None.
        directions: Attribute with prompts to the text direction from its absence to its presence.
        avatars: Item to its face, if exact counterfactuals are known.
    """

    judges: Judges | None
    clip: ClipLabeller | None
    directions: Mapping[str, Tensor]
    avatars: Mapping[str, Avatar]


def open_metric_models(
    judges: str | None,
    clip: str | None,
    prompts: Mapping[str, tuple[Sequence[str], Sequence[str]]],
    templates: Sequence[str],
    avatars: Mapping[str, Avatar],
    device: torch.device,
) -> MetricModels:
    """Open the networks that metrics are computed with.

    Args:
        judges: Folder of judges, or None.
        clip: File of CLIP weights, or None.
        prompts: Attribute to the words for images with it and without it.
        templates: Sentences with `{}` for the words.
        avatars: Item to its face, if exact counterfactuals are used.
        device: Device of the networks.

    Raises:
        PipelineError: One of the files cannot be read.
    """
    labeller = load_clip(clip, device) if clip else None
    directions: dict[str, Tensor] = {}
    if labeller is not None:
        for attribute, (having, without) in prompts.items():
            difference = labeller.text_feature(having, templates) - labeller.text_feature(without, templates)
            directions[attribute] = difference.cpu()
    return MetricModels(load_judges(Path(judges), device) if judges else None, labeller, directions, avatars)


class PerImageMetrics:
    """Metrics of one edit; its inputs are judged once and compared with the pictures at every strength."""

    def __init__(
        self, models: MetricModels, items: Sequence[str], targets: Sequence[dict[str, int]], before: Tensor
    ) -> None:
        self._models, self._targets, self._before = models, targets, before
        self._truth, self._region = _truths(models, items, targets, before.shape[-1])
        judges = models.judges
        self._signs = _signs(targets, judges.attributes if judges else ())
        if judges:
            self._probabilities = judges.probabilities(before)
            self._identity, self._parts = judges.identity(before), judges.parts(before)
        self._features = image_features(models.clip, before) if models.clip else None

    def metrics(self, after: Tensor) -> tuple[dict[str, Any], Tensor | None]:
        """Column of per_image.parquet to one value per image, and the CLIP features of the pictures."""
        columns: dict[str, Tensor] = {}
        judges = self._models.judges
        if judges and bool((self._signs != 0).any()):
            verdicts = judges.verdicts(after)
            now = judges.decided(verdicts)
            wanted = torch.where(self._signs > 0, now, 1 - now).masked_fill(self._signs == 0, 1.0)
            columns["target_success"] = target_reached(now, self._signs)
            columns["target_probability"] = wanted.amin(1)
            columns["drift"] = attribute_drift(self._probabilities, now, self._signs)
            columns["num_others_flipped"] = num_flipped(self._probabilities, now, self._signs)
            columns["clean_success"] = columns["target_success"] & (columns["num_others_flipped"] == 0)
            columns |= self._by_each(judges, verdicts)
        identity, parts = (judges.identity(after), judges.parts(after)) if judges else (None, None)
        if identity is not None and self._identity is not None:
            columns["identity"] = F.cosine_similarity(identity, self._identity)
            if judges and (same := judges.same_person(self._identity, identity)) is not None:
                columns["same_person"] = same
        columns["ssim"] = ssim(after, self._before)
        columns["psnr_db"] = psnr_db(after, self._before)
        if parts is not None and self._parts is not None:
            columns["segmentation_consistency"] = segmentation_consistency(self._parts, parts)
            if self._region is not None:
                columns["segmentation_consistency_outside"] = segmentation_consistency(
                    self._parts, parts, ~self._region
                )
        features = image_features(self._models.clip, after) if self._models.clip else None
        if features is not None and self._features is not None and self._models.directions:
            columns["s_dir"] = directional_similarity(self._features, features, self._text_directions())
        if self._truth is not None and self._region is not None:
            columns["counterfactual_rmse"] = rmse(after, self._truth)
            columns["counterfactual_recovery"] = counterfactual_recovery(self._before, after, self._truth)
            columns["rmse_inside"] = rmse(after, self._truth, self._region)
            columns["rmse_outside"] = rmse(after, self._truth, ~self._region)
        return {name: values.cpu().numpy() for name, values in columns.items()}, features

    def _by_each(self, judges: Judges, verdicts: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Success by each classifier that knows all requested attributes, if there are several."""
        requested = {attribute for targets in self._targets for attribute in targets}
        fit = [judge for judge in judges.classifiers if requested <= set(judge.attributes)]
        if len(fit) < 2:  # noqa: PLR2004 - the one verdict is target_success
            return {}
        return {
            f"{SUCCESS_BY}{judge.name}": target_reached(
                verdicts[judge.name], _signs(self._targets, judge.attributes).to(verdicts[judge.name].device)
            )
            for judge in fit
        }

    def _text_directions(self) -> Tensor:
        directions = self._models.directions
        size = len(next(iter(directions.values())))
        rows = [
            sum((sign * directions[a] for a, sign in requested.items() if a in directions), torch.zeros(size))
            for requested in self._targets
        ]
        return torch.stack([torch.as_tensor(row) for row in rows])


def _signs(targets: Sequence[Mapping[str, int]], attributes: Sequence[str]) -> Tensor:
    """[N,A] +1 or -1 for requested changes, 0 for other attributes."""
    return torch.tensor([[float(requested.get(name, 0)) for name in attributes] for requested in targets]).view(
        len(targets), len(attributes)
    )


def _truths(
    models: MetricModels, items: Sequence[str], targets: Sequence[dict[str, int]], size: int
) -> tuple[Tensor | None, Tensor | None]:
    """The exact counterfactual of each image in [0, 1], and the pixels whose part differs from the input's."""
    if not models.avatars:
        return None, None
    pictures, regions = [], []
    for item, requested in zip(items, targets, strict=True):
        source = changed = models.avatars[item]
        for attribute, sign in requested.items():
            changed = changed.with_attribute(attribute, sign > 0)
        drawn, as_is = np.array(render(changed, size), np.float32), np.array(render(source, size), np.float32)
        pictures.append(torch.from_numpy(drawn.transpose(2, 0, 1) / 255))
        differs = (np.abs(drawn - as_is).max(2) > 0) | (segment(changed, size) != segment(source, size))
        regions.append(torch.from_numpy(differs))
    return torch.stack(pictures), torch.stack(regions)


def image_features(clip: ClipLabeller, images_01: Tensor) -> Tensor:
    """[N,D] image features on the CPU, a few images at a time."""
    return torch.cat([clip.image_features(part).cpu() for part in images_01.split(BATCH)])
