"""`boundaryflow gc`: what no current result needs, how much it takes, and its removal."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Generator, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from humanize import naturalsize
from tabulate import tabulate

from boundaryflow.errors import PipelineError
from boundaryflow.files import leftovers
from boundaryflow.store.catalog import CATALOG
from boundaryflow.store.catalog.boundary import METRICS
from boundaryflow.store.catalog.raw import RAW
from flows import environment, locks
from flows.dvc_graph import check_graph, open_repo
from flows.own_outputs import JOBS, STAGES, OwnOutputs, files_of

Keep = Literal["workspace", "branches", "commits"]
Stamp = tuple[int, int, int]
"""Size, time and inode of a file: it is the one that was looked at as long as these hold."""
_OLD_LOG_S = 30 * 24 * 3600.0


@dataclass(frozen=True)
class Garbage:
    """Something that can go.

    Attributes:
        what: In words.
        stamps: Its files, as they were when they were looked at.
        is_note: Whether it only says what is left alone.
    """

    what: str
    stamps: Mapping[Path, Stamp]
    is_note: bool = False

    @property
    def size_bytes(self) -> int:
        """What its files take."""
        return sum(size for size, _mtime, _inode in self.stamps.values())


def collect(root: Path, *, keep: Keep = "branches", inactive: bool = False) -> list[Garbage]:
    """What can go.

    Nothing outside the checkout or behind a link, no raw image, no model, nothing delivered is ever among it, nor a
    file below a stage's folder that is not provably ours, nor a cache that other checkouts may share.

    Args:
        root: The checkout.
        keep: What of DVC's cache stays: what the working tree uses; also what the tips of branches and tags use; also
            what any commit uses.
        inactive: Also results of data sets that params.yaml describes but has not in `datasets`.

    Raises:
        PipelineError: DVC cannot be asked, `dvc.yaml` or `dvc.lock` lacks what is there, or a run is at work.
    """
    with _opened(root) as (root, repo, own):
        found = [*_folders(root, own, inactive=inactive), *_leftovers(root)]
        going = {path for garbage in found for path in garbage.stamps}
        found.append(_cache(root, repo, own, keep, going))
    return [garbage for garbage in found if garbage.stamps or garbage.is_note]


def remove(root: Path, garbage: Sequence[Garbage], *, keep: Keep = "branches", inactive: bool = False) -> int:
    """Remove what was found and still can go, file by file; returns the bytes that were freed.

    Between `collect` and this the user was asked, and anything may have happened: everything is looked at again.

    Raises:
        PipelineError: As `collect` does.
    """
    agreed = {path: stamp for item in garbage for path, stamp in item.stamps.items()}
    with _opened(root) as (root, repo, own):
        freed = _unlink(root, [*_folders(root, own, inactive=inactive), *_leftovers(root)], agreed)
        return freed + _unlink(root, [_cache(root, repo, own, keep, set())], agreed)


@contextmanager
def _opened(root: Path) -> Generator[tuple[Path, Any, OwnOutputs]]:
    """The checkout without links in its path, DVC's view of it, and what is ours; nobody else changes it meanwhile."""
    root = root.resolve()
    environment.prepare(root)
    with locks.flow_lock(root), open_repo(root) as repo, repo.lock:
        logging.getLogger("dvc").setLevel(logging.ERROR)  # it warns of every output that a branch has no version of
        yield root, repo, OwnOutputs(root, repo.cache.local)


def _unlink(root: Path, found: Sequence[Garbage], agreed: Mapping[Path, Stamp]) -> int:
    freed = 0
    for path, stamp in (entry for item in found for entry in item.stamps.items()):
        if agreed.get(path) == stamp and not _link_in(root, path.parent):
            path.unlink(missing_ok=True)
            freed += stamp[0]
            _remove_empty(path.parent, root / "data")
    return freed


def as_text(garbage: Sequence[Garbage]) -> str:
    """For people: a line each, and the sum."""
    entries = [*((item.size_bytes, item.what) for item in garbage), (sum(i.size_bytes for i in garbage), "in all")]
    rows = [(naturalsize(size, binary=True), what) for size, what in entries]
    return tabulate(rows, tablefmt="plain", colalign=("right", "left"), disable_numparse=True)


def _folders(root: Path, own: OwnOutputs, *, inactive: bool) -> Iterator[Garbage]:
    """Results of data sets and jobs that are no longer there."""
    from boundaryflow.config import load_params

    params = load_params(root)
    for kind in (*STAGES, *JOBS):
        link = _link_in(root, root / "data" / kind)
        if link:
            yield Garbage(f"{link.relative_to(root)}: is a link; what is behind it stays", {}, is_note=True)
            if link.name == "data":
                return
            continue
        for path in sorted((root / "data" / kind).glob("*")):
            name = path.stem if kind == METRICS.name else path.name
            if kind in JOBS:
                if name not in getattr(params, kind):
                    yield from _own(root, own, path, kind, f"job {name} is not in params.yaml")
                continue
            if name in params.datasets or path.name == ".gitignore" or (name in params.data and not inactive):
                continue
            why = "is not in `datasets`" if name in params.data else "is not in params.yaml"
            yield from _own(root, own, path, kind, f"data set {name} {why}")


