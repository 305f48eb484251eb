"""Section label: which attributes there are, and who says so."""

from __future__ import annotations

from typing import Any

from pydantic import Field, ValidationInfo, field_validator

from boundaryflow.config.base import Attribute, Section
from boundaryflow.config.label_rules import AttributeRule, PromptRule, WrittenRule, meant_by
from boundaryflow.config.label_sources import ClipSource, LabelSource


class LabelParams(Section):
    """Which attributes there are, and who says so."""

    source: LabelSource
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
            name: WrittenRule(rule, meant_by(rule, kind)) if isinstance(rule, dict) else rule
            for name, rule in rules.items()
        }
