"""`boundaryflow.Boundary`: the hyperplanes of one attribute, fitted on images of both sides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch

from boundaryflow.api.images import read_images
from boundaryflow.boundary import Boundaries, load_boundaries, save_boundaries
from boundaryflow.boundary.hyperplane import most_telling
from boundaryflow.config import is_name
from boundaryflow.diffusion import EpsModel, Features, timestep_path
from boundaryflow.diffusion.observation import DENSITY
from boundaryflow.errors import BoundaryError, ManifestError, ParamsError
from boundaryflow.jobs.fit_noised import Sides, fit_noised
from boundaryflow.jobs.text import MIN_IMAGES, extremes
from boundaryflow.labelling.clip_labels import load_clip
from boundaryflow.pixels import to_model_range, to_u8
from boundaryflow.runtime.device import device
from boundaryflow.runtime.frozen_model import check_features
from boundaryflow.text import visible

T_MAX, NUM_STEPS = 520, 18
"""Noisiest timestep and number of timesteps of the path, as `defaults.observe` in params.yaml."""


@dataclass(frozen=True)
class Boundary:
    """The boundary of one attribute in the features of one model, at many noise levels.

    Attributes:
        hyperplanes: What `Editor` follows.
    """

    hyperplanes: Boundaries

    @property
    def attribute(self) -> str:
        """Its name."""
        return self.hyperplanes.attribute

    @property
    def auc(self) -> float:
        """Held-out area under the ROC curve at the best noise level, in [0, 1]."""
        return most_telling(list(self.hyperplanes.all.values())).calibration.auc

    @property
    def timesteps(self) -> tuple[int, ...]:
        """Timesteps of the noise levels at which it separates images."""
        return tuple(hyperplane.t for hyperplane in self.hyperplanes.noised)

    @classmethod
    def fit(
        cls,
        model: EpsModel,
        attribute: str,
        with_it: Any,
        without_it: Any,
        *,
        layer: str | None = None,
        pool: int | None = None,
        t_max: int = T_MAX,
        num_steps: int = NUM_STEPS,
        ridge: float | None = None,
        neighbours: int = 2,
        min_auc: float = 0.7,
    ) -> Boundary:
        """Fit the hyperplanes between images with an attribute and images without.

        Three quarters of the images are fitted on; on the others the hyperplanes are calibrated, and those are kept
        that separate them. The values are those of `observe` and `boundary` in params.yaml (docs/parameters.md).

        Args:
            model: Result of `load_model`.
            attribute: Name.
            with_it: Images with the attribute, in any form that `Editor.edit` takes.
            without_it: Images without.
            layer: Layer of the network whose output is looked at; None is the bottleneck, h.
            pool: Side in pixels to which that output is averaged; None leaves it as it is.
            t_max: Noisiest timestep.
            num_steps: Number of timesteps, from 0 to `t_max`.
            ridge: Penalty; None: what leave-one-out finds best.
            neighbours: Noise levels on either side that are averaged.
            min_auc: Least held-out AUC of a noise level that is kept.

        Raises:
            PipelineError: The images do not fit the model, are too few, or cannot be separated; the name is none, the
                model has no such layer, or no such timesteps.
        """
        if not is_name(attribute):
            raise ParamsError(
                f"attribute {visible(attribute)!r}: must be letters, digits, _ and -, begin with a letter or digit, at "
                "most 64 of them"
            )
        features, path = _features(layer, pool), path_of(model, t_max, num_steps)
        check_features(model, features, "MODEL")
        sides = [read_images(images, model, plain_geometry(model)) for images in (with_it, without_it)]
        has = np.repeat([True, False], [len(side.ids) for side in sides])
        ids = [name for side in sides for name in side.ids]
        both = Sides(torch.cat([side.x_0 for side in sides]), ids, has)
        found = fit_noised(model, both, path, features, attribute, ridge=ridge, neighbours=neighbours, min_auc=min_auc)
        if not found:
            raise BoundaryError(
                f"boundary {attribute!r}: the images are not separable at any noise level (no held-out AUC of min_auc, "
                f"{min_auc:g}); give more images, or another layer"
            )
        return cls(Boundaries(attribute, {}, found))

    @classmethod
    def from_words(
        cls, model: EpsModel, attribute: str, positive: str, negative: str, images: Any, *, clip: str, **how: Any
    ) -> Boundary:
        """Fit the hyperplanes between the images that two descriptions fit best.

        A third of the images, those for which CLIP is surest, is taken for each side, as `boundaryflow text` does.

        Args:
            model: Result of `load_model`.
            attribute: Name.
            positive: Description of an image with the attribute, such as `a face with a hat`.
            negative: Description of an image without.
            images: At least 24 of both kinds, in any form that `Editor.edit` takes.
            clip: Weights of CLIP: a file, or a name such as `ViT-B/32`, which is downloaded once.
            how: Further values of `fit`.

        Raises:
            PipelineError: As of `fit`; there are too few images, the weights are no CLIP, or a description is too long.
        """
        given = read_images(images, model, plain_geometry(model))
        if len(given.ids) < MIN_IMAGES:
            raise ManifestError(f"images: {len(given.ids)} to compare with the words, must be at least {MIN_IMAGES}")
        labeller = load_clip(clip, device())
        pixels = to_model_range(to_u8(given.x_0, model.value_range), (0.0, 1.0))
        features = torch.cat([labeller.image_features(part) for part in pixels.split(256)])
        rows, has = extremes(labeller.log_odds(features, [positive], [negative]).numpy())
        with_it, without = (
            [images[row] for row in side] if isinstance(images, list) else images[side]
            for side in (rows[has], rows[~has])
        )
        return cls.fit(model, attribute, with_it, without, **how)

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Boundary:
        """Read a file of `save`, or of a run (data/boundary/NAME/ATTRIBUTE.safetensors).

        Raises:
            BoundaryError: It is missing, damaged, or not a boundary.
        """
        return cls(load_boundaries(Path(path)))

    def save(self, path: str | PathLike[str]) -> None:
        """Write a safetensors file; one that is there must be a boundary, and is replaced.

        Raises:
            BoundaryError: It is something else.
        """
        place = Path(path)
        if place.exists():
            load_boundaries(place)
        save_boundaries(place, self.hyperplanes)


def _features(layer: str | None, pool: int | None) -> Features:
    """The features of a layer.

    Raises:
        ParamsError: The bottleneck is to be pooled.
    """
    try:
        return Features(layer, pool)
    except ValueError as error:
        raise ParamsError(str(error)) from None


def features_in(spaces: Sequence[str]) -> Features:
    """The features that a space is named after; see `Features.space`.

    Raises:
        BoundaryError: There is none, or there are several.
    """
    if len(set(spaces)) != 1:
        raise BoundaryError(f"boundaries: lie in the spaces {', '.join(sorted(set(spaces)))}, must be in one")
    layer, _, pool = spaces[0].partition(":")
    return Features(layer, None if pool == "all" else int(pool)) if pool else Features()


def path_of(model: EpsModel, t_max: int, num_steps: int) -> tuple[int, ...]:
    """Timesteps of the guided edit, ascending.

    Raises:
        ParamsError: The model has no such path.
    """
    most = model.schedule.num_train_timesteps - 1
    if not 1 <= t_max <= most or not 2 <= num_steps <= t_max + 1:
        raise ParamsError(
            f"t_max is {t_max} and num_steps {num_steps}, must be 1 to {most} for this model, and 2 to t_max + 1"
        )
    return timestep_path(t_max, num_steps, DENSITY)


def plain_geometry(model: EpsModel) -> dict[str, Any]:
    """How pictures are brought to a model's size where no data set says how: the middle of the picture, on white."""
    return {"size": model.image_size, "channels": model.channels, "fit": "crop", "background": (255, 255, 255)}
