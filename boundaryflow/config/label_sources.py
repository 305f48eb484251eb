"""Who knows the attributes: a class for each kind, with its rules for the attributes.

Another kind of annotations is a class here and in `Annotations`, and its reader in `sources/annotations.py`;
`tests/contract/test_kinds.py` says what is missing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from boundaryflow.config.base import RawPath, Section
from boundaryflow.config.label_rules import (
    AttributeRule,
    ColumnRule,
    PromptRule,
    ThresholdRule,
    ValueRule,
)
from boundaryflow.config.wording import nearest


class LabelKind(Section):
    """What a kind of label source may say differently.

    Attributes:
        rules: The rules of attributes that it can follow, beside those made of other attributes.
        needs: The same in words.
        names_attributes: Whether what is read has a column of each attribute's name, as `calibration` needs.
    """

    rules: ClassVar[tuple[type[Section], ...]] = (ValueRule, ThresholdRule, ColumnRule)
    needs: ClassVar[str] = "a column"
    names_attributes: ClassVar[bool] = False

    @property
    def read_from(self) -> LabelKind:
        """The source that the rules are of: another one, where this one learns from it."""
        return self

    @property
    def clip_weights(self) -> str | None:
        """The CLIP model that labels, if one does."""
        return None

    @property
    def network(self) -> str | None:
        """The file or folder of the networks that label, if any do."""
        return self.clip_weights

    def files(self) -> Iterator[tuple[str, str]]:
        """Keys, within the source, and paths of what is read from beside the images."""
        yield from ()

    def disagreements(self, attributes: Collection[str]) -> Iterator[str]:
        """Lines `key: what is wrong`, the key within the data set."""
        yield from ()

    def about_rule(self, name: str, rule: AttributeRule) -> Iterator[str]:
        """What is wrong with an attribute's rule here: texts that follow its key."""
        yield from ()


class CsvSource(LabelKind):
    """A table with a row per image: CSV, TSV, Parquet or JSON lines; its path, or a pattern, within data/raw/NAME."""

    names_attributes = True
    kind: Literal["csv"]
    path: RawPath
    file_column: str

    def files(self) -> Iterator[tuple[str, str]]:
        """See `LabelKind`."""
        yield "path", self.path

    def about_rule(self, name: str, rule: AttributeRule) -> Iterator[str]:
        """See `LabelKind`."""
        if isinstance(rule, ValueRule | ThresholdRule | ColumnRule) and (rule.column or name) == self.file_column:
            yield f".column: {self.file_column!r} is the column of file names; name the one with the values"


class LongSource(LabelKind):
    """A table with a row per image and attribute."""

    needs = "a column (the attribute's name in the table)"
    names_attributes = True
    kind: Literal["long"]
    path: RawPath
    file_column: str
    attribute_column: str
    value_column: str

    def files(self) -> Iterator[tuple[str, str]]:
        """See `LabelKind`."""
        yield "path", self.path

    def disagreements(self, attributes: Collection[str]) -> Iterator[str]:
        """See `LabelKind`."""
        three = [self.file_column, self.attribute_column, self.value_column]
        if twice := next((column for column in three if three.count(column) > 1), None):
            yield f"label.source: {twice!r} is two of file_column, attribute_column and value_column; name three"


class CelebaSource(LabelKind):
    """The annotation file of CelebA, CelebA-HQ or CelebAMask-HQ.

    `mapping` is CelebA-HQ-to-CelebA-mapping.txt, where the images have CelebA-HQ's numbers and the
    annotations CelebA's.
    """

    needs = "a column (the attribute's name in the file)"
    names_attributes = True
    kind: Literal["celeba"]
    path: RawPath
    mapping: RawPath | None

    def files(self) -> Iterator[tuple[str, str]]:
        """See `LabelKind`."""
        yield "path", self.path
        if self.mapping is not None:
            yield "mapping", self.mapping


