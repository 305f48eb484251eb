"""How edited pictures are delivered."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from boundaryflow.config.base import Section
from boundaryflow.config.wording import told
from boundaryflow.errors import ParamsError

Suffix = Annotated[str, Field(max_length=64)]
Deliver = Literal["original", "model"]
FormatName = Literal["png", "jpeg", "webp", "source"]
Metadata = Literal["drop", "keep"]


class DeliveryParams(Section):
    """What a delivered picture is; the keys are younger than others, params.yaml files lack them."""

    deliver: Deliver | None = None
    format: FormatName = "png"
    quality: int | None = Field(default=None, ge=1, le=100)
    metadata: Metadata = "drop"

    @model_validator(mode="after")
    def _check(self) -> DeliveryParams:
        if self.quality is not None and self.format == "png":
            raise ValueError(
                f"quality|is {self.quality}, but PNG has none; choose format jpeg, webp or source, or null"
            )
        if self.metadata == "keep" and self.deliver == "model":
            raise ValueError("metadata|is keep, but the model's pictures have none; choose drop, or deliver: original")
        return self


class NamedDeliveryParams(DeliveryParams):
    """The same, with the names of the files."""

    names: Literal["item", "source"] = "item"
    suffix: Suffix = ""

    @model_validator(mode="after")
    def _check_suffix(self) -> NamedDeliveryParams:
        if self.suffix and self.names == "item":
            raise ValueError(f"suffix|is {self.suffix!r}, but names is item; choose names: source, or no suffix")
        if not all(letter.isalnum() or letter in "_-.+= " for letter in self.suffix):
            raise ValueError(f"suffix|is {self.suffix!r}, must be letters, digits and _ - . + =")
        return self


def delivery_of(command: str, **values: Any) -> NamedDeliveryParams:
    """The values that a command line gives; those that it leaves out are the defaults.

    Raises:
        ParamsError: A value is out of range, or does not go with another.
    """
    try:
        return NamedDeliveryParams(**values)
    except ValidationError as error:
        lines = "; ".join(told(error.errors(), NamedDeliveryParams))
        raise ParamsError(f"{command}: --{lines}") from None
