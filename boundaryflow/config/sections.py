"""The sections of params.yaml and the range of each value."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationInfo,
    field_validator,
    model_validator,
)

from boundaryflow.config.wording import closest, nearest
from boundaryflow.errors import ParamsError

_NAME = r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}"
Name = Annotated[str, Field(pattern=f"^{_NAME}$")]
"""Of a data set, an edit or a job: it becomes the name of a file or folder."""
RESERVED = ("file", "item_id")
"""Columns of our own tables, beside which attributes are."""


def _not_reserved(name: str) -> str:
    if name in RESERVED:
        raise ValueError(f"is a column of our own tables ({', '.join(RESERVED)}); choose another name")
    return name


def is_name(text: str) -> bool:
    """Whether a text may be a name, and so part of a file's name."""
    return re.fullmatch(_NAME, text) is not None


Attribute = Annotated[Name, AfterValidator(_not_reserved)]


def _in_raw_folder(path: str) -> str:
    parts = PurePosixPath(path).parts
    if ".." in parts or path.startswith("/"):
        raise ValueError("must be relative to data/raw/NAME and stay in it, without ..")
    if any("**" in part and part != "**" for part in parts):
        raise ValueError("has ** beside other characters; it must stand alone between two slashes")
    return path


RawPath = Annotated[str, AfterValidator(_in_raw_folder)]
"""A file beside the images, or a pattern for several."""
Share = Annotated[float, Field(ge=0, le=1)]
MAX_STRENGTH = 1000.0  # the authors' release goes to 150 with edit.method single_step


def alike(strengths: Sequence[float]) -> str:
    """The first strength that files and tables, which keep six digits, would take for an earlier one; empty if none."""
    told = [f"{strength + 0.0:g}" for strength in strengths]  # no -0
    return next((text for position, text in enumerate(told) if text in told[:position]), "")


def _distinct(strengths: list[float]) -> list[float]:
    if twice := alike(strengths):
        raise ValueError(f"{twice} is there twice (results are named by six digits of a strength); keep one")
    return strengths


Strengths = Annotated[
    list[Annotated[float, Field(ge=-MAX_STRENGTH, le=MAX_STRENGTH)]],
    Field(min_length=1, max_length=101),
    AfterValidator(_distinct),
]


class Section(BaseModel):
    """A part of params.yaml: no unknown keys, no defaults, no NaN or infinity, never changed."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class AvatarSource(Section):
    """The built-in renderer."""

    kind: Literal["avatars"]
    num_images: int = Field(ge=8)
    seed: int = Field(ge=0)
    rates: dict[str, Share]
    correlations: dict[str, Annotated[float, Field(ge=-1, le=1)]]


class FolderSource(Section):
    """The user's own images, in data/raw/NAME: image files, archives, LMDBs; a link to a folder elsewhere will do.

    Attributes:
        include: Patterns of names, in which `*` stands for anything: only pictures that fit one. None is all, also
            where the key is left out, as it is in what was written before there was one.
        exclude: The same of pictures that are left out.
    """

    kind: Literal["folder"]
    include: list[str] = []
    exclude: list[str] = []


class RemoteSource(Section):
    """Images in a remote folder; labels and a file of splits lie in data/raw/NAME."""

    kind: Literal["remote"]
    url: str


class CropBox(Section):
    """What is cut out of every picture before it is brought to size, in its own pixels."""

    left: int = Field(ge=0)
    top: int = Field(ge=0)
    width: int = Field(ge=1)
    height: int = Field(ge=1)

    @property
    def box(self) -> tuple[int, int, int, int]:
        """As `decode_image` takes it."""
        return self.left, self.top, self.width, self.height


def _held_out_tag(value: Any) -> str:
    return "folders" if isinstance(value, list) else "share"


HeldOut = Annotated[
    Annotated[Share, Tag("share")] | Annotated[list[str], Tag("folders")],
    Discriminator(_held_out_tag),
]


class Split(Section):
    """What is held out from fitting: a share of the images, or those in folders of these names; the rest is fitted on.

    Shares are of the images that no folder names.
    """

    val: HeldOut
    test: HeldOut


class FileSplit(Section):
    """What is held out, from a file beside the images: CelebA's partition file, or a table with these two columns."""

    path: RawPath
    file_column: str | None
    split_column: str | None


