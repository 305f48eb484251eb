"""Text from files and file names, made fit to be shown and to be compared."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any, cast

_HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
_SCHEME = r"((?:\w\w:/|://)/*(?!\[[\da-fA-F:.]*\]))"  # an address of IPv6 has colons and no user
_USER = (  # bounded, for a hostile name may be long and full of colons
    # Up to the last @ of the word, for a password may hold all that ends a host; not into an address chained to it.
    re.compile(_SCHEME + r"(?=[^\s/?#:@]{0,2000}[:@])(?:(?!::\w[\w+.-]*:/)\S){0,2000}@"),
    # With blanks in the password. What follows a colon is none where it reads as a port, or as the end of a phrase.
    re.compile(_SCHEME + r"[^\s/?#@:]{1,2000}:(?!\d*(?:[\s/:;,.)'\"]|$))(?:(?!://)[^\n]){0,2000}@"),
    # Without a scheme; a time of day and the path of a drive are neither user nor password.
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


def word(value: object) -> str:
    """How a value of a table is compared: without blanks around it and capitals, numbers as numbers.

    So 4, 4.0 and "4" are the same, and also 1e5 and 100000: a spreadsheet writes one as the other. Where 1e5 is a code
    and no number, it cannot be told from 100000.
    """
    text = str(value).strip().lower()
    try:
        return repr(float(text))
    except ValueError:
        return text


def words(value: object) -> set[str]:
    """All that a value of params.yaml stands for: YAML makes a boolean of yes, no, on and off."""
    return {word(said) for said in _SPELLINGS[value]} if isinstance(value, bool) else {word(value)}


def masked(text: str) -> str:
    """Replace what may be secret in addresses: user and password, the values of a query, the fragment, parameters.

    What could be a password is taken for one: rather too much is hidden than too little.

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