class FolderLabels(LabelKind):
    """Folders as labels: the column `folder` is the name of the folder that an image lies in."""

    rules = (ValueRule,)
    needs = "column: folder with positive and negative folder names"
    kind: Literal["folders"]

    def about_rule(self, name: str, rule: AttributeRule) -> Iterator[str]:
        """See `LabelKind`."""
        if isinstance(rule, ValueRule) and rule.column != "folder":
            yield f".column: is {rule.column!r}, must be folder; folders have no other column"


Annotations = CsvSource | LongSource | CelebaSource | FolderLabels
"""What people have said of images."""


class CalibratedKind(LabelKind):
    """A network labels; with `calibration` its scores are fitted to annotations of some of the images."""

    calibration: Annotated[Annotations, Field(discriminator="kind")] | None

    def files(self) -> Iterator[tuple[str, str]]:
        """See `LabelKind`."""
        if self.calibration is not None:
            yield from ((f"calibration.{key}", path) for key, path in self.calibration.files())

    def disagreements(self, attributes: Collection[str]) -> Iterator[str]:
        """See `LabelKind`."""
        if isinstance(self.calibration, CsvSource) and self.calibration.file_column in attributes:
            column = self.calibration.file_column
            yield f"label.source.calibration.file_column: {column!r} is an attribute; name the column of file names"
        if self.calibration is not None and not self.calibration.names_attributes:
            yield (
                f"label.source.calibration: kind {self.calibration.kind} has no column of each attribute's name; use "
                "csv, long or celeba, or set it to null"
            )


class ClipSource(CalibratedKind):
    """Labels from words, by a CLIP model.

    Every prompt is put into every template. `temperature` divides cosines; null is the model's
    own. With `calibration` a temperature and an offset of each attribute are fitted to annotations
    of some of the images.
    """

    rules = (PromptRule,)
    needs = "positive and negative prompts"
    kind: Literal["clip"]
    weights: str
    templates: list[str] = Field(min_length=1)
    temperature: float | None = Field(gt=0)

    @property
    def clip_weights(self) -> str | None:
        """See `LabelKind`."""
        return self.weights

    def disagreements(self, attributes: Collection[str]) -> Iterator[str]:
        """See `LabelKind`."""
        yield from super().disagreements(attributes)
        for template in self.templates:
            if template.count("{}") != 1:
                yield f"label.source.templates: {template!r} must contain {{}} once, where the prompt goes"


class ClassifierSource(CalibratedKind):
    """Labels by networks that know the attributes already: a folder as that of `evaluate.judges`.

    With `calibration` as for `ClipSource`, from columns of the attributes' own names.
    """

    rules = (ColumnRule,)
    needs = "a column (the attribute's name in the classifier; null for its own)"
    kind: Literal["classifier"]
    weights: str

    @property
    def network(self) -> str | None:
        """See `LabelKind`."""
        return self.weights


class ProbeSource(LabelKind):
    """Annotations of some of the images, and for the rest a logistic regression on their CLIP features."""

    kind: Literal["probe"]
    weights: str
    annotations: Annotated[Annotations, Field(discriminator="kind")]
    num_folds: int = Field(ge=2, le=20)

    @property
    def read_from(self) -> LabelKind:
        """See `LabelKind`."""
        return self.annotations

    @property
    def clip_weights(self) -> str | None:
        """See `LabelKind`."""
        return self.weights

    def files(self) -> Iterator[tuple[str, str]]:
        """See `LabelKind`."""
        yield from ((f"annotations.{key}", path) for key, path in self.annotations.files())

    def disagreements(self, attributes: Collection[str]) -> Iterator[str]:
        """See `LabelKind`."""
        yield from self.annotations.disagreements(attributes)


class TruthSource(LabelKind):
    """What the renderer knows of its own faces."""

    rules = (ColumnRule, PromptRule)
    needs = "column: null or prompts"
    kind: Literal["avatars"]

    def about_rule(self, name: str, rule: AttributeRule) -> Iterator[str]:
        """See `LabelKind`."""
        from boundaryflow.avatars import ATTRIBUTES

        if name not in ATTRIBUTES:
            yield f": the renderer has no such attribute{nearest(name, ATTRIBUTES)}"


LabelSource = Annotated[
    Annotations | ClipSource | ProbeSource | ClassifierSource | TruthSource, Field(discriminator="kind")
]
