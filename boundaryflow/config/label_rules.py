"""How an attribute is read from what a source of labels says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import ConfigDict, Discriminator, Field, Tag, model_validator

from boundaryflow.config.base import Name, Section
from boundaryflow.config.wording import closest


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


class WrittenRule(dict[str, Any]):
    """A rule as it is written, and the name of the class that it is meant to be."""

    def __init__(self, rule: Mapping[str, Any], meant: str) -> None:
        super().__init__(rule)
        self.meant = meant


def _tag(rule: Any) -> str:
    if isinstance(rule, WrittenRule):
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


def meant_by(keys: Mapping[str, Any], kind: str) -> str:
    """The class of a rule, from its keys, mistyped ones too, and from who labels where they leave it open."""
    near = {closest(str(key), ["column", "positive", "negative", "above", "below"]) for key in keys}
    if {"not", "all", "any"} & set(keys):
        return "CombinedRule"
    if near & {"above", "below"}:
        return "ThresholdRule"
    if near & {"positive", "negative"}:
        return "PromptRule" if "column" not in near and kind in ("clip", "avatars", "") else "ValueRule"
    return "PromptRule" if kind == "clip" and "column" not in near else "ColumnRule"