def _own(root: Path, own: OwnOutputs, path: Path, kind: str, why: str) -> Iterator[Garbage]:
    """Files of ours at or below a path, and how many others are left alone."""
    files = [file for file in files_of(path) if file.name != ".gitignore"]  # DVC's
    ours = [file for file in files if own.is_ours(kind, path, file)] if own.is_entry(kind, path) else []
    where, others = path.relative_to(root), len(files) - len(ours)
    if ours:
        yield _garbage(f"{where}: {why}", ours)
    if others:
        yield Garbage(f"{where}: {others} files there are none of ours, and stay", {}, is_note=True)


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
    folders = [root / "data" / output.name for output in CATALOG.values() if output is not RAW]
    half = [path for folder in folders if not _link_in(root, folder) for path in leftovers(folder)]
    then = time.time() - _OLD_LOG_S
    logs = root / environment.LOG_FOLDER
    found = [] if _link_in(root, logs) else logs.glob("error-*.log")
    old = [path for path in found if path.lstat().st_mtime < then]
    return [_garbage(f"{len(half)} half-written files", half), _garbage(f"{len(old)} old error logs", old)]


def _cache(root: Path, repo: Any, own: OwnOutputs, keep: Keep, going: Set[Path]) -> Garbage:
    """Objects of DVC's cache that nothing refers to any more, also no link of the working tree but those `going`."""
    nobody = {
        "workspace": "the working tree does not use",
        "branches": "neither the working tree nor a branch or tag uses",
        "commits": "neither the working tree nor a commit uses",
    }
    if elsewhere := _shared_cache(root, repo):
        return Garbage(f"DVC's cache {elsewhere} may be shared with others, and stays", {}, is_note=True)
    _check_record(root, repo, own)
    used: set[str] = set()
    for infos in repo.used_objs(force=True, **_scope(repo, keep)).values():
        used |= {info.value for info in infos}
    linked = _linked(root, going)
    paths: list[Path] = []
    seen: set[Any] = set()
    for _scheme, store in repo.cache.by_scheme():
        if store and store not in seen:
            seen.add(store)
            free = (Path(store.oid_to_path(oid)) for oid in store.all() if oid not in used)
            paths += [path for path in free if path not in linked]
    return _garbage(f"{len(paths)} objects in DVC's cache that {nobody[keep]}", paths)


def _check_record(root: Path, repo: Any, own: OwnOutputs) -> None:
    """Refuse where the graph or `dvc.lock` was cut short: what it no longer names is not garbage.

    Raises:
        PipelineError: A stage of an active data set is not in `dvc.yaml`; or an output that DVC's cache has lies in
            data/, and `dvc.lock` does not have it.
    """
    from boundaryflow.config import load_params

    check_graph(root, {stage.addressing for stage in repo.index.stages})
    known = [Path(os.path.relpath(out.fs_path, repo.root_dir)) for out in repo.index.outs if out.hash_info]
    for name in load_params(root).datasets:
        for kind in STAGES:
            entry = CATALOG[kind].folder(name)
            if any(path.is_relative_to(entry) for path in known) or not (root / entry).is_dir():
                continue
            few = (file for file in files_of(root / entry) if file.is_symlink() or not file.name.startswith("shard-"))
            if any(own.is_cached(file) for file in few):
                raise PipelineError(
                    f"{root / 'dvc.lock'}: has no outputs of {kind}@{name}, though DVC's cache has what lies in "
                    f"{entry}; it was cut or removed: restore it (`git checkout dvc.lock`) or run `boundaryflow run`, "
                    "then gc"
                )


def _linked(root: Path, going: Set[Path]) -> set[Path]:
    """Where links in data/ lead to, but those `going`: with `cache.type = symlink` results lie in the cache only."""
    found: set[Path] = set()
    for top in (root / "data", *(root / "data").glob("*")):
        for at, _folders, names in os.walk(top):
            links = (path for name in names if (path := Path(at, name)) not in going and path.is_symlink())
            found |= {Path(os.path.realpath(link)) for link in links}
    return found


def _shared_cache(root: Path, repo: Any) -> str:
    """Where the cache is if it is outside of this checkout or meant for several users; empty if it is ours alone."""
    folder = Path(repo.cache.local.path).resolve()
    is_ours = folder.is_relative_to(root / ".dvc") and not repo.config["cache"].get("shared")
    return "" if is_ours else str(folder)


def _scope(repo: Any, keep: Keep) -> dict[str, Any]:
    if keep == "workspace" or repo.scm.__class__.__name__ == "NoSCM":
        return {}
    return {"all_branches": True, "all_tags": True} if keep == "branches" else {"all_commits": True}


def _link_in(root: Path, path: Path) -> Path | None:
    """The first link among a path and its folders below the root."""
    below = [path, *path.parents]
    return next((at for at in reversed(below) if at != root and at.is_relative_to(root) and at.is_symlink()), None)


def _garbage(what: str, paths: Sequence[Path]) -> Garbage:
    stamps: dict[Path, Stamp] = {}
    for path in paths:
        about = path.lstat()
        stamps[path] = about.st_size, about.st_mtime_ns, about.st_ino
    return Garbage(what, stamps)


def check_terminal(*, is_terminal: bool, yes: bool) -> None:
    """Refuse to remove anything where nobody can be asked.

    Raises:
        PipelineError: Nobody can, and nobody said yes beforehand.
    """
    if not is_terminal and not yes:
        raise PipelineError("gc: there is no terminal to ask on; say --yes to remove this, --dry-run to only look")
