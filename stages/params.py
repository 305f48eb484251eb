"""The only reader of params.yaml: every value that changes a result, checked before anything runs."""

from __future__ import annotations

import difflib
import re
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from boundaryflow.errors import ParamsError
from boundaryflow.files import write_bytes

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]
Share = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    """A part of params.yaml: no unknown keys, no defaults, never changed."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class AvatarSource(Section):
    """The built-in renderer."""

    kind: Literal["avatars"]
    num_images: int = Field(ge=8)
    seed: int = Field(ge=0)
    rates: dict[str, Share]
    correlations: dict[str, Annotated[float, Field(ge=-1, le=1)]]


class FolderSource(Section):
    """The user's own images, in data/raw/NAME; a link to a folder elsewhere will do."""

    kind: Literal["folder"]


class Split(Section):
    """Shares of the images held out from fitting; the rest is for training."""

    val: Share
    test: Share


class IngestParams(Section):
    """Images in, pixels out."""

    source: Annotated[AvatarSource | FolderSource, Field(discriminator="kind")]
    image_size: int = Field(ge=8, le=1024)
    channels: Literal[1, 3]
    fit: Literal["crop", "pad", "stretch"]
    background: tuple[Annotated[int, Field(ge=0, le=255)], ...] = Field(min_length=3, max_length=3)
    split: Split
    shard_size: int = Field(ge=1)
    max_failed_items: int = Field(ge=0)


class ClipSource(Section):
    """Labels from words, by a CLIP model."""

    kind: Literal["clip"]
    weights: str


class CsvSource(Section):
    """Labels from an annotation file; its path is relative to data/raw/NAME."""

    kind: Literal["csv"]
    path: str
    file_column: str


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


AttributeRule = PromptRule | ValueRule | ThresholdRule | ColumnRule


class LabelParams(Section):
    """Which attributes there are, and who says so."""

    source: Annotated[ClipSource | CsvSource | TruthSource, Field(discriminator="kind")]
    attributes: dict[Name, AttributeRule] = Field(min_length=1)


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
    store_dtype: Literal["float16", "float32"]


class BoundaryParams(Section):
    """The hyperplanes."""

    spaces: list[Literal["eps", "h"]] = Field(min_length=1)
    c: float = Field(gt=0)
    num_bootstraps: int = Field(ge=0, le=1000)
    min_confidence: float = Field(ge=0.5, lt=1)


class EditParams(Section):
    """What is edited, how far, and which way down."""

    split: Literal["train", "val", "test"]
    max_images: int = Field(ge=1)
    num_steps: int = Field(ge=2, le=1000)
    eta: Share
    correction: bool
    eps_scale: float = Field(ge=0)
    h_scale: float = Field(ge=0)
    h_window: tuple[Share, Share]
    strengths: list[float] = Field(min_length=1)
    edits: dict[Name, dict[Name, Literal["add", "remove", "flip"]]] = Field(min_length=1)


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
    boundary: BoundaryParams
    edit: EditParams
    evaluate: EvaluateParams
    report: ReportParams

    @model_validator(mode="after")
    def _check_together(self) -> DatasetParams:
        """Values that must agree with one another; a message starts with its key and a bar."""
        if self.ingest.split.val + self.ingest.split.test >= 1:
            raise ValueError("ingest.split|val and test leave nothing to train on; their sum must be under 1")
        if self.mixing.min_t > self.mixing.max_t:
            raise ValueError(f"mixing.min_t|is {self.mixing.min_t}, must not be above max_t ({self.mixing.max_t})")
        if self.mixing.rule == "fixed" and self.mixing.fixed_t is None:
            raise ValueError("mixing.fixed_t|is null, must be a timestep in [1, 999] with rule: fixed")
        if self.edit.h_window[0] < self.edit.h_window[1]:
            raise ValueError("edit.h_window|must go from the noisy end down, such as [1.0, 0.3]")
        for space, scale in (("eps", self.edit.eps_scale), ("h", self.edit.h_scale)):
            if scale > 0 and space not in self.boundary.spaces:
                raise ValueError(f"edit.{space}_scale|is {scale}, but boundary.spaces has no {space}; add it or set 0")
        known = list(self.label.attributes)
        for edit, targets in self.edit.edits.items():
            for attribute in targets:
                if attribute not in known:
                    raise ValueError(
                        f"edit.edits.{edit}|attribute {attribute!r} is labelled by nobody{_nearest(attribute, known)}"
                    )
        self._check_rules()
        return self

    def _check_rules(self) -> None:
        wanted: dict[str, tuple[type[Section], ...]] = {
            "clip": (PromptRule,),
            "csv": (ValueRule, ThresholdRule, ColumnRule),
            "avatars": (ColumnRule, PromptRule),
        }
        for attribute, rule in self.label.attributes.items():
            if not isinstance(rule, wanted[self.label.source.kind]):
                raise ValueError(
                    f"label.attributes.{attribute}|does not fit source kind {self.label.source.kind!r}: "
                    "clip needs positive and negative prompts, csv a column"
                )


