"""docs/parameters.md has a row for every value of params.yaml, with the range that is checked."""

from __future__ import annotations

import re
from collections.abc import Iterator
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pytest
from annotated_types import Ge, Gt, Le, Lt
from pydantic.fields import FieldInfo

from boundaryflow.config.base import Section
from boundaryflow.config.params import AugmentParams, BulkEditParams
from boundaryflow.config.sections import DatasetParams
from tests.conftest import ROOT

_WHOLE = ("ingest.source", "ingest.split", "ingest.crop", "label.attributes", "label.source")
"""Explained as a whole: their kinds have keys of their own."""


def _rows() -> dict[str, str]:
    """Key to its cell of values."""
    found: dict[str, str] = {}
    for line in (ROOT / "docs/parameters.md").read_text().splitlines():
        row = re.match(r"\| (`[^|]+`) \| ([^|]*) \| .* \|$", line)
        if row:
            first, *more = row[1].replace("`", "").split(", ")
            folder = first.rpartition(".")[0]
            found |= {first: row[2], **{key if "." in key else f"{folder}.{key}": row[2] for key in more}}
    return found


def _parts(annotation: Any) -> Iterator[tuple[Any, tuple[Any, ...]]]:
    """Types of a union, each with what is annotated to it."""
    if get_origin(annotation) is Annotated:
        for kind, more in _parts(get_args(annotation)[0]):
            yield kind, (*more, *get_args(annotation)[1:])
    elif get_origin(annotation) in (Union, UnionType):
        for part in get_args(annotation):
            yield from _parts(part)
    else:
        yield annotation, ()


def _values(model: type[Section], prefix: str) -> Iterator[tuple[str, FieldInfo]]:
    for name, field in model.model_fields.items():
        key = f"{prefix}{name}"
        nested = [kind for kind, _ in _parts(field.annotation) if isinstance(kind, type) and issubclass(kind, Section)]
        if nested and key not in _WHOLE:
            for kind in nested:
                yield from _values(kind, f"{key}.")
        else:
            yield key, field


def _wording(field: FieldInfo) -> list[str]:
    """What the cell must say of a number, a choice, a truth, and null."""
    said: list[str] = []
    for kind, more in _parts(field.annotation):
        bounds = {type(bound): bound for bound in (*field.metadata, *more) if isinstance(bound, Ge | Gt | Le | Lt)}
        if kind in (int, float) and bounds:
            said.append(_range(bounds))
        elif kind is bool:
            said.append("true, false")
        elif kind is NoneType:
            said.append("null")
        elif get_origin(kind) is Literal:
            said += [str(value) for value in get_args(kind)]
    return said


def _range(bounds: dict[type, Any]) -> str:
    low = bounds[Ge].ge if Ge in bounds else bounds[Gt].gt
    if Lt in bounds:
        high = bounds[Lt].lt
        return f"{low:g} to under {high:g}" if Ge in bounds else f"between {low:g} and {high:g}"
    if Le in bounds:
        return f"{low:g} to {bounds[Le].le:g}"
    return f"{low:g} or more" if Ge in bounds else f"above {low:g}"


_ALL = [
    *_values(DatasetParams, ""),
    *_values(BulkEditParams, "bulk_edit.NAME."),
    *_values(AugmentParams, "augment.NAME."),
]


@pytest.mark.parametrize(("key", "field"), _ALL, ids=[key for key, _ in _ALL])
def test_value_has_a_row_with_its_range(key: str, field: FieldInfo) -> None:
    rows = _rows()
    whole = next((row for row in (key, key.rpartition(".")[0]) if row in rows), None)
    assert whole is not None, f"docs/parameters.md has no row for {key}"
    if whole == key and key not in _WHOLE:
        assert [words for words in _wording(field) if words not in rows[key]] == []


def test_every_row_is_a_value() -> None:
    known = {key for key, _ in _ALL}
    sections = {key.rpartition(".")[0] for key in known}
    variables = re.compile(r"[A-Z_]+$")
    unknown = {
        row
        for row in _rows()
        if not (row in known or row in sections or variables.match(row) or row.startswith(_WHOLE))
    }
    assert unknown <= {"datasets", "run_seed", "bulk_edit.NAME", "augment.NAME", "defaults", "data.NAME"}
