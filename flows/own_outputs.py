"""Decides which files of data/ this project provably wrote, so that `gc` may remove them."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from boundaryflow.store.catalog import CATALOG
from boundaryflow.store.catalog.boundary import METRICS
from boundaryflow.store.catalog.jobs import GRID, LAST, RECORD_SCHEMA

_NAMES = {output.name: output.files for output in CATALOG.values() if output.by != "person"}
JOBS = tuple(output.name for output in CATALOG.values() if output.by == "job")
"""Folders of data/ with one entry per job."""
STAGES = tuple(output.name for output in CATALOG.values() if output.by == "stage")
"""Folders of data/ that stages write, with one entry per data set."""
_STAGE = re.compile(r"[+-]?  \w+@([\w-]+):")
_MD5 = re.compile(r"[+-]?\s+md5: '?([0-9a-f]{32})'?")
_MAX_RECORD_BYTES = 2**24


@dataclass(frozen=True)
class OwnOutputs:
    """Decides whether this project wrote a file of a checkout.

    It did if all of this holds:

    - The entry is known: `dvc.lock`, here or in any commit, has a stage of that data set; or `last_run.json` in a
      job's entry names the same job. A copy under another name belongs to the user.
    - The path matches the names that the stage gives to its files.
    - The content is known: it has this project's mark (shards, boundaries, tables, records of runs), or DVC's cache
      or a `dvc.lock` has its MD5, or it is a link of DVC's into the cache.

    Attributes:
        root: The checkout.
        cache: DVC's store of files by MD5.
    """

    root: Path
    cache: Any

    def is_entry(self, kind: str, entry: Path) -> bool:
        """Whether a stage or a job once wrote `data/KIND/NAME`."""
        if kind in JOBS:
            facts = _json(entry / LAST)
            return facts.get("schema") == RECORD_SCHEMA and facts.get("job", facts.get("recipe")) == entry.name
        return (entry.stem if kind == METRICS.name else entry.name) in self._recorded[0]

    def is_ours(self, kind: str, entry: Path, file: Path) -> bool:
        """Whether this project wrote a file at or below one of its entries."""
        name = file.relative_to(entry).as_posix() if file != entry else ""
        if not re.fullmatch(_NAMES[kind], name):
            return False
        if file.is_symlink() or not file.is_file():
            return self.is_cached(file)
        return _has_mark(file) or self.is_cached(file) or _md5(file) in self._recorded[1]

    def is_cached(self, file: Path) -> bool:
        """Whether DVC's cache has a file's content, or the file is a link into it."""
        if file.is_symlink():
            return Path(os.path.realpath(file)).is_relative_to(Path(self.cache.path).resolve())
        return file.is_file() and Path(self.cache.oid_to_path(_md5(file))).is_file()

    @cached_property
    def _recorded(self) -> tuple[set[str], set[str]]:
        """Data sets, and MD5s of files, in the present or a past `dvc.lock`."""
        lines: list[str] = []
        if (self.root / "dvc.lock").is_file():
            lines += (self.root / "dvc.lock").read_text(encoding="utf-8", errors="replace").splitlines()
        command = ["git", "log", "--all", "--patch", "--unified=0", "--format=", "--no-ext-diff", "--no-textconv"]
        with suppress(FileNotFoundError):  # without git or a repository there is no history
            done = subprocess.run(  # noqa: S603 - fixed words
                [*command, "--no-color", "--", "dvc.lock"], cwd=self.root, capture_output=True, check=False
            )
            lines += done.stdout.decode(errors="replace").splitlines()
        names = {found[1] for line in lines if (found := _STAGE.fullmatch(line))}
        return names, {found[1] for line in lines if (found := _MD5.fullmatch(line))}


def files_of(path: Path) -> Iterator[Path]:
    """A file, or the files of a folder and of those below it; links are not followed."""
    if path.is_symlink() or not path.is_dir():
        yield path
        return
    for at, folders, names in os.walk(path):
        links = [name for name in folders if Path(at, name).is_symlink()]
        yield from (Path(at, name) for name in sorted([*names, *links]))


def _has_mark(file: Path) -> bool:
    """Whether a file's content has this project's mark."""
    from pyarrow import ArrowException
    from safetensors import SafetensorError

    from boundaryflow.formats.tensor_headers import read_header
    from boundaryflow.store.tables import table_schema

    try:
        if file.suffix == ".safetensors":
            wanted = "shard/" if file.name.startswith("shard-") else "boundary/"
            return str(read_header(file).about.get("schema", "")).startswith(wanted)
        if file.suffix == ".parquet":
            return table_schema(file)[0] is not None
    except (SafetensorError, ArrowException, OSError, ValueError):
        return False
    if file.suffix == ".jsonl":
        with file.open("rb") as lines:
            return _parsed(lines.readline(_MAX_RECORD_BYTES)).get("schema") == RECORD_SCHEMA
    if file.name == GRID:
        return _is_synthetic(file)
    return file.name == LAST and _json(file).get("schema") == RECORD_SCHEMA


def _is_synthetic(file: Path) -> bool:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(file, formats=["PNG"]) as picture:
            return picture.info.get("synthetic") == "true"
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return False


def _json(file: Path) -> dict[str, Any]:
    if file.is_symlink() or not file.is_file() or file.stat().st_size > _MAX_RECORD_BYTES:
        return {}
    return _parsed(file.read_bytes())


def _parsed(data: bytes) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _md5(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
