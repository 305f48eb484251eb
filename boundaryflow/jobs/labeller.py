"""Labels of pictures without annotations: new pictures, and edited ones.

For each attribute the most independent source of the data set is used: the judges of `evaluate.judges`, which are
trained on other images and without the diffusion model; else the classifier or CLIP prompts that label the data set;
else the hyperplane with the best AUC.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from boundaryflow.boundary import Boundaries
from boundaryflow.boundary.hyperplane import most_telling
from boundaryflow.config import ClassifierSource, ClipSource, ColumnRule, DatasetParams, PromptRule
from boundaryflow.diffusion import EpsModel
from boundaryflow.diffusion.observation import noised_features
from boundaryflow.editing.editor import Editor, EditSettings
from boundaryflow.errors import CheckpointError
from boundaryflow.evaluation.panel import judge_files, load_judges
from boundaryflow.files import file_sha256
from boundaryflow.labelling.clip_labels import load_clip
from boundaryflow.pixels import to_model_range
from boundaryflow.runtime.device import device


@dataclass(frozen=True)
class ClassifierSpec:
    """A classifier: its folder, and attribute to output."""

    weights: str
    columns: Mapping[str, str]


@dataclass(frozen=True)
class ClipSpec:
    """CLIP: its weights, and how prompts become log-odds."""

    weights: str
    templates: Sequence[str]
    temperature: float | None


@dataclass(frozen=True)
class LabellerSpec:
    """What a labeller is made of.

    Attributes:
        by: Attribute to what labels it: judges, classifier, clip or hyperplanes.
        judges: Their folder or file; None if no attribute needs them, like the next two.
        classifier: Of the attributes that a classifier labels.
        clip: Of the attributes that CLIP labels.
        prompts: Attribute to its positive and negative prompts for CLIP.
    """

    by: Mapping[str, str]
    judges: str | None
    classifier: ClassifierSpec | None
    clip: ClipSpec | None
    prompts: Mapping[str, tuple[Sequence[str], Sequence[str]]]


def spec_of(dataset: DatasetParams, attributes: Sequence[str]) -> LabellerSpec:
    """The label source of each attribute, and what it needs.

    Raises:
        CheckpointError: The judges cannot be read.
    """
    path = dataset.evaluate.judges
    known = load_judges(Path(path)).attributes if path else ()
    source, rules = dataset.label.source, dataset.label.attributes
    prompts: dict[str, tuple[Sequence[str], Sequence[str]]] = {}
    clip: ClipSpec | None = None
    columns: dict[str, str] = {}
    by: dict[str, str] = {}
    for name in attributes:
        rule = rules.get(name)
        if name in known:
            by[name] = "judges"
        elif isinstance(source, ClassifierSource) and isinstance(rule, ColumnRule):
            by[name], columns[name] = "classifier", rule.column or name
        elif isinstance(source, ClipSource) and isinstance(rule, PromptRule):
            by[name], prompts[name] = "clip", (rule.positive, rule.negative)
            clip = ClipSpec(source.weights, source.templates, source.temperature)
        else:
            by[name] = "hyperplanes"
    classifier = ClassifierSpec(source.weights, columns) if isinstance(source, ClassifierSource) and columns else None
    return LabellerSpec(by, path if "judges" in by.values() else None, classifier, clip, prompts)


def identity_of(spec: LabellerSpec) -> dict[str, Any]:
    """Everything that a labeller's probabilities depend on, except hyperplanes: the spec with hashes of its files."""
    folders = [spec.judges, spec.classifier and spec.classifier.weights]
    files = [path for folder in folders if folder for path in judge_files(Path(folder))]
    clip = Path(spec.clip.weights) if spec.clip else None
    hashes = {str(path): file_sha256(path) for path in [*files, *([clip] if clip and clip.is_file() else [])]}
    return {**asdict(spec), "hashes": hashes}


