"""Who knows the attributes: a class for each kind, with its rules for the attributes.

What people have said is in `annotations.py`; here are the networks, some of which learn from it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Annotated, Literal

from pydantic import Field

from boundaryflow.config.annotations import Annotations, CsvSource, LabelKind
from boundaryflow.config.label_rules import AttributeRule, ColumnRule, PromptRule
from boundaryflow.config.wording import nearest


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