def _split_tag(split: Any) -> str:
    if isinstance(split, Section):
        return type(split).__name__
    return "FileSplit" if isinstance(split, dict) and {"path", "file_column", "split_column"} & set(split) else "Split"


class IngestParams(Section):
    """Images in, pixels out."""

    source: Annotated[AvatarSource | FolderSource | RemoteSource, Field(discriminator="kind")]
    max_images: int | None = Field(ge=8)
    image_size: int = Field(ge=8, le=1024)
    channels: Literal[1, 3]
    crop: CropBox | None
    fit: Literal["crop", "pad", "stretch"]
    background: tuple[Annotated[int, Field(ge=0, le=255)], ...] = Field(min_length=3, max_length=3)
    levels: tuple[float, float] | None = None  # younger than the other keys; params.yaml files lack it
    split: Annotated[Annotated[Split, Tag("Split")] | Annotated[FileSplit, Tag("FileSplit")], Discriminator(_split_tag)]
    shard_size: int = Field(ge=1)
    max_failed_items: int = Field(ge=0)

    @field_validator("levels")
    @classmethod
    def _rising(cls, levels: tuple[float, float] | None) -> tuple[float, float] | None:
        if levels is not None and not levels[0] < levels[1]:
            raise ValueError("the value of black must be below the value of white")
        return levels

    @property
    def geometry(self) -> dict[str, Any]:
        """What `decode_image` makes of a picture."""
        return {
            "size": self.image_size,
            "channels": self.channels,
            "crop": self.crop and self.crop.box,
            "fit": self.fit,
            "background": self.background,
            "levels": self.levels,
        }


class CsvSource(Section):
    """A table with a row per image: CSV, TSV, Parquet or JSON lines; its path, or a pattern, within data/raw/NAME."""

    kind: Literal["csv"]
    path: RawPath
    file_column: str


class LongSource(Section):
    """A table with a row per image and attribute."""

    kind: Literal["long"]
    path: RawPath
    file_column: str
    attribute_column: str
    value_column: str


class CelebaSource(Section):
    """The annotation file of CelebA, CelebA-HQ or CelebAMask-HQ.

    `mapping` is CelebA-HQ-to-CelebA-mapping.txt, where the images have CelebA-HQ's numbers and the
    annotations CelebA's.
    """

    kind: Literal["celeba"]
    path: RawPath
    mapping: RawPath | None


class FolderLabels(Section):
    """Folders as labels: the column `folder` is the name of the folder that an image lies in."""

    kind: Literal["folders"]


Annotations = CsvSource | LongSource | CelebaSource | FolderLabels
"""What people have said of images."""


class ClipSource(Section):
    """Labels from words, by a CLIP model.

    Every prompt is put into every template. `temperature` divides cosines; null is the model's
    own. With `calibration` a temperature and an offset of each attribute are fitted to annotations
    of some of the images.
    """

    kind: Literal["clip"]
    weights: str
    templates: list[str] = Field(min_length=1)
    temperature: float | None = Field(gt=0)
    calibration: Annotated[Annotations, Field(discriminator="kind")] | None


class ProbeSource(Section):
    """Annotations of some of the images, and for the rest a logistic regression on their CLIP features."""

    kind: Literal["probe"]
    weights: str
    annotations: Annotated[Annotations, Field(discriminator="kind")]
    num_folds: int = Field(ge=2, le=20)


class TruthSource(Section):
    """What the renderer knows of its own faces."""

    kind: Literal["avatars"]


class PromptRule(Section):
    """An attribute as two sets of descriptions."""

    positive: list[str] = Field(min_length=1)
    negative: list[str] = Field(min_length=1)


class ValueRule(Section):
    """An attribute as values of a column; images with other values are unknown."""

    column: str
    positive: list[str | int | float | bool] = Field(min_length=1)
    negative: list[str | int | float | bool] = Field(min_length=1)


