"""`boundaryflow gc`: what no current result needs, how much it takes, and its removal."""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from boundaryflow.errors import PipelineError
from boundaryflow.files import leftovers
from flows import environment, locks
from flows.dvc_graph import open_repo
from flows.status import size_of, size_text

Keep = Literal["workspace", "branches", "commits"]
STAGES = (
    "params",
    "listing",
    "ingest",
    "label",
    "mixing",
    "invert",
    "observe",
    "boundary",
    "boundary_metrics",
    "edit",
    "evaluate",
    "report",
)
"""Folders of data/ that stages write, one entry in each per data set."""
_OWN = re.compile(
    r"shard-\d+of\d+-[0-9a-f]{12}\.safetensors|[0-9a-f]{16}(-\d+|-truth)?\.png|grid\.png|index\.html|runs\.jsonl"
    r"|(boundaries|curves|factors|index|labels|manifest|path|per_image|pictures|remote|scores|tables)\.parquet"
    r"|(curves|strength|summary)\.csv|(edit|ingest|invert|label|last_run|metrics|mixing|observe)\.json"
)
"""Files that stages write. Any other below a stage's folder is somebody else's, and stays."""
_OWN_IN = {"boundary": re.compile(r"\w[\w-]*\.safetensors"), "boundary_metrics": re.compile(r"\w[\w-]*\.json")}
_OLD_LOG_S = 30 * 24 * 3600.0


@dataclass(frozen=True)
class Garbage:
    """Something that can go.

    Attributes:
        what: In words.
        paths: Files; of DVC's cache those that DVC itself removes.
        size_bytes: What they take.
        is_cache: Whether they are DVC's.
        is_note: Whether it only says what is left alone.
    """

    what: str
    paths: tuple[Path, ...]
    size_bytes: int
    is_cache: bool = False
    is_note: bool = False


def collect(root: Path, *, keep: Keep = "branches", inactive: bool = False) -> list[Garbage]:
    """What can go.

    Nothing outside the checkout, no raw image, no model, nothing delivered is ever among it, nor a file below a stage's
    folder that has no name of ours, nor a cache that other checkouts may share.

    Args:
        root: The checkout.
        keep: What of DVC's cache stays: what the working tree uses; also what the tips of branches and tags use; also
            what any commit uses.
        inactive: Also results of data sets that params.yaml describes but has not in `datasets`.

    Raises:
        PipelineError: DVC cannot be asked, or a run is at work.
    """
    environment.prepare(root)
    with locks.flow_lock(root):
        found = [*_folders(root, inactive=inactive), *_leftovers(root), _cache(root, keep)]
    return [garbage for garbage in found if garbage.paths or garbage.is_note]


def remove(root: Path, garbage: Sequence[Garbage], *, keep: Keep = "branches") -> int:
    """Remove it; returns the bytes that were freed.

    Raises:
        PipelineError: DVC cannot, or a run is at work.
    """
    before = sum(item.size_bytes for item in garbage)
    with locks.flow_lock(root):
        for path in (path for item in garbage if not item.is_cache for path in item.paths):
            path.unlink(missing_ok=True)
            _remove_empty(path.parent, root / "data")
        if any(item.is_cache for item in garbage):
            with open_repo(root) as repo:
                _quieten()
                repo.gc(workspace=True, force=True, **_scope(repo, keep))
    return before - sum(size_of(path) for item in garbage for path in item.paths if path.exists())


def as_text(garbage: Sequence[Garbage]) -> str:
    """For people: a line each, and the sum."""
    lines = [f"{size_text(item.size_bytes):>9}  {item.what}" for item in garbage]
    return "\n".join([*lines, f"{size_text(sum(item.size_bytes for item in garbage)):>9}  in all"])


def _folders(root: Path, *, inactive: bool) -> list[Garbage]:
    """Results of data sets that are no longer there."""
    from boundaryflow.config import load_params

    params = load_params(root)
    found: list[Garbage] = []
    for stage in STAGES:
        for path in sorted((root / "data" / stage).glob("*")):
            name = path.stem if stage == "boundary_metrics" else path.name
            if name in params.datasets or path.name == ".gitignore" or (name in params.data and not inactive):
                continue
            why = "is not in `datasets`" if name in params.data else "is not in params.yaml"
            found += _own(root, path, stage, f"data set {name} {why}")
    for kind, recipes in (("bulk_edit", params.bulk_edit), ("augment", params.augment)):
        for path in sorted((root / "data" / kind).glob("*")):
            if path.name not in recipes:
                found += _own(root, path, kind, f"recipe {path.name} is not in params.yaml")
    return found


