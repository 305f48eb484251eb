"""DVC's stage graph and which stages are stale, read once and in process."""

from __future__ import annotations

import os
from collections.abc import Collection, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from boundaryflow.config.yaml_file import read_yaml
from boundaryflow.errors import ParamsError, PipelineError
from boundaryflow.store.catalog.params import PARAMS, VALUES
from flows.environment import check_conflicts

if TYPE_CHECKING:
    from dvc.repo import Repo


_ALWAYS = "always changed"
"""DVC's reason for a stage that it runs every time (`listing`)."""


@dataclass(frozen=True)
class Step:
    """One DVC stage.

    Attributes:
        name: Address in DVC, such as `invert@avatars`.
        upstream: Names of the stages it reads from, within the plan.
        reason: Why it is stale, in words; empty when it is up to date.
        outs: Its outputs, relative to the root.
        has_run: Whether dvc.lock has an entry of it.
    """

    name: str
    upstream: tuple[str, ...]
    reason: str
    outs: tuple[str, ...]
    has_run: bool

    @property
    def is_dirty(self) -> bool:
        """Whether it has to run."""
        return bool(self.reason)

    @property
    def kind(self) -> str:
        """The stage without its data set: `invert`."""
        return self.name.partition("@")[0]

    @property
    def dataset(self) -> str:
        """The data set it works on; empty for a stage outside the matrix."""
        return self.name.partition("@")[2]


def plan(
    root: Path, datasets: Sequence[str] = (), stages: Sequence[str] = (), *, ask_remote: bool = True
) -> tuple[Step, ...]:
    """Read the graph in topological order.

    DVC runs the stage `listing` every time; here it counts as stale only if its listing differs from data/raw.

    Args:
        root: The checkout.
        datasets: Keep only the stages of these data sets and their upstream stages; empty keeps all.
        stages: Keep only these stages (`edit` or `edit@avatars`) and their upstream stages; empty keeps all.
        ask_remote: Also list remote folders.

    Raises:
        PipelineError: There is no DVC repository, dvc.yaml does not parse or lacks a stage, or a name is unknown.
    """
    with open_repo(root) as repo, repo.lock:
        graph = repo.index.graph  # an edge points from a stage to one that it reads from
        order = {stage: position for position, stage in enumerate(repo.index.stages)}
        check_graph(root, {stage.addressing for stage in order})
        chosen = _choose(graph, [stage.addressing for stage in order], datasets, stages)
        known = _lock_entries(root)
        steps: dict[str, Step] = {}
        values: dict[str, Any] = {}
        for stage in _in_order(graph, order):
            name = stage.addressing
            if name not in chosen:
                continue
            upstream = tuple(sorted(other.addressing for other in graph.successors(stage)))
            stale = [
                other for other in upstream if steps[other].is_dirty and not _leaves_as_is(stage, other, root, values)
            ]
            reason = _reason([entry for entry in stage.status().get(name, []) if entry != _ALWAYS])
            kind, _, dataset = name.partition("@")
            if kind == "listing" and not reason:
                from boundaryflow.sources.listing import difference

                reason = difference(dataset, ask_remote=ask_remote)
            if not reason and stale:
                reason = f"{stale[0]} will run"
            has_run = name in known
            steps[name] = Step(
                name=name,
                upstream=upstream,
                reason="never run" if reason and not has_run else reason,
                outs=tuple(os.path.relpath(out.fs_path, root) for out in stage.outs),
                has_run=has_run,
            )
    return tuple(steps.values())


def _leaves_as_is(stage: Any, upstream: str, root: Path, values: dict[str, Any]) -> bool:
    """Whether a stage's parameters will still equal those of its last run after the stage `params` has run.

    Args:
        stage: DVC's stage.
        upstream: An upstream stage that will run.
        root: The checkout.
        values: Cache, filled here: data set to what `params` will write; None if params.yaml is invalid.
    """
    kind, _, dataset = upstream.partition("@")
    path = (PARAMS.folder(dataset) / VALUES).as_posix()
    reads = [dep for dep in stage.deps if os.path.relpath(dep.fs_path, root) == path]
    if kind != "params" or not reads or any(not hasattr(dep, "params") for dep in reads):
        return False
    if dataset not in values:
        from boundaryflow.config import load_params
        from boundaryflow.config.resolved import resolved

        values[dataset] = None
        with suppress(ParamsError):  # the stage `params` says what is wrong
            values[dataset] = resolved(load_params(root, check_files=False).dataset(dataset), root)
    now = values[dataset]
    if now is None:
        return False
    known: dict[str, Any] = {key: value for dep in reads for key, value in (dep.hash_info.value or {}).items()}
    return all(key in known and known[key] == _value_at(now, key) for dep in reads for key in dep.params)


def _value_at(values: Any, key: str) -> Any:
    for part in key.split("."):
        values = values.get(part) if isinstance(values, dict) else None
    return values


