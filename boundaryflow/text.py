"""Text from files and file names, made fit to be shown."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any, cast

_HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
_VALUE = re.compile(r"([^&#=]+=)?[^&#=][^&#]*(?<![:;,.)])")
_JOINERS = "\u200c\u200d"  # emoji and several scripts are written with them


def visible(text: str, *, keep: str = "") -> str:
    r"""Replace what a terminal would obey or not show: control and format characters, and bytes that are no UTF-8.

    Args:
        text: From a file, a file name or another program.
        keep: Characters that stay as they are, such as a newline.

    Example:
        >>> visible("a\x1b[31mb")
        'a\\x1b[31mb'
        >>> visible("caf\udce9.png")
        'caf\\xe9.png'
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        c if c in keep or c in _JOINERS or unicodedata.category(c) not in _HIDDEN else _escaped(c) for c in text
    )


def masked(text: str) -> str:
    """Replace what may be secret in addresses: the user and password, and the values of a query.

    Args:
        text: An address, or any text that has some in it.

    Example:
        >>> masked("http://me:s3cret@host/faces?token=abc&list")
        'http://***@host/faces?token=***&***'
    """
    without_user = re.sub(r"(?<=://)[^/\s?#]+@", "***@", text)
    return re.sub(r"(://[^\s?]*\?)([^\s'\"<>]+)", lambda found: found[1] + _VALUE.sub(_hidden, found[2]), without_user)


def masked_values(content: Any) -> Any:
    """The same JSON-like content with every text in it `masked`."""
    if isinstance(content, str):
        return masked(content)
    if isinstance(content, Mapping):
        of_keys = cast("Mapping[Any, Any]", content)
        return {key: masked_values(value) for key, value in of_keys.items()}
    if isinstance(content, list | tuple):
        return [masked_values(value) for value in cast("Sequence[Any]", content)]
    return content


def _hidden(value: re.Match[str]) -> str:
    return f"{value[1] or ''}***"


def _escaped(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # how Python keeps a byte of a file name that is not UTF-8
        return f"\\x{code - 0xDC00:02x}"
    return f"\\x{code:02x}" if code <= 0xFF else f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"