class Params(Section):
    """The whole of params.yaml."""

    datasets: list[Name] = Field(min_length=1)
    run_seed: int = Field(ge=0)
    data: dict[Name, DatasetParams] = Field(min_length=1)

    @model_validator(mode="after")
    def _check_datasets(self) -> Params:
        for name in self.datasets:
            if name not in self.data:
                raise ValueError(f"datasets|{name!r} has no entry under data{_nearest(name, list(self.data))}")
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
                f"params.yaml: data has no entry {name!r}{_nearest(name, self.known)}; add one or choose another"
            )
        return self.data[name]


def load_params(root: Path = Path()) -> Params:
    """Read and check params.yaml, and that the files it names are there.

    Raises:
        ParamsError: One line per mistake: file, key, value, rule, nearest valid name.
    """
    path = root / "params.yaml"
    try:
        content = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise ParamsError(f"{path}: no such file; run the command in the folder that has it") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}" if mark else ""
        raise ParamsError(f"{path}:{where} is not YAML: {getattr(error, 'problem', error)}") from None
    try:
        params = TypeAdapter(Params).validate_python(content)
    except ValidationError as error:
        lines = dict.fromkeys(_line(details) for details in error.errors())
        raise ParamsError("\n".join(f"{path}: {line}" for line in lines)) from None
    mistakes = [line for name in params.datasets for line in _missing_files(root, name, params.data[name])]
    if mistakes:
        raise ParamsError("\n".join(f"{path}: {line}" for line in mistakes))
    return params


def _line(details: Any) -> str:
    """One validation error as: key, what is wrong, value, nearest valid name."""
    place = [
        str(part)
        for before, part in zip(("", *details["loc"]), details["loc"], strict=False)
        if not _is_tag(before, part)
    ]
    message, value = details["msg"].removeprefix("Value error, "), details["input"]
    if "|" in message and details["type"] == "value_error":
        key, message = message.split("|", 1)
        return f"{'.'.join([*place, key])}: {message}"
    if details["type"] == "extra_forbidden":
        return f"{'.'.join(place)}: unknown key{_nearest(place[-1], _keys_beside(details['loc']))} (got {value!r})"
    if details["type"] == "missing":
        return f"{'.'.join(place)}: is missing; every value is stated in params.yaml"
    shown = "" if isinstance(value, dict | list) else f" (got {value!r})"
    return f"{'.'.join(place)}: {message[0].lower()}{message[1:]}{shown}"


def _is_tag(before: str | int, part: str | int) -> bool:
    """Is this part of an error's place the name of a choice, and not a key of the file?"""
    return before == "source" or str(part).endswith("Rule")


def _keys_beside(place: tuple[str | int, ...]) -> list[str]:
    """Keys that are allowed where an unknown one was found."""
    model: Any = Params
    for part in place[:-1]:
        model = _step(model, part)
        if model is None:
            return []
    return list(model.model_fields) if isinstance(model, type) and issubclass(model, BaseModel) else []


def _step(model: Any, part: str | int) -> Any:
    if isinstance(model, type) and issubclass(model, BaseModel):
        field = model.model_fields.get(str(part))
        return field.annotation if field else None
    arguments = get_args(model)
    for argument in arguments:
        inner = get_args(argument)[0] if get_args(argument) and not isinstance(argument, type) else argument
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            kind = inner.model_fields.get("kind")
            if inner.__name__ == part or (kind and part in get_args(kind.annotation)):
                return inner
    return arguments[-1] if len(arguments) == 2 else None


def _nearest(name: str, names: list[str]) -> str:
    close = difflib.get_close_matches(name, names, 1)
    if close:
        return f", did you mean {close[0]!r}?"
    return f"; there are {', '.join(sorted(names))}" if names else ""


def _missing_files(root: Path, name: str, dataset: DatasetParams) -> list[str]:
    lines: list[str] = []
    for key, value in (
        ("model", dataset.model),
        ("label.source.weights", getattr(dataset.label.source, "weights", None)),
        ("evaluate.judges", dataset.evaluate.judges),
        ("evaluate.clip", dataset.evaluate.clip),
    ):
        if value and _looks_like_path(value) and not (root / value).exists():
            lines.append(f"data.{name}.{key}: {value} does not exist; give an existing path")
    return lines


def _looks_like_path(value: str) -> bool:
    """Hub ids and OpenAI's model names are not files."""
    return value.startswith((".", "/", "~", "data/")) or Path(value).suffix in (".pt", ".csv", ".tsv", ".parquet")


def activate_dataset(path: Path, name: str) -> None:
    """Add a data set to the list `datasets` of params.yaml, leaving all else as it is written.

    Raises:
        ParamsError: The list is not written on one line.
    """
    text = path.read_text()
    found = re.search(r"^datasets:[ \t]*\[(?P<names>[^\]\n]*)\]", text, re.MULTILINE)
    if found is None:
        raise ParamsError(
            f"{path}: datasets: must be written on one line, such as datasets: [avatars]; add {name} by hand"
        )
    names = ", ".join([*(n for n in (n.strip() for n in found["names"].split(",")) if n), name])
    write_bytes(path, f"{text[: found.start()]}datasets: [{names}]{text[found.end() :]}".encode())
