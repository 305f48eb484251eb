"""Short hashes of everything that a result depends on."""

from __future__ import annotations

import hashlib
import json
from typing import Any


def fingerprint(**parts: Any) -> str:
    """First 16 hex digits of the SHA-256 of keyword arguments, each any JSON value.

    Raises:
        TypeError: A value has no JSON form.
    """
    canonical = json.dumps(parts, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]
