"""The only reader of YAML that people write: within bounds, no key twice, and every mistake with its line."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode

from boundaryflow.errors import ParamsError
from boundaryflow.files import MAX_SETTINGS_BYTES, read_bytes
from boundaryflow.text import visible

MAX_BYTES = 2**20
MAX_VALUES = 50_000
_MAX_DEPTH = 40
_MAX_TEXT = 4096
_MAX_INTEGER = 2**63
_CONFLICT_BEGINS, _CONFLICT_ENDS = (re.compile(rf"^{mark}{{7}}(?: |\r?$)", re.MULTILINE) for mark in "<>")
_NOT_TEXT = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def read_text(path: Path, *, max_bytes: int = MAX_BYTES) -> str:
    """A settings file as text.

    Raises:
        ParamsError: It is not UTF-8, or holds the marks of an unresolved merge.
        RefusedFileError: It is no regular file, or too large.
        FileNotFoundError: It is not there.
    """
    data = read_bytes(path, max_bytes)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        where = f"{path} line {data.count(10, 0, error.start) + 1}"
        raise ParamsError(f"{where}: is not UTF-8 (byte 0x{data[error.start]:02x}); save it as UTF-8") from None
    conflict = _CONFLICT_BEGINS.search(text)
    if conflict is not None and _CONFLICT_ENDS.search(text, conflict.end()):
        line = text.count("\n", 0, conflict.start()) + 1
        raise ParamsError(f"{path} line {line}: merge conflict; resolve it (`git status` says how)")
    return text


def read_yaml(path: Path, *, max_bytes: int = MAX_BYTES, max_values: int = MAX_VALUES) -> Any:
    """Read a YAML file that a person may have written.

    Args:
        path: The file.
        max_bytes: A larger file is refused.
        max_values: Keys and values that it may have, each alias counted as all that it stands for.

    Raises:
        ParamsError: See `read_text`; it is not YAML, has a key twice, or exceeds the bounds.
        RefusedFileError: See `read_text`.
        FileNotFoundError: It is not there.
    """
    text = read_text(path, max_bytes=max_bytes)
    try:
        loader = _Loader(text, max_values)
        return loader.get_single_data()
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ParamsError(f"{path} line {line}: has a character that YAML does not allow; remove it") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        where = f" line {mark.line + 1}" if mark else ""
        problem = visible(str(getattr(error, "problem", None) or error).splitlines()[0])[:300]
        ours = isinstance(error, _RefusedError)
        raise ParamsError(f"{path}{where}: {'' if ours else 'is not YAML: '}{problem}") from None


def read_generated_yaml(path: Path) -> Any:
    """Read a YAML file that DVC writes, which is longer than what people write; see `read_yaml`."""
    return read_yaml(path, max_bytes=MAX_SETTINGS_BYTES, max_values=100 * MAX_VALUES)


def as_written(text: str) -> str:
    """Text as a YAML value that is read as this text again: in quotes where it would be read as a number or a truth."""
    try:
        plain = not text[:1].isdecimal() and yaml.safe_load(text) == text  # DVC's YAML reads 1e3 as a number, too
    except (yaml.YAMLError, ValueError):
        plain = False
    return text if plain else f'"{text}"'


class _RefusedError(yaml.MarkedYAMLError):
    """What YAML allows and we do not."""


def _refused(problem: str, at: Any) -> _RefusedError:
    return _RefusedError(problem=problem, problem_mark=at.start_mark)


class _Loader(yaml.SafeLoader):
    # The pure Python loader: the one in C descends without a limit, and ends the process.

    def __init__(self, text: str, max_values: int) -> None:
        super().__init__(text)
        self._left, self._max_values, self._depth = max_values, max_values, 0
        self._sizes: dict[str, int] = {}

    def compose_node(self, parent: Node | None, index: Any) -> Node | None:
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent):
            if event.anchor in self.anchors and event.anchor not in self._sizes:
                raise _refused(f"*{event.anchor} is part of itself; write the value out", event)
            self._take(self._sizes.get(event.anchor, 1), event)
            return super().compose_node(parent, index)
        self._take(1, event)
        before, self._depth = self._left + 1, self._depth + 1
        if self._depth > _MAX_DEPTH:
            raise _refused(f"is nested more than {_MAX_DEPTH} levels deep; write it flatter", event)
        node = super().compose_node(parent, index)
        self._depth -= 1
        if getattr(event, "anchor", None):
            self._sizes[event.anchor] = before - self._left
        return node

    def _take(self, num: int, event: Any) -> None:
        self._left -= num
        if self._left < 0:
            raise _refused(f"has more than {self._max_values:,} values; shorten it", event)

    def compose_mapping_node(self, anchor: Any) -> MappingNode:
        node = super().compose_mapping_node(anchor)
        lines: dict[tuple[str, str], int] = {}
        for key, _value in node.value:
            if not isinstance(key, ScalarNode):
                continue
            first = lines.get((key.tag, key.value))
            if first is not None:
                name = visible(key.value)[:80]
                raise _refused(f"has the key {name!r} a second time (first in line {first}); keep one", key)
            lines[key.tag, key.value] = key.start_mark.line + 1
        return node

    def compose_scalar_node(self, anchor: Any) -> ScalarNode:
        node = super().compose_scalar_node(anchor)
        if len(node.value) > _MAX_TEXT:
            raise _refused(f"has a text of {len(node.value):,} characters, at most {_MAX_TEXT:,} are read", node)
        if _NOT_TEXT.search(node.value):
            raise _refused("has a text with a control character; remove it", node)
        return node

    def construct_object(self, node: Node, deep: bool = False) -> Any:
        try:
            value = super().construct_object(node, deep)
        except ValueError:  # PyYAML lets through what int, float and date make of a scalar
            shown = visible(str(node.value))[:40]
            raise _refused(f"{shown!r} is neither a readable date nor a number; put it in quotes", node) from None
        if isinstance(value, set | bytes):
            kind = type(value).__name__
            raise _refused(f"has a value of kind {kind}, which is not read; write a list or a mapping", node)
        if isinstance(value, int) and abs(value) >= _MAX_INTEGER:
            raise _refused("has a number that does not fit into 64 bits; lower it", node)
        return value