class Labeller:
    """Gives the probability of each attribute.

    Args:
        spec: From `spec_of`.
        hyperplanes: Boundaries of the attributes that hyperplanes label.
        model: The frozen model, for the hyperplanes.
        editor: Inverts images when a data set has hyperplanes at the mixing step only.
        settings: Where the hyperplanes hold, of noised images and at the mixing step.
        run_seed: Seed of the noise that is added to images for hyperplanes.
    """

    def __init__(
        self,
        spec: LabellerSpec,
        hyperplanes: Mapping[str, Boundaries],
        model: EpsModel,
        editor: Editor,
        settings: EditSettings,
        run_seed: int,
    ) -> None:
        self.attributes = list(spec.by)
        self._judges = load_judges(Path(spec.judges), device()) if spec.judges else None
        self._classifier = load_judges(Path(spec.classifier.weights), device()) if spec.classifier else None
        self._clip = load_clip(spec.clip.weights, device()) if spec.clip else None
        self._spec, self._planes, self._model, self._editor = spec, hyperplanes, model, editor
        self._settings, self._run_seed = settings, run_seed

    def __call__(self, pixels_u8: Tensor, ids: Sequence[str]) -> Tensor:
        """[N,A] probability that a picture has an attribute.

        Args:
            pixels_u8: [N,C,H,W] uint8.
            ids: Their ids, from which the noise of noised images is drawn.
        """
        spec, columns = self._spec, dict[str, Tensor]()
        images_01 = to_model_range(pixels_u8, (0.0, 1.0))
        if self._judges is not None:
            judged = self._judges.probabilities(images_01)
            columns |= {name: judged[:, column] for column, name in enumerate(self._judges.attributes)}
        if self._classifier is not None and spec.classifier is not None:
            judged, known = self._classifier.probabilities(images_01), self._classifier.attributes
            columns |= {name: judged[:, known.index(of)] for name, of in spec.classifier.columns.items()}
        if self._clip is not None and spec.clip is not None:
            features = self._clip.image_features(images_01)
            for name, (positive, negative) in spec.prompts.items():
                odds = self._clip.log_odds(
                    features, positive, negative, templates=spec.clip.templates, temperature=spec.clip.temperature
                )
                columns[name] = odds.sigmoid()
        for name in self.attributes:
            if spec.by[name] == "hyperplanes":
                columns[name] = self._by_plane(self._planes[name], pixels_u8, ids)
        if not self.attributes:
            return torch.zeros(len(pixels_u8), 0)
        seen = torch.stack([columns[name].float().cpu() for name in self.attributes], 1)
        bad = (~seen.isfinite()).any(0).nonzero().flatten().tolist()
        if bad:
            name = self.attributes[bad[0]]
            raise CheckpointError(
                f"the {spec.by[name]} give NaN for {name!r} of some pictures, and nothing is delivered; "
                "their weights are damaged: replace them"
            )
        return seen

    def _by_plane(self, boundaries: Boundaries, pixels_u8: Tensor, ids: Sequence[str]) -> Tensor:
        x_0, settings = to_model_range(pixels_u8, self._model.value_range), self._settings
        if boundaries.noised:
            features = settings.features
            hyperplane = most_telling(boundaries.along_path(settings.timesteps, self._model.sha256, features.space))
            latents = noised_features(self._model, x_0, ids, hyperplane.t, self._run_seed, features)
        elif settings.t_mix is None:
            raise boundaries.not_separable
        else:
            hyperplane = most_telling(list(boundaries.at_mixing_step.values()))
            hyperplane.check_fits(self._model.sha256, settings.t_mix)
            inversion = self._editor.open(x_0, ids).inversion
            if inversion is None:
                raise ValueError("the editor does not invert, and there is no hyperplane of noised images")
            latents = inversion.h_mix if hyperplane.space == "h" else inversion.x_mix
        return hyperplane.probability(latents).cpu()
