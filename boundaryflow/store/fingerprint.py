"""Short hashes that stand for everything a result depends on."""

from __future__ import annotations

import hashlib
import json
from typing import Any


def fingerprint(**parts: Any) -> str:
    """16 hex digits that stand for everything given; any JSON value will do.

    Raises:
        TypeError: A value has no JSON form.
    """
    canonical = json.dumps(parts, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]
