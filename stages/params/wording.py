"""How a mistake is told: key, what is wrong, value, nearest valid name."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from typing import Any, get_args, get_origin

from pydantic import BaseModel


def closest(name: str, names: Sequence[str]) -> str | None:
    """The name that was probably meant, if any comes close."""
    return next(iter(difflib.get_close_matches(name, names, 1)), None)


def nearest(name: str, names: Sequence[str]) -> str:
    """The end of a message about an unknown name: the one that was probably meant, else all there are."""
    meant = closest(name, names)
    if meant is not None:
        return f", did you mean {meant!r}?"
    return f"; there are {', '.join(sorted(names))}" if names else ""


def told(errors: Sequence[Any], model: type[BaseModel]) -> list[str]:
    """Pydantic's errors about a model, one line each; a mistyped key is not told as a missing one, too."""
    mistyped = {
        (*error["loc"][:-1], closest(str(error["loc"][-1]), _keys_beside(model, error["loc"])))
        for error in errors
        if error["type"] == "extra_forbidden"
    }
    lines = [_line(error, model) for error in errors if not (error["type"] == "missing" and error["loc"] in mistyped)]
    return list(dict.fromkeys(lines))


def _line(error: Any, model: type[BaseModel]) -> str:
    keys = [
        str(part) for before, part in zip(("", *error["loc"]), error["loc"], strict=False) if not _is_tag(before, part)
    ]
    key, message, value = ".".join(keys), error["msg"].removeprefix("Value error, "), error["input"]
    if error["type"] == "extra_forbidden":
        return f"{key}: unknown key{nearest(keys[-1], _keys_beside(model, error['loc']))} (got {value!r})"
    if error["type"] == "missing":
        return f"{key}: is missing; every value is stated in params.yaml"
    if error["type"] == "value_error" and "|" in message:
        inner, message = message.split("|", 1)
        return f"{'.'.join([*keys, inner])}: {message}"
    shown = "" if isinstance(value, dict | list) else f" (got {value!r})"
    return f"{key}: {message[0].lower()}{message[1:]}{shown}"


def _is_tag(before: str | int, part: str | int) -> bool:
    """Is this part of an error's place the name of a choice, and not a key of the file?"""
    return (
        before in ("source", "calibration", "annotations", "split", "target")
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
