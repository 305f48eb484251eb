"""Makes text from files and file names safe to show, and comparable."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any, cast

_HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
_SCHEME = r"((?:\w\w:/|://)/*(?!\[[\da-fA-F:.]*\]))"  # an address of IPv6 has colons and no user
_USER = (  # bounded, as a hostile name may be long and full of colons
    # Up to the last @ of the word, as a password may contain any separator; not into a chained address.
    re.compile(_SCHEME + r"(?=[^\s/?#:@]{0,2000}[:@])(?:(?!::\w[\w+.-]*:/)\S){0,2000}@"),
    # With blanks in the password. A port or the end of a phrase after a colon is not a password.
    re.compile(_SCHEME + r"[^\s/?#@:]{1,2000}:(?!\d*(?:[\s/:;,.)'\"]|$))(?:(?!://)[^\n]){0,2000}@"),
    # Without a scheme; not times of day or Windows paths.
    re.compile(
        r"((?:^|(?<=[\s'\"=(,\[<])))(?!mailto:|[A-Za-z]:\\|\d\d?:\d\d(?::\d\d)?@)[^\s/@:'\"]{1,2000}:(?!/)(?:(?!:/)\S){1,2000}@(?=\w)",
        re.MULTILINE,
    ),
)
_QUERY = re.compile(r"(:/[^\s?#]{0,2000}[?#])([^\s'\"<>]+)")
_VALUE = re.compile(r"([^&#;=]+=)?[^&#;=][^&#;]*(?<![:;,.)])")
_PARAMETER = re.compile(r"(:/[^\s;?#]{0,2000})((?:;[^\s;=/?#'\"<>]+=[^\s;?#'\"<>]*(?<![:,.)]))+)")
_SPELLINGS = {True: ("true", "yes", "on", 1), False: ("false", "no", "off", 0)}
_JOINERS = "\u200c\u200d"  # emoji and several scripts are written with them


def visible(text: str, *, keep: str = "") -> str:
    r"""Escape control and format characters, and bytes that are not UTF-8.

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


def word(value: object) -> str:
    """Normal form of a table's value for comparison: stripped, lower case, numbers as numbers.

    So 4, 4.0 and "4" are equal, and also 1e5 and 100000, as spreadsheets convert one to the other. A code 1e5 that is
    not a number also equals 100000.
    """
    text = str(value).strip().lower()
    try:
        return repr(float(text))
    except ValueError:
        return text


def words(value: object) -> set[str]:
    """All normal forms of a value of params.yaml, as YAML turns yes, no, on and off into booleans."""
    return {word(said) for said in _SPELLINGS[value]} if isinstance(value, bool) else {word(value)}


def masked(text: str) -> str:
    """Replace possible secrets in addresses: user and password, values of a query, fragment, parameters.

    In doubt, text is hidden.

    Args:
        text: An address, or any text that has some in it.

    Example:
        >>> masked("http://me:s3cret@host/faces?token=abc&list")
        'http://***@host/faces?token=***&***'
    """
    for user in _USER if "@" in text else ():
        text = user.sub(r"\1***@", text)
    text = _PARAMETER.sub(lambda found: found[1] + _VALUE.sub(_hidden, found[2]), text)
    return _QUERY.sub(lambda found: found[1] + _VALUE.sub(_hidden, found[2]), text)


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
