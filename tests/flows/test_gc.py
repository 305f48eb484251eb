from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from boundaryflow.errors import PipelineError
from flows import gc, locks
from tests.flows.toy import QUIET_DVC, attempts

pytestmark = pytest.mark.filterwarnings(QUIET_DVC)

_PARAMS = """\
length: {length}
"""


class _Params:
    datasets = ("toy",)
    data = {"toy": None, "resting": None}  # noqa: RUF012
    bulk_edit = {"glasses": None}  # noqa: RUF012
    augment: dict[str, None] = {}  # noqa: RUF012


def _repro(root: Path) -> None:
    subprocess.run([sys.executable, "-m", "dvc", "repro", "-q"], cwd=root, check=True)


def _git(root: Path, *words: str) -> None:
    subprocess.run(["git", "-c", "user.name=t", "-c", "user.email=t@example.com", *words], cwd=root, check=True)


@pytest.fixture(scope="module")
def used_template(toy_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = Path(shutil.copytree(toy_template, tmp_path_factory.mktemp("used") / "checkout"))
    _repro(root)
    _git(root, "add", "-A")
    _git(root, "commit", "-q", "-m", "one")
    for length in (2, 3):
        (root / "params.yaml").write_text(_PARAMS.format(length=length))
        _repro(root)
    return root


@pytest.fixture
def used(used_template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout in which a parameter went 1, committed, 2, 3: the results of 2 belong to nothing."""
    monkeypatch.setattr("boundaryflow.config.load_params", lambda _root: _Params())
    return Path(shutil.copytree(used_template, tmp_path / "checkout", symlinks=True))


_SHARD = "shard-0of1-0123456789ab.safetensors"


def _cached(root: Path) -> int:
    return len([path for path in (root / ".dvc/cache/files").rglob("*") if path.is_file()])


def test_what_no_result_needs_goes_and_nothing_else(used: Path) -> None:
    for name in (f"data/invert/gone/{_SHARD}", f"data/invert/resting/{_SHARD}", "data/raw/gone/a.tmp"):
        (used / name).parent.mkdir(parents=True, exist_ok=True)
        (used / name).write_bytes(b"x" * 5000)
    (used / "data/edit/toy").mkdir(parents=True)
    (used / "data/edit/toy/.boundaryflow-7-0011223344556677.tmp").write_bytes(b"x")
    for name in ("data/edit/toy/thesis.tmp", "data/invert/gone/mine.txt", "data/inbox/some/upload.png.tmp"):
        (used / name).parent.mkdir(parents=True, exist_ok=True)
        (used / name).write_bytes(b"mine")
    (used / "data/bulk_edit/glasses").mkdir(parents=True)
    (used / "data/bulk_edit/former").mkdir(parents=True)
    (used / "data/bulk_edit/former/last_run.json").write_text("{}")
    before = _cached(used)
    found = gc.collect(used)
    told = gc.as_text(found)
    assert "data/invert/gone: data set gone is not in params.yaml" in told
    assert "data/bulk_edit/former: recipe former is not in params.yaml" in told
    assert "1 half-written files" in told
    assert "data/invert/gone: 1 files there are none of ours, and stay" in told
    assert "objects in DVC's cache that neither the working tree nor a branch or tag uses" in told
    assert "resting" not in told
    freed = gc.remove(used, found)
    assert freed == sum(item.size_bytes for item in found) > 5000
    assert [path.name for path in (used / "data/invert/gone").iterdir()] == ["mine.txt"]
    assert (used / "data/edit/toy/thesis.tmp").exists()
    assert (used / "data/inbox/some/upload.png.tmp").exists()
    assert (used / "data/invert/resting").exists()
    assert (used / "data/raw/gone/a.tmp").exists()
    assert (used / "data/bulk_edit/glasses").exists()
    assert 0 < _cached(used) < before
    assert all(item.is_note for item in gc.collect(used))
    num = len(attempts(used))
    _repro(used)
    assert len(attempts(used)) == num, "nothing had to be computed again"
    _git(used, "checkout", "-q", "params.yaml", "dvc.lock")
    subprocess.run([sys.executable, "-m", "dvc", "checkout", "-q"], cwd=used, check=True)
    _repro(used)
    assert len(attempts(used)) == num, "the committed result is still there"


def test_workspace_keeps_less_and_inactive_takes_more(used: Path) -> None:
    (used / "data/invert/resting").mkdir(parents=True)
    (used / "data/invert/resting" / _SHARD).write_bytes(b"x")
    sizes = {keep: gc.collect(used, keep=keep)[-1].size_bytes for keep in ("workspace", "branches", "commits")}
    assert sizes["workspace"] > sizes["branches"] == sizes["commits"] > 0
    told = gc.as_text(gc.collect(used, inactive=True))
    assert "data/invert/resting: data set resting is not in `datasets`" in told


def test_old_error_logs_go_young_ones_stay(used: Path) -> None:
    logs = used / ".dvc/tmp/boundaryflow/logs"
    logs.mkdir(parents=True, exist_ok=True)
    for name, days in (("error-old.log", 40), ("error-young.log", 1)):
        (logs / name).write_text("x")
        then = time.time() - days * 24 * 3600
        os.utime(logs / name, (then, then))
    gc.remove(used, gc.collect(used))
    assert [path.name for path in logs.glob("error-*")] == ["error-young.log"]


def test_run_at_work_and_nobody_to_ask_are_refused(used: Path) -> None:
    with locks.flow_lock(used), pytest.raises(locks.FlowBusyError):
        gc.collect(used)
    with pytest.raises(PipelineError, match="no terminal to ask on; say --yes"):
        gc.check_terminal(is_terminal=False, yes=False)
    gc.check_terminal(is_terminal=False, yes=True)


def test_a_cache_that_others_may_share_is_left_alone(used: Path, tmp_path: Path) -> None:
    shared = tmp_path / "shared-cache"
    shutil.copytree(used / ".dvc/cache", shared)
    (used / ".dvc/config.local").write_text(f"[cache]\n    dir = {shared}\n")
    before = sorted(path for path in shared.rglob("*") if path.is_file())
    found = gc.collect(used, keep="workspace")
    assert f"DVC's cache {shared}/files/md5 may be shared with others, and stays" in gc.as_text(found)
    gc.remove(used, found, keep="workspace")
    assert sorted(path for path in shared.rglob("*") if path.is_file()) == before
