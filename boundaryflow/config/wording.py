"""How a mistake is told: key, what is wrong, value, nearest valid name."""

from __future__ import annotations

import difflib
import re
import reprlib
from collections.abc import Iterator, Sequence
from datetime import date
from typing import Any, get_args, get_origin

from pydantic import BaseModel

_RENAMED = {
    ("guided", "hold"): "preserve",
    ("guided", "look_ahead"): "tweedie_projection",
    ("guided", "num_passes"): "num_iterations",
    ("guided", "sparsity"): "soft_threshold",
    ("edit", "correction"): "residuals",
}
"""Section and key that earlier versions had to the name that the key has now."""

_MAX_LINES, _MAX_NAMES, _MAX_NAME, _MAX_SHOWN = 20, 20, 100, 200
_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxother = 2, 80, 80


def shown(value: object) -> str:
    """A value as a message shows it, cut short where it is long."""
    return _SHORT.repr(value)[:_MAX_SHOWN]


def closest(name: str, names: Sequence[str]) -> str | None:
    """The name that was probably meant, if any comes close."""
    return next(iter(difflib.get_close_matches(name[:_MAX_NAME], names[:1000], 1)), None)


def nearest(name: str, names: Sequence[str]) -> str:
    """The end of a message about an unknown name: the one that was probably meant, else all there are."""
    meant = closest(name, names)
    if meant is not None:
        return f", did you mean {meant!r}?"
    more = f" and {len(names) - _MAX_NAMES} more" if len(names) > _MAX_NAMES else ""
    return f"; there are {', '.join(sorted(names)[:_MAX_NAMES])}{more}" if names else ""


def _new_name(place: Sequence[str | int]) -> str | None:
    return _RENAMED.get((str(place[-2]), str(place[-1]))) if len(place) > 1 else None


def told(errors: Sequence[Any], model: type[BaseModel]) -> list[str]:
    """Pydantic's errors about a model, one line each; a mistyped key, and what is below it, is not told as missing."""
    num_more, errors = max(0, len(errors) - _MAX_LINES), errors[:_MAX_LINES]
    mistyped = {
        (
            *error["loc"][:-1],
            _new_name(error["loc"]) or closest(str(error["loc"][-1]), _keys_beside(model, error["loc"])),
        )
        for error in errors
        if error["type"] == "extra_forbidden"
    }
    lines = [
        _line(error, model)
        for error in errors
        if not (error["type"] == "missing" and any(error["loc"][: len(place)] == place for place in mistyped))
    ]
    return [*dict.fromkeys(lines), *([f"and {num_more} more mistakes"] if num_more else [])]


def _line(error: Any, model: type[BaseModel]) -> str:
    place = zip(("", *error["loc"]), error["loc"], strict=False)
    keys = [str(part)[:_MAX_NAME] for before, part in place if not _is_tag(before, part)]
    key, message = ".".join(keys), error["msg"].removeprefix("Value error, ")
    value = shown(error["input"])
    got = "" if isinstance(error["input"], dict | list) else f" (got {value})"
    if error["type"] == "extra_forbidden" and (name := _new_name(error["loc"])):
        return f"{key}: is called {name} now; rename it (got {value})"
    if error["type"] == "extra_forbidden":
        return f"{key}: unknown key{nearest(keys[-1], _keys_beside(model, error['loc']))} (got {value})"
    if error["type"] == "missing":
        return f"{key}: is missing; state it there, or in defaults"
    if error["type"] == "union_tag_invalid" and "expected_tags" in error["ctx"]:
        kinds = re.findall(r"'([^']*)'", error["ctx"]["expected_tags"])
        return f"{key}.kind: there is no kind {shown(error['ctx']['tag'])}{nearest(str(error['ctx']['tag']), kinds)}"
    if error["type"] == "union_tag_not_found":
        return f"{key}: must be a mapping with the key kind; docs/parameters.md lists the kinds{got}"
    if error["type"] == "value_error" and "|" in message:
        inner, message = message.split("|", 1)
        return f"{'.'.join([*keys, inner])}: {message}"
    if error["type"] == "string_pattern_mismatch":
        message = "must be letters, digits, _ and -, at most 64 and no mark first"
    if error["type"] == "string_type" and isinstance(error["input"], int | float | date):
        message += "; write it in quotes"
    return f"{key}: {message[0].lower()}{message[1:]}{got}"


def _is_tag(before: str | int, part: str | int) -> bool:
    """Is this part of an error's place the name of a choice, and not a key of the file?"""
    return (
        part == "[key]"
        or before in ("source", "calibration", "annotations", "split", "target")
        or (before, part) in (("val", "share"), ("val", "folders"), ("test", "share"), ("test", "folders"))
        or str(part).endswith("Rule")
    )


def _keys_beside(model: type[BaseModel], place: Sequence[str | int]) -> list[str]:
    """Keys that are allowed where an unknown one was found."""
    kind: Any = model
    for part in place[:-1]:
        kind = _inside(kind, part)
    return list(kind.model_fields) if _is_model(kind) else []


def _inside(kind: Any, part: str | int) -> Any:
    """The type of a field of a model, of a choice by its name, or of an entry of a dictionary or list."""
    if _is_model(kind):
        field = kind.model_fields.get(str(part))
        return field.annotation if field else None
    if get_origin(kind) in (dict, list):
        return get_args(kind)[-1]
    for choice in _models_in(kind):
        tag = choice.model_fields.get("kind")
        if choice.__name__ == part or (tag and part in get_args(tag.annotation)):
            return choice
    return None


def _models_in(kind: Any) -> Iterator[type[BaseModel]]:
    if _is_model(kind):
        yield kind
    for argument in get_args(kind):
        yield from _models_in(argument)


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)