def check_graph(root: Path, names: Collection[str]) -> None:
    """Refuse a dvc.yaml that lacks stages, as after a truncation that leaves it valid YAML.

    Args:
        root: The checkout.
        names: Names of the stages that DVC reads, such as `invert@avatars`.

    Raises:
        PipelineError: A file of stages/ is not a stage of one of `datasets`, or params.yaml cannot be read.
    """
    kinds = sorted(path.stem for path in (root / "stages").glob("[!_]*.py"))
    if not kinds:
        return
    params: Any = read_yaml(root / "params.yaml")
    datasets: Any = params.get("datasets") if isinstance(params, dict) else None
    active = [str(name) for name in datasets] if isinstance(datasets, list) else []
    lacking = [name for dataset in active for kind in kinds if (name := f"{kind}@{dataset}") not in names]
    if lacking:
        more = f" and {len(lacking) - 1} more" if len(lacking) > 1 else ""
        raise PipelineError(
            f"{root / 'dvc.yaml'}: has no stage {lacking[0]}{more}; each file of stages/ must be a stage of each of "
            "`datasets` in params.yaml. Restore it: `git checkout dvc.yaml`"
        )


def has_remote(root: Path) -> bool:
    """Whether DVC has a default remote, for `push`."""
    with open_repo(root) as repo:
        return bool(repo.config["core"].get("remote"))


@contextmanager
def open_repo(root: Path) -> Generator[Repo]:
    """DVC's own view of a checkout.

    Raises:
        PipelineError: There is no DVC repository, or DVC fails within the block.
    """
    from dvc.exceptions import DvcException, RevCollectionError
    from dvc.repo import Repo

    check_conflicts(root)
    if {"{", "}"} & set(str(root)):
        raise PipelineError(
            f"{root}: DVC fails where the path of a checkout has {{ or }} in it; move it to another path"
        )
    before = Path.cwd()
    os.chdir(root)  # DVC resolves dvc.yaml against the current folder
    try:
        repo = Repo(str(root), _wait_for_lock=True)
        try:
            yield repo
        finally:
            repo.close()
    except DvcException as error:
        if isinstance(error, RevCollectionError) and error.__cause__:  # names only the commit
            message = f"{root}: DVC: {_one_line(error)}: {_one_line(error.__cause__)}"
            here = str(error).endswith("'workspace'")
            way_out = _advice(error.__cause__) if here else "; `--keep workspace` looks at no commit"
            raise PipelineError(message + way_out) from None
        raise PipelineError(f"{root}: DVC: {_one_line(error)}{_advice(error)}") from None
    finally:
        os.chdir(before)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def _advice(error: BaseException) -> str:
    name = type(error).__name__
    if name == "NotDvcRepoError":
        return "; run `git init` and `dvc init` in it"
    if "is not a git repository" in str(error):
        return (
            " (an unpacked archive is none): run `git init && git add -A && git commit -m start` in it, or, to do "
            "without git, `dvc config --local core.no_scm true`"
        )
    if "RWLock-file" in str(error) or "dvc.lock" in str(error):
        return "; `boundaryflow run` sets a damaged one aside"
    if "busy" in str(error):
        return "; another dvc command is at work in this checkout, wait for it"
    return "; `dvc status` shows the same"


def _choose(graph: Any, names: Sequence[str], datasets: Sequence[str], stages: Sequence[str]) -> set[str]:
    """Names of the chosen stages and all their upstream stages."""
    kinds = {name.partition("@")[0] for name in names}
    for dataset in datasets:
        if not any(name.endswith(f"@{dataset}") for name in names):
            raise PipelineError(
                f"dvc.yaml has no stage for data set {dataset!r}; it has one for each of `datasets` in params.yaml"
            )
    for stage in stages:
        if stage not in kinds and stage not in names:
            near = get_close_matches(stage, [*names, *kinds], 1)
            hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(sorted(kinds))}"
            raise PipelineError(f"dvc.yaml has no stage {stage!r}; {hint}")
    wanted = [
        name
        for name in names
        if (not datasets or name.partition("@")[2] in datasets)
        and (not stages or name in stages or name.partition("@")[0] in stages)
    ]
    upstream = {stage.addressing: [other.addressing for other in graph.successors(stage)] for stage in graph}
    chosen: set[str] = set()
    while wanted:
        name = wanted.pop()
        if name not in chosen:
            chosen.add(name)
            wanted += upstream[name]
    return chosen


def _in_order(graph: Any, order: dict[Any, int]) -> Iterator[Any]:
    import networkx

    return networkx.lexicographical_topological_sort(
        graph.reverse(copy=False), key=lambda stage: (stage.addressing.partition("@")[2], order[stage])
    )


def _lock_entries(root: Path) -> set[str]:
    path = root / "dvc.lock"
    if not path.is_file():
        return set()
    content: Any = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    return set(content.get("stages", {}))


def _reason(status: Sequence[str | dict[str, dict[str, Any]]]) -> str:
    """DVC's reasons in words: `changed deps: stages/edit.py modified; changed command`."""
    parts: list[str] = []
    for entry in status:
        if isinstance(entry, str):
            parts.append(entry)
            continue
        for what, changes in entry.items():
            items = [_change(name, change) for name, change in changes.items()]
            more = f" and {len(items) - 3} more" if len(items) > 3 else ""
            parts.append(f"{what}: {', '.join(items[:3])}{more}")
    return "; ".join(parts)


def _change(name: str, change: str | dict[str, Any]) -> str:
    if isinstance(change, str):
        return f"{name} {change}"
    keys = list(change)  # a params file: the keys that changed
    return f"{name} {', '.join(keys[:3])}{' ...' if len(keys) > 3 else ''}"
