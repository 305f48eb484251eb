"""Defaults of params.yaml: stated once, for every data set; an entry says only how it differs."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

DEFAULTS = "defaults"
TAKEN_WHOLE = frozenset(("source", "split", "crop", "features", "mask", "attributes", "edits"))
"""Mappings that are taken as a whole: their keys belong together, or name things."""


def filled(defaults: Mapping[str, Any], entry: Any) -> Any:
    """A data set's entry with the defaults of what it does not state.

    Args:
        defaults: Section `defaults` of params.yaml.
        entry: Entry of `data`; anything but a mapping is returned as it is, for the check to refuse.
    """
    if not isinstance(entry, Mapping):
        return entry
    result = dict(defaults)
    for key, value in entry.items():
        default: Any = defaults.get(key)
        merged = isinstance(value, Mapping) and isinstance(default, Mapping) and key not in TAKEN_WHOLE
        result[key] = filled(default, value) if merged else value
    return result


def as_stated(line: str, defaults: Mapping[str, Any], entries: Mapping[str, Any]) -> str:
    """A line about `data.NAME.KEY` as one about `defaults.KEY`, where the value comes from there."""
    found = re.match(r"data\.([^.:]+)\.([^:]+)", line)
    entry = entries.get(found[1]) if found else None
    if found is None or not isinstance(entry, Mapping):
        return line
    keys = found[2].split(".")
    return f"{DEFAULTS}.{line[found.start(2) :]}" if is_default(keys, defaults, entry) else line


def is_default(keys: Sequence[str], defaults: Mapping[str, Any], entry: Mapping[str, Any]) -> bool:
    """Whether the value of nested keys is the default's: an entry does not state it, and the defaults do."""
    default: Any = defaults
    stated: Any = entry
    for key in keys:
        if not isinstance(default, Mapping) or key not in default:
            return False
        if stated is not None and (not isinstance(stated, Mapping) or key not in stated):
            stated = None
        elif stated is not None and (key in TAKEN_WHOLE or not isinstance(stated[key], Mapping)):
            return False
        else:
            stated = stated[key] if stated is not None else None
        default = default[key]
    return stated is None
