"""Seeds that belong to an item; works without torch."""

from __future__ import annotations

import hashlib


def item_seed(run_seed: int, item_id: str, purpose: str) -> int:
    """Seed of one item for one purpose: the first 8 bytes of a SHA-256.

    Args:
        run_seed: Seed of the whole run.
        item_id: Stable id of the image.
        purpose: What the randomness is for, so that two uses never share it.

    Returns:
        Integer in [0, 2**63).
    """
    digest = hashlib.sha256(f"{run_seed}\x1f{item_id}\x1f{purpose}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
