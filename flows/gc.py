"""`boundaryflow gc`: lists files that no current result needs, with their size, and removes them."""

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
"""Size, time and inode of a file, by which a change since it was listed is recognised."""
_OLD_LOG_S = 30 * 24 * 3600.0


@dataclass(frozen=True)
class Garbage:
    """Files that can be removed, or a note.

    Attributes:
        what: Description.
        stamps: File to its stamp when it was listed.
        is_note: Whether it only describes files that are kept.
    """

    what: str
    stamps: Mapping[Path, Stamp]
    is_note: bool = False

    @property
    def size_bytes(self) -> int:
        """Size of its files."""
        return sum(size for size, _mtime, _inode in self.stamps.values())


def collect(root: Path, *, keep: Keep = "branches", inactive: bool = False) -> list[Garbage]:
    """List what can be removed.

    Never listed: anything outside the checkout or behind a link, raw images, models, delivered files, files in a
    stage's folder that this project did not provably write, and a cache that other checkouts may share.

    Args:
        root: The checkout.
        keep: Which objects of DVC's cache are kept: those that the working tree uses; also those of the tips of
            branches and tags; or also those of all commits.
        inactive: Also list results of data sets that are in params.yaml but not in `datasets`.

    Raises:
        PipelineError: DVC cannot be read, `dvc.yaml` or `dvc.lock` lacks existing outputs, or a run is in progress.
    """
    with _opened(root) as (root, repo, own):
        found = [*_folders(root, own, inactive=inactive), *_leftovers(root)]
        going = {path for garbage in found for path in garbage.stamps}
        found.append(_cache(root, repo, own, keep, going))
    return [garbage for garbage in found if garbage.stamps or garbage.is_note]


def remove(root: Path, garbage: Sequence[Garbage], *, keep: Keep = "branches", inactive: bool = False) -> int:
    """Remove the listed files that can still be removed, one by one; returns the number of bytes freed.

    As files may have changed while the user confirmed, everything is listed again first.

    Raises:
        PipelineError: As `collect` does.
    """
    agreed = {path: stamp for item in garbage for path, stamp in item.stamps.items()}
    with _opened(root) as (root, repo, own):
        freed = _unlink(root, [*_folders(root, own, inactive=inactive), *_leftovers(root)], agreed)
        return freed + _unlink(root, [_cache(root, repo, own, keep, set())], agreed)


@contextmanager
def _opened(root: Path) -> Generator[tuple[Path, Any, OwnOutputs]]:
    """The resolved path of the checkout, its DVC repository and the check of ownership, under the checkout's locks."""
    root = root.resolve()
    environment.prepare(root)
    with locks.flow_lock(root), open_repo(root) as repo, repo.lock:
        logging.getLogger("dvc").setLevel(logging.ERROR)  # it warns of every output that a branch lacks
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
    """A table for people, with the total."""
    entries = [*((item.size_bytes, item.what) for item in garbage), (sum(i.size_bytes for i in garbage), "in all")]
    rows = [(naturalsize(size, binary=True), what) for size, what in entries]
    return tabulate(rows, tablefmt="plain", colalign=("right", "left"), disable_numparse=True)


def _folders(root: Path, own: OwnOutputs, *, inactive: bool) -> Iterator[Garbage]:
    """Results of data sets and jobs that params.yaml no longer has."""
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
    """Files at or below a path that this project wrote, and a note on the number of others."""
    files = [file for file in files_of(path) if file.name != ".gitignore"]  # DVC's
    ours = [file for file in files if own.is_ours(kind, path, file)] if own.is_entry(kind, path) else []
    where, others = path.relative_to(root), len(files) - len(ours)
    if ours:
        yield _garbage(f"{where}: {why}", ours)
    if others:
        yield Garbage(f"{where}: {others} files there are none of ours, and stay", {}, is_note=True)


def _remove_empty(folder: Path, above: Path) -> None:
    """Remove an empty folder and then its empty parents, up to but not including the direct subfolders of `above`."""
    while above in folder.parent.parents:
        try:
            folder.rmdir()
        except OSError:
            return
        folder = folder.parent


def _leftovers(root: Path) -> list[Garbage]:
    """Half-written files of killed runs, and old logs of unexpected errors."""
    folders = [root / "data" / output.name for output in CATALOG.values() if output is not RAW]
    half = [path for folder in folders if not _link_in(root, folder) for path in leftovers(folder)]
    then = time.time() - _OLD_LOG_S
    logs = root / environment.LOG_FOLDER
    found = [] if _link_in(root, logs) else logs.glob("error-*.log")
    old = [path for path in found if path.lstat().st_mtime < then]
    return [_garbage(f"{len(half)} half-written files", half), _garbage(f"{len(old)} old error logs", old)]


def _cache(root: Path, repo: Any, own: OwnOutputs, keep: Keep, going: Set[Path]) -> Garbage:
    """Objects of DVC's cache without references; links of the working tree count as such, except those in `going`."""
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
    """Refuse a truncated `dvc.yaml` or `dvc.lock`: outputs that it lacks by mistake are not garbage.

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
                    f"{entry}; it was truncated or removed: restore it (`git checkout dvc.lock`) or run "
                    "`boundaryflow run`, then gc"
                )


def _linked(root: Path, going: Set[Path]) -> set[Path]:
    """Targets of links in data/ except `going`: with `cache.type = symlink`, results are in the cache only."""
    found: set[Path] = set()
    for top in (root / "data", *(root / "data").glob("*")):
        for at, _folders, names in os.walk(top):
            links = (path for name in names if (path := Path(at, name)) not in going and path.is_symlink())
            found |= {Path(os.path.realpath(link)) for link in links}
    return found


def _shared_cache(root: Path, repo: Any) -> str:
    """Path of the cache if it is outside this checkout or shared; empty if only this checkout uses it."""
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
    """Refuse to remove anything without a confirmation.

    Raises:
        PipelineError: There is neither a terminal to confirm on nor `--yes`.
    """
    if not is_terminal and not yes:
        raise PipelineError("gc: cannot ask without a terminal; use --yes to remove this, or --dry-run to list it only")
