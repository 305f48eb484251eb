"""`boundaryflow doctor`: checks of this machine and this checkout, each with a remedy."""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from safetensors import SafetensorError

from boundaryflow.errors import PipelineError
from boundaryflow.files import check_regular
from boundaryflow.formats.tensor_headers import read_header
from boundaryflow.text import masked
from flows import environment, locks

Level = Literal["ok", "warn", "fail"]

_LFS_POINTER = b"version https://git-lfs"
_MIN_FREE_GIB = 5.0
_OLDEST_PYTHON = (3, 11)


@dataclass(frozen=True)
class Check:
    """Result of one check: subject, finding, and a remedy if it is not ok."""

    level: Level
    subject: str
    finding: str
    way_out: str = ""

    def __str__(self) -> str:
        text = f"{self.level:<4} {self.subject}: {self.finding}"
        return f"{text}; {self.way_out}" if self.way_out else text


def examine(root: Path) -> list[Check]:
    """All checks, in the order in which they matter."""
    environment.prepare(root)
    rooms: tuple[Callable[[Path], Iterator[Check]], ...] = (
        _python,
        _packages,
        _hardware,
        _disk,
        _repository,
        _params,
        _weights,
        _prefect,
        _locks,
    )
    return [check for room in rooms for check in room(root)]


def _python(_root: Path) -> Iterator[Check]:
    found = platform.python_version()
    if sys.version_info[:2] < _OLDEST_PYTHON:
        yield Check("fail", "python", found, "boundaryflow needs 3.11 or newer: make a new virtual environment with it")
    else:
        yield Check("ok", "python", f"{found} ({sys.executable})")


def _packages(root: Path) -> Iterator[Check]:
    path = root / "constraints.txt"
    if not path.is_file():
        yield Check("warn", "packages", "constraints.txt is not there", "restore it: git checkout constraints.txt")
        return
    pins = dict(_pins(path.read_text(encoding="utf-8")))
    different: list[str] = []
    for name, wanted in pins.items():
        try:
            found = version(name)
        except PackageNotFoundError:
            continue  # a pin may be for other platforms
        if found.split("+")[0] != wanted.split("+")[0]:
            different.append(f"{name} {found} (pinned {wanted})")
    if different:
        more = f" and {len(different) - 5} more" if len(different) > 5 else ""
        yield Check(
            "warn",
            "packages",
            f"{', '.join(different[:5])}{more}",
            "install what was tested: pip install -c constraints.txt -e .",
        )
    for name in ("torch", "diffusers", "dvc", "prefect"):
        try:
            version(name)
        except PackageNotFoundError:
            yield Check("fail", "packages", f"{name} is not installed", "pip install -c constraints.txt -e .")
    if not different:
        yield Check("ok", "packages", f"as in constraints.txt ({len(pins)} pins)")


def _pins(text: str) -> Iterator[tuple[str, str]]:
    for line in text.splitlines():
        name, sign, rest = line.split("#")[0].partition("==")
        if sign:
            yield name.strip().split("[")[0], rest.split(";")[0].strip()


def _hardware(_root: Path) -> Iterator[Check]:
    yield Check("ok", "cores", f"{environment.num_cores()}, {environment.num_parallel()} stages at once")
    flags = _cpu_flags()
    known = sorted({"amx_bf16", "avx512_bf16"} & flags)
    if known:
        yield Check("ok", "bfloat16", f"in hardware ({', '.join(known)})")
    else:
        yield Check("warn", "bfloat16", "not in this CPU", "networks run in float32, two to three times slower")
    gpu = _gpu()
    yield Check("ok", "gpu", gpu or "none, the CPU is used")


def _cpu_flags() -> set[str]:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return set()
    return set(next((line for line in text.splitlines() if line.startswith("flags")), "").split())