def _own(root: Path, path: Path, stage: str, why: str) -> list[Garbage]:
    """Files of ours at or below a path, and how many others are left alone."""
    ours: list[Path] = []
    others = 0
    for file in _files(path):
        is_ours = any(name.fullmatch(file.name) for name in (_OWN, _OWN_IN.get(stage, _OWN)))
        ours += [file] if is_ours and not file.is_symlink() else []
        others += not ours or ours[-1] != file
    where = path.relative_to(root)
    found = [_garbage(f"{where}: {why}", ours)] if ours else []
    if others:
        found.append(Garbage(f"{where}: {others} files there are none of ours, and stay", (), 0, is_note=True))
    return found


def _files(path: Path) -> Iterator[Path]:
    """A file, or the files of a folder and of those below it; links are not followed."""
    if path.is_symlink() or not path.is_dir():
        yield path
        return
    for at, _folders, names in os.walk(path):
        yield from (Path(at, name) for name in sorted(names))


def _remove_empty(folder: Path, above: Path) -> None:
    """Remove a folder that is empty now, and those it was in, up to and not including `above`'s own folders."""
    while above in folder.parent.parents:
        try:
            folder.rmdir()
        except OSError:
            return
        folder = folder.parent


def _leftovers(root: Path) -> list[Garbage]:
    """What killed runs left half-written, and old reports of unexpected errors."""
    kinds = (*STAGES, "bulk_edit", "augment", "text")
    half = [path for kind in kinds for path in leftovers(root / "data" / kind)]
    then = time.time() - _OLD_LOG_S
    logs = (root / environment.LOG_FOLDER).glob("error-*.log")
    old = [path for path in logs if path.stat().st_mtime < then]
    return [_garbage(f"{len(half)} half-written files", half), _garbage(f"{len(old)} old error logs", old)]


def _cache(root: Path, keep: Keep) -> Garbage:
    """Objects of DVC's cache that nothing refers to any more."""
    nobody = {
        "workspace": "the working tree does not use",
        "branches": "neither the working tree nor a branch or tag uses",
        "commits": "neither the working tree nor a commit uses",
    }
    paths: list[Path] = []
    with open_repo(root) as repo, repo.lock:
        _quieten()
        if elsewhere := _shared_cache(root, repo):
            return Garbage(f"DVC's cache {elsewhere} may be shared with others, and stays", (), 0, is_note=True)
        used: set[str] = set()
        for infos in repo.used_objs(force=True, **_scope(repo, keep)).values():
            used |= {info.value for info in infos}
        seen: set[Any] = set()
        for _scheme, store in repo.cache.by_scheme():
            if store and store not in seen:
                seen.add(store)
                paths += [Path(store.oid_to_path(oid)) for oid in store.all() if oid not in used]
    what = f"{len(paths)} objects in DVC's cache that {nobody[keep]}"
    return Garbage(what, tuple(paths), sum(size_of(path) for path in paths), is_cache=True)


def _shared_cache(root: Path, repo: Any) -> str:
    """Where the cache is if it is outside of this checkout or meant for several users; empty if it is ours alone."""
    folder = Path(repo.cache.local.path).resolve()
    is_ours = folder.is_relative_to((root / ".dvc").resolve()) and not repo.config["cache"].get("shared")
    return "" if is_ours else str(folder)


def _quieten() -> None:
    """DVC, once it is loaded, warns of every output that a branch has no version of."""
    logging.getLogger("dvc").setLevel(logging.ERROR)


def _scope(repo: Any, keep: Keep) -> dict[str, Any]:
    if keep == "workspace" or repo.scm.__class__.__name__ == "NoSCM":
        return {}
    return {"all_branches": True, "all_tags": True} if keep == "branches" else {"all_commits": True}


def _garbage(what: str, paths: Sequence[Path]) -> Garbage:
    return Garbage(what, tuple(paths), sum(size_of(path) for path in paths))


def check_terminal(*, is_terminal: bool, yes: bool) -> None:
    """Refuse to remove anything where nobody can be asked.

    Raises:
        PipelineError: Nobody can, and nobody said yes beforehand.
    """
    if not is_terminal and not yes:
        raise PipelineError("gc: there is no terminal to ask on; say --yes to remove this, --dry-run to only look")