class ThresholdRule(Section):
    """An attribute as a number of a column: above has it, below does not, between is unknown."""

    column: str
    above: float
    below: float


class ColumnRule(Section):
    """An attribute as a column of 0/1, -1/1, true/false or probabilities; null names the attribute's own column."""

    column: str | None


class CombinedRule(Section):
    """An attribute made of others: not one, all of several, or any of several."""

    model_config = ConfigDict(validate_by_name=False, validate_by_alias=True)

    not_: Name | None = Field(None, alias="not")
    all_: list[Name] | None = Field(None, alias="all", min_length=1)
    any_: list[Name] | None = Field(None, alias="any", min_length=1)

    @model_validator(mode="after")
    def _check_one(self) -> CombinedRule:
        if sum(value is not None for value in (self.not_, self.all_, self.any_)) != 1:
            raise ValueError("must have one of not, all and any")
        return self

    @property
    def parts(self) -> list[str]:
        """The attributes it is made of."""
        return [self.not_] if self.not_ is not None else list(self.all_ or self.any_ or ())


class _Rule(dict[str, Any]):
    """A rule as it is written, and the name of the class that it is meant to be."""

    def __init__(self, rule: Mapping[str, Any], meant: str) -> None:
        super().__init__(rule)
        self.meant = meant


def _tag(rule: Any) -> str:
    if isinstance(rule, _Rule):
        return rule.meant
    return type(rule).__name__ if isinstance(rule, Section) else "ColumnRule"


AttributeRule = Annotated[
    Annotated[PromptRule, Tag("PromptRule")]
    | Annotated[ValueRule, Tag("ValueRule")]
    | Annotated[ThresholdRule, Tag("ThresholdRule")]
    | Annotated[CombinedRule, Tag("CombinedRule")]
    | Annotated[ColumnRule, Tag("ColumnRule")],
    Discriminator(_tag),
]


def _meant(keys: Mapping[str, Any], kind: str) -> str:
    """The class of a rule, from its keys, mistyped ones too, and from who labels where they leave it open."""
    near = {closest(str(key), ["column", "positive", "negative", "above", "below"]) for key in keys}
    if {"not", "all", "any"} & set(keys):
        return "CombinedRule"
    if near & {"above", "below"}:
        return "ThresholdRule"
    if near & {"positive", "negative"}:
        return "PromptRule" if "column" not in near and kind in ("clip", "avatars", "") else "ValueRule"
    return "PromptRule" if kind == "clip" and "column" not in near else "ColumnRule"


class LabelParams(Section):
    """Which attributes there are, and who says so."""

    source: Annotated[Annotations | ClipSource | ProbeSource | TruthSource, Field(discriminator="kind")]
    attributes: dict[Attribute, AttributeRule] = Field(min_length=1)

    @property
    def prompts(self) -> dict[str, tuple[list[str], list[str]]]:
        """Attribute to the words for images with it and without, where it has some."""
        rules = ((name, rule) for name, rule in self.attributes.items() if isinstance(rule, PromptRule))
        return {name: (rule.positive, rule.negative) for name, rule in rules}

    @property
    def templates(self) -> list[str]:
        """Sentences that the words are put into."""
        return self.source.templates if isinstance(self.source, ClipSource) else ["{}"]

    @field_validator("attributes", mode="before")
    @classmethod
    def _tell_rules_apart(cls, rules: Any, info: ValidationInfo) -> Any:
        """Decide what each rule is meant to be, so that a mistake in it is told once."""
        if not isinstance(rules, dict):
            return rules
        kind = getattr(info.data.get("source"), "kind", "")
        return {
            name: _Rule(rule, _meant(rule, kind)) if isinstance(rule, dict) else rule for name, rule in rules.items()
        }


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
    store_dtype: Literal["float16", "float32"]


