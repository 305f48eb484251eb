"""What the sections of params.yaml are made of: names, paths, shares, strengths."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

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


def _layer(name: str) -> str:
    if re.fullmatch(r"\w[\w.-]{0,199}", name) is None:
        raise ValueError("must name a module of the network, such as up_blocks.1.resnets.1")
    return name


Layer = Annotated[str, AfterValidator(_layer)]
"""Name of a module within a network; it becomes part of the names of tensors in files."""
Share = Annotated[float, Field(ge=0, le=1)]
MAX_STRENGTH = 1000.0  # the authors' release goes to 150 with edit.method single_step


def alike(strengths: Sequence[float]) -> str:
    """The first strength that files and tables, which keep six digits, would take for an earlier one; empty if none."""
    told = [f"{strength + 0.0:g}" for strength in strengths]  # no -0
    return next((text for position, text in enumerate(told) if text in told[:position]), "")


def _distinct(strengths: list[float]) -> list[float]:
    if twice := alike(strengths):
        raise ValueError(f"{twice} occurs twice (results are named by six digits of a strength); keep one")
    return strengths


Strengths = Annotated[
    list[Annotated[float, Field(ge=-MAX_STRENGTH, le=MAX_STRENGTH)]],
    Field(min_length=1, max_length=101),
    AfterValidator(_distinct),
]


class Section(BaseModel):
    """A part of params.yaml: no unknown keys, no defaults, no NaN or infinity, never changed."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
