"""`boundaryflow gc`: what no current result needs, how much it takes, and its removal."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Sequence
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
_OLD_LOG_S = 30 * 24 * 3600.0


@dataclass(frozen=True)
class Garbage:
    """Something that can go.

    Attributes:
        what: In words.
        paths: Files and folders; of DVC's cache those that DVC itself removes.
        size_bytes: What they take.
        is_cache: Whether they are DVC's.
    """

    what: str
    paths: tuple[Path, ...]
    size_bytes: int
    is_cache: bool = False


def collect(root: Path, *, keep: Keep = "branches", inactive: bool = False) -> list[Garbage]:
    """What can go. Nothing outside the checkout, no raw image, no model, nothing delivered is ever among it.

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
    return [garbage for garbage in found if garbage.paths]


def remove(root: Path, garbage: Sequence[Garbage], *, keep: Keep = "branches") -> int:
    """Remove it; returns the bytes that were freed.

    Raises:
        PipelineError: DVC cannot, or a run is at work.
    """
    before = sum(item.size_bytes for item in garbage)
    with locks.flow_lock(root):
        for path in (path for item in garbage if not item.is_cache for path in item.paths):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
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
    from stages.params import load_params

    params = load_params(root)
    found: list[Garbage] = []
    for stage in STAGES:
        for path in sorted((root / "data" / stage).glob("*")):
            name = path.stem if stage == "boundary_metrics" else path.name
            if name in params.datasets or path.name == ".gitignore" or (name in params.data and not inactive):
                continue
            why = "is not in `datasets`" if name in params.data else "is not in params.yaml"
            found.append(_garbage(f"{path.relative_to(root)}: data set {name} {why}", [path]))
    for kind, recipes in (("bulk_edit", params.bulk_edit), ("augment", params.augment)):
        for path in sorted((root / "data" / kind).glob("*")):
            if path.name not in recipes:
                found.append(_garbage(f"{path.relative_to(root)}: recipe {path.name} is not in params.yaml", [path]))
    return found


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