def _gpu() -> str:
    program = shutil.which("nvidia-smi")
    if program is None:
        return ""
    try:
        found = subprocess.run(  # noqa: S603 - fixed arguments
            [program, "--query-gpu=name,memory.total", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return "; ".join(found.stdout.split("\n")).strip("; ") if found.returncode == 0 else ""


def _disk(root: Path) -> Iterator[Check]:
    free_gib = shutil.disk_usage(root).free / 1024**3
    if free_gib < _MIN_FREE_GIB:
        yield Check("warn", "disk", f"{free_gib:.1f} GiB free", "make room: dvc gc --workspace drops old versions")
    else:
        yield Check("ok", "disk", f"{free_gib:.0f} GiB free")


def _repository(root: Path) -> Iterator[Check]:
    yield _git(root)
    if not (root / ".dvc").is_dir():
        yield Check("fail", "dvc", "not initialised", "run: dvc init (in a folder without git: dvc init --no-scm)")
        return
    from flows.dvc_graph import plan

    holder = locks.flow_holder(root)
    if holder is not None:
        yield Check("ok", "dvc", f"a run is at work ({holder})")
        return
    try:
        steps = plan(root, ask_remote=False)
    except (PipelineError, OSError) as error:
        yield Check("fail", "dvc", f"{error.filename}: {error.strerror}" if isinstance(error, OSError) else str(error))
        return
    num_dirty = sum(step.is_dirty for step in steps)
    yield Check("ok", "dvc", f"{len(steps)} stages, {num_dirty} with work")


def _git(root: Path) -> Check:
    if not (root / ".git").exists():
        return Check("warn", "git", "no repository here", "git init; without it there are no diffs and no experiments")
    program = shutil.which("git")
    if program is None:
        return Check("warn", "git", "repository found, program not", "install git")
    command = [program, "rev-parse", "--short", "HEAD"]
    found = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)  # noqa: S603 - fixed arguments
    if found.returncode == 0:
        return Check("ok", "git", f"at {found.stdout.strip()}")
    said = " ".join(found.stderr.split())
    if "dubious ownership" in said:
        return Check("fail", "git", said, "or change its owner: chown")
    return Check("warn", "git", "no commit yet", "git add -A && git commit -m start")


def _params(_root: Path) -> Iterator[Check]:
    from boundaryflow.config import load_params

    try:
        params = load_params()
    except PipelineError as error:
        for line in str(error).splitlines():
            yield Check("fail", "params", line)
        return
    yield Check("ok", "params", f"params.yaml is valid; data sets: {', '.join(params.datasets)}")


def _weights(root: Path) -> Iterator[Check]:
    folder = root / "data" / "pretrained"
    files = sorted(path for path in folder.rglob("*") if path.suffix in (".safetensors", ".pt"))
    if not files:
        yield Check("fail", "weights", f"none under {folder}", "restore them: git checkout data/pretrained")
        return
    bad: list[str] = []
    for path in files:
        reason = _unreadable(path)
        if reason:
            bad.append(path.name)
            yield Check("fail", "weights", f"{path}: {reason}", _way_out_for_weights(reason))
    if not bad:
        size_mib = sum(path.stat().st_size for path in files) / 1024**2
        yield Check("ok", "weights", f"{len(files)} files, {size_mib:.1f} MiB")


def _unreadable(path: Path) -> str:
    """Why a weight file is not valid; empty if it is."""
    try:
        check_regular(path)
        with path.open("rb") as file:
            head = file.read(64)
            if head.startswith(_LFS_POINTER):
                return "a Git LFS pointer, not the file"
        if head and path.suffix == ".safetensors":
            read_header(path)
    except (OSError, SafetensorError, PipelineError) as error:
        return " ".join(str(error).split()) or type(error).__name__
    return "" if head else "empty"


def _way_out_for_weights(reason: str) -> str:
    return "git lfs pull" if "LFS" in reason else "restore it: git checkout data/pretrained"


def _prefect(_root: Path) -> Iterator[Check]:
    url = environment.server_url()
    if not url:
        yield Check("ok", "prefect", "no PREFECT_API_URL: a server is started for each run that has work")
        return
    from flows.server import refusal

    reason, shown = refusal(url, timeout_s=5), masked(url)
    if environment.url_source() != "PREFECT_API_URL":
        yield Check("ok", "prefect", f"taken from {environment.url_source()}")
    if not reason:
        yield Check("ok", "prefect", f"server answers at {shown}")
    elif reason in ("401", "403"):
        yield Check("fail", "prefect", f"{shown} refuses us ({reason})", "set PREFECT_API_AUTH_STRING to USER:PASSWORD")
    else:
        way_out = "start it (prefect server start) or unset PREFECT_API_URL"
        yield Check("fail", "prefect", f"no answer at {shown} ({reason})", way_out)


def _locks(root: Path) -> Iterator[Check]:
    stale = locks.stale_rwlock_entries(root)
    if stale:
        yield Check(
            "warn", "locks", f"entries of dead processes for {', '.join(stale[:3])}", "boundaryflow run drops them"
        )
    else:
        yield Check("ok", "locks", "none stale")