class ObserveParams(Section):
    """The noise levels at which the guided edit follows the hyperplanes."""

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
    tweedie_projection: bool
    preserve: float = Field(ge=0)
    soft_threshold: float = Field(ge=0)
    region: Share
    num_draws: int = Field(ge=1)
    num_iterations: int = Field(ge=1)


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
    """What is edited, how far, and which way down."""

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


class BulkEditParams(Section):
    """A job of the flow `bulk_edit`: what is done with pictures that arrive."""

    dataset: Name
    inbox: str = Field(min_length=1)
    outbox: str = Field(min_length=1)
    edits: dict[Name, dict[Name, Literal["add", "remove", "flip"]]] = Field(min_length=1)
    strengths: Strengths
    min_probability: float | None = Field(gt=0, lt=1)


class EqualTarget(Section):
    """As many images with an attribute as without."""

    equal: Name


class IndependentTarget(Section):
    """Two attributes that say nothing of one another."""

    independent: tuple[Name, Name]


def _target_tag(target: Any) -> str:
    if isinstance(target, Section):
        return type(target).__name__
    return "IndependentTarget" if isinstance(target, dict) and "independent" in target else "EqualTarget"


class AugmentParams(Section):
    """A job of the flow `augment`: which balance a data set shall have, and what counts as a good edit."""

    dataset: Name
    target: Annotated[
        Annotated[EqualTarget, Tag("EqualTarget")] | Annotated[IndependentTarget, Tag("IndependentTarget")],
        Discriminator(_target_tag),
    ]
    split: Literal["train", "val", "test"]
    strengths: Strengths
    min_probability: float = Field(gt=0, lt=1)
    out: str = Field(min_length=1)


class Params(Section):
    """The whole of params.yaml.

    `bulk_edit` and `augment` are of flows of their own, and may be left out.
    """

    datasets: list[Name] = Field(min_length=1)
    run_seed: int = Field(ge=0)
    bulk_edit: dict[Name, BulkEditParams] = Field(default_factory=dict[Name, BulkEditParams])
    augment: dict[Name, AugmentParams] = Field(default_factory=dict[Name, AugmentParams])
    data: dict[Name, DatasetParams] = Field(min_length=1)

    @model_validator(mode="after")
    def _check_datasets(self) -> Params:
        for name in self.datasets:
            if name not in self.data:
                raise ValueError(f"datasets|{name!r} has no entry under data{nearest(name, list(self.data))}")
        for section, jobs in (("bulk_edit", self.bulk_edit), ("augment", self.augment)):
            for job, value in jobs.items():
                if value.dataset not in self.data:
                    hint = nearest(value.dataset, list(self.data))
                    raise ValueError(f"{section}.{job}.dataset|{value.dataset!r} has no entry under data{hint}")
        for job, value in self.augment.items():
            if isinstance(value.target, IndependentTarget) and len(set(value.target.independent)) == 1:
                raise ValueError(f"augment.{job}.target.independent|names one attribute twice, must be two")
        return self

    @cached_property
    def known(self) -> list[str]:
        """Names of all data sets that are described."""
        return list(self.data)

    def dataset(self, name: str) -> DatasetParams:
        """One data set's section.

        Raises:
            ParamsError: There is no such data set.
        """
        if name not in self.data:
            raise ParamsError(
                f"params.yaml: data has no entry {name!r}{nearest(name, self.known)}; add one or choose another"
            )
        return self.data[name]

    def bulk_edit_job(self, name: str) -> BulkEditParams:
        """A job of the flow `bulk_edit`.

        Raises:
            ParamsError: There is no such job.
        """
        return _job("bulk_edit", self.bulk_edit, name)

    def augment_job(self, name: str) -> AugmentParams:
        """A job of the flow `augment`.

        Raises:
            ParamsError: There is no such job.
        """
        return _job("augment", self.augment, name)


_Job = TypeVar("_Job", BulkEditParams, AugmentParams)


def _job(section: str, jobs: Mapping[str, _Job], name: str) -> _Job:
    if name not in jobs:
        hint = nearest(name, list(jobs))
        raise ParamsError(f"params.yaml: {section} has no job {name!r}{hint}; add one or choose another")
    return jobs[name]
