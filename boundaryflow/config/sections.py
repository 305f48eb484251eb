"""The other sections of a data set in params.yaml, and the range of each value."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from boundaryflow.config.base import Layer, Name, Section, Share, Strengths
from boundaryflow.config.ingest import IngestParams
from boundaryflow.config.label import LabelParams


class MixingParams(Section):
    """The search for the mixing step."""

    rule: Literal["radius", "separability", "fixed"]
    fixed_t: int | None = Field(ge=1, le=999)
    tolerance: Share
    min_t: int = Field(ge=1, le=999)
    max_t: int = Field(ge=1, le=999)
    num_images: int = Field(ge=8)
    num_sampled: int = Field(ge=2)
    num_steps: int = Field(ge=3, le=1000)


class InvertParams(Section):
    """The path from an image to the mixing step."""

    num_steps: int = Field(ge=2, le=1000)
    noise_until: int = Field(ge=0, le=999)
    order: Literal[1, 2]
    max_images: int | None = Field(ge=8)
    store_dtype: Literal["float16", "float32"]


class FeaturesParams(Section):
    """A layer of the network; see `boundaryflow.diffusion.Features`."""

    layer: Layer
    pool: int | None = Field(ge=1, le=1024)


class ObserveParams(Section):
    """The noise levels at which the guided edit follows the hyperplanes, and the features that these lie in."""

    features: FeaturesParams | None
    t_max: int = Field(ge=1, le=999)
    num_steps: int = Field(ge=2, le=1000)
    max_images: int = Field(ge=0)
    store_dtype: Literal["float16", "float32"]


class BoundaryParams(Section):
    """The hyperplanes."""

    spaces: list[Literal["eps", "h"]] = Field(min_length=1)
    estimator: Literal["svm", "ridge", "mean"]
    c: float = Field(gt=0)
    ridge: float | None = Field(gt=0)
    low_pass: float = Field(ge=0, le=64)
    min_auc: float = Field(ge=0.5, lt=1)
    neighbours: int = Field(ge=0, le=100)
    num_bootstraps: int = Field(ge=0, le=1000)
    min_confidence: float = Field(ge=0.5, lt=1)
    balance: bool
    balance_others: bool
    max_per_class: int | None = Field(ge=2)


class GuidedParams(Section):
    """How images are led across boundaries; see `boundaryflow.editing.Guidance`."""

    certainty: float = Field(ge=0.5, lt=1)
    gain: float = Field(gt=0, le=100)
    tweedie_projection: bool
    preserve: float = Field(ge=0)
    preserve_residual: float = Field(ge=0)
    max_step: float = Field(ge=0)
    soft_threshold: float = Field(ge=0)
    region: Share
    num_draws: int = Field(ge=1)
    num_iterations: int = Field(ge=1)
    stride: int = Field(ge=1, le=1000)


class MaskParams(Section):
    """Where images may change, by the parts that a segmenter sees in them."""

    segmenter: str
    parts: dict[Name, list[str]] = Field(min_length=1)
    grow: int = Field(ge=0, le=256)


class CompareParams(Section):
    """Another method's edits of the same images, to be held against those of `edit.method`."""

    method: Literal["single_step"]
    strengths: Strengths


class EditParams(Section):
    """What is edited, how far, and which way down.

    `num_samples` stands here and not in `report`, which runs no network: the editor that edits images edits samples.
    """

    split: Literal["train", "val", "test"]
    max_images: int = Field(ge=1)
    method: Literal["guided", "single_step"]
    guided: GuidedParams
    mask: MaskParams | None
    conditional: bool
    eta: Share
    residuals: bool
    eps_scale: float = Field(ge=0)
    h_scale: float = Field(ge=0)
    h_window: tuple[Share, Share]
    strengths: Strengths
    compare: CompareParams | None
    num_samples: int = Field(default=0, ge=0)  # younger than the other keys; params.yaml files lack it
    edits: dict[Name, dict[Name, Literal["add", "remove", "flip"]]] = Field(min_length=1)

    @property
    def methods(self) -> dict[str, list[float]]:
        """Method to its strengths: the edit's own first, then the one that it is compared with, if that is another."""
        compared = {self.compare.method: self.compare.strengths} if self.compare else {}
        return {self.method: self.strengths, **{m: s for m, s in compared.items() if m != self.method}}


class EvaluateParams(Section):
    """Who judges the edits; null leaves a judge out."""

    judges: str | None
    clip: str | None
    counterfactuals: bool
    num_bootstraps: int = Field(ge=0)


class ReportParams(Section):
    """What the report shows."""

    num_grid: int = Field(ge=1)
    num_strips: int = Field(ge=0)
    num_failures: int = Field(ge=0)
    seed: int = Field(ge=0)


class DatasetParams(Section):
    """Everything about one data set."""

    model: str
    dtype: Literal["auto", "float32", "bfloat16"]
    paper_mode: bool
    ingest: IngestParams
    label: LabelParams
    mixing: MixingParams
    invert: InvertParams
    observe: ObserveParams
    boundary: BoundaryParams
    edit: EditParams
    evaluate: EvaluateParams
    report: ReportParams

    @property
    def needs_single_step(self) -> bool:
        """Does any edit need the mixing step, images inverted to it, and hyperplanes there?"""
        return "single_step" in self.edit.methods
