"""What was done to a project, and what was left of it: one row per kind of fault."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from boundaryflow.errors import ManifestError
from boundaryflow.store.shards import read_shard


class Tally:
    """Counts faults, the runs that completed after them, and what was lost or half-written."""

    def __init__(self) -> None:
        self.rows: dict[str, dict[str, int]] = {}

    def count(self, fault: str, before: Mapping[str, bytes], after: Mapping[str, bytes]) -> None:
        """A fault after which a run completed.

        Args:
            fault: Kind.
            before: Files of an undisturbed project.
            after: Files of this one.
        """
        zero = dict.fromkeys(("tried", "identical", "files_lost", "half_written"), 0)
        row = self.rows.setdefault(fault, zero)
        row["tried"] += 1
        row["identical"] += dict(before) == dict(after)
        row["files_lost"] += len(set(before) - set(after))
        row["half_written"] += sum(name.endswith(".tmp") for name in after)
        assert not set(before) - set(after), f"{fault}: lost {sorted(set(before) - set(after))[:3]}"
        assert not [name for name in after if name.endswith(".tmp")], f"{fault}: half-written files"
        differing = [name for name in after if after[name] != before.get(name)]
        assert not differing, f"{fault}: other bytes than an undisturbed run: {differing[:3]}"


def broken_shards(folder: Path) -> list[str]:
    """Shards that cannot be read, of all that are visible."""
    broken: list[str] = []
    for path in sorted(folder.rglob("shard-*.safetensors")):
        try:
            read_shard(path)
        except ManifestError as error:
            broken.append(str(error))
    return broken
