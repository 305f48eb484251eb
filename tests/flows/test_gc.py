from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from boundaryflow.errors import PipelineError
from boundaryflow.formats.tensor_files import write_tensors
from boundaryflow.review.verdicts import Change, Verdicts
from boundaryflow.store.catalog.output import Output
from boundaryflow.store.catalog.review import REVIEW
from flows import gc, locks
from flows.dvc_graph import plan
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


def _shard(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_tensors(path, {"eps": torch.zeros(2000)}, {"schema": "shard/2"})
    return path


def _file(path: Path, content: str = "mine") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path


def _ran_once(root: Path, *names: str) -> None:
    """As if stages of these data sets had run here."""
    with (root / "dvc.lock").open("a") as lock:
        lock.writelines(f"  listing@{name}:\n    cmd: python -m stages.listing {name}\n" for name in names)


def _former(root: Path, job: str = "former", folder: str = "") -> Path:
    where = root / "data/bulk_edit" / (folder or job)
    return _file(where / "last_run.json", json.dumps({"schema": "run/1", "job": job}))


def _all(folder: Path) -> dict[str, bytes]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_verdicts_of_people_stay_whatever_params_say(used: Path) -> None:
    _ran_once(used, "gone")
    Verdicts(REVIEW.folder("gone", used)).put([Change("a", "hat", 1.0, "accepted")])
    half = _file(used / "data/review/gone/.boundaryflow-7-0011223344556677.tmp")
    before = _all(used / "data/review")
    gc.remove(used, gc.collect(used, inactive=True), inactive=True)
    assert not half.exists()
    assert _all(used / "data/review") == {name: data for name, data in before.items() if not name.endswith(".tmp")}


def _cached(root: Path) -> int:
    return len([path for path in (root / ".dvc/cache/files").rglob("*") if path.is_file()])


def test_what_no_result_needs_goes_and_nothing_else(used: Path) -> None:
    for name in ("gone", "resting"):
        _shard(used / "data/invert" / name / _SHARD)
    _file(used / "data/raw/gone/a.tmp")
    _ran_once(used, "gone", "resting")
    (used / "data/edit/toy").mkdir(parents=True)
    (used / "data/edit/toy/.boundaryflow-7-0011223344556677.tmp").write_bytes(b"x")
    for name in ("data/edit/toy/thesis.tmp", "data/invert/gone/mine.txt", "data/inbox/some/upload.png.tmp"):
        (used / name).parent.mkdir(parents=True, exist_ok=True)
        (used / name).write_bytes(b"mine")
    (used / "data/bulk_edit/glasses").mkdir(parents=True)
    _former(used)
    before = _cached(used)
    found = gc.collect(used)
    told = gc.as_text(found)
    assert "data/invert/gone: data set gone is not in params.yaml" in told
    assert "data/bulk_edit/former: job former is not in params.yaml" in told
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
    _shard(used / "data/invert/resting" / _SHARD)
    _ran_once(used, "resting")
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
    with pytest.raises(PipelineError, match="cannot ask without a terminal; use --yes"):
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


def test_files_of_the_user_under_names_of_ours_stay(used: Path) -> None:
    for name in (
        "edit/mysite/index.html", "edit/mysite/grid.png", "edit/mysite/css/deadbeefdeadbeef.png",
        "label/handmade/labels.parquet", "boundary/borrowed/stable-diffusion.safetensors", "evaluate/paper/summary.csv",
        "boundary_metrics/notes.json", "bulk_edit/drafts/grid.png", "report/gone/index.html",
        "edit/gone/manifest.parquet",
        "boundary_metrics/gone.json", "bulk_edit/former/grid.png", "bulk_edit/former/runs.jsonl",
    ):  # fmt: skip
        _file(used / "data" / name)
    for name in ("invert/avatars-backup", "invert/gone/deeper", "mixing/gone"):
        _shard(used / "data" / name / _SHARD)
    _former(used)
    _former(used, "glasses", "glasses-backup")
    _ran_once(used, "gone")
    before = _all(used / "data")
    gc.remove(used, gc.collect(used))
    after = _all(used / "data")
    assert set(before) - set(after) == {"bulk_edit/former/last_run.json"}
    assert "data/edit/mysite: 3 files there are none of ours, and stay" in gc.as_text(gc.collect(used))


def test_files_without_a_mark_go_where_dvc_has_their_hash(used: Path) -> None:
    content = (used / "data/second/toy/out.txt").read_text()
    _file(used / "data/report/gone/index.html", content)
    _file(used / "data/report/gone/images/hat/0123456789abcdef-1.png", content + "changed")
    _file(used / "data/boundary_metrics/gone.json", "{}")
    _ran_once(used, "gone")
    with (used / "dvc.lock").open("a") as lock:
        digest = hashlib.md5(b"{}", usedforsecurity=False).hexdigest()
        lock.write(f"    outs:\n    - path: data/boundary_metrics/gone.json\n      md5: {digest}\n")
    gc.remove(used, gc.collect(used))
    assert list(_all(used / "data/report/gone")) == ["images/hat/0123456789abcdef-1.png"]
    assert not (used / "data/boundary_metrics/gone.json").exists()


def test_data_set_that_only_a_commit_knows_is_ours(used: Path) -> None:
    _ran_once(used, "gone")
    _git(used, "commit", "-q", "-am", "two")
    _git(used, "checkout", "-q", "HEAD~", "dvc.lock")
    path = _shard(used / "data/invert/gone" / _SHARD)
    gc.remove(used, gc.collect(used))
    assert not path.exists()


@pytest.mark.parametrize("link", ["data", "data/invert", "data/bulk_edit"])
def test_nothing_behind_a_link_is_removed(used: Path, tmp_path: Path, link: str) -> None:
    for name in ("invert/gone", "invert/toy"):
        _shard(used / "data" / name / _SHARD)
        (used / "data" / name / ".boundaryflow-7-0011223344556677.tmp").write_bytes(b"x")
    _former(used)
    _ran_once(used, "gone")
    found = gc.collect(used)
    shutil.move(used / link, tmp_path / "big")
    before = _all(tmp_path / "big")
    (used / link).symlink_to(tmp_path / "big")
    assert f"{link}: is a link; what is behind it stays" in gc.as_text(gc.collect(used))
    gc.remove(used, gc.collect(used))
    gc.remove(used, found)
    assert _all(tmp_path / "big") == before


def test_what_became_needed_or_changed_while_the_user_was_asked_stays(
    used: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = _shard(used / "data/invert/new" / _SHARD)
    changed = _shard(used / "data/invert/gone" / _SHARD)
    _ran_once(used, "new", "gone")
    found = gc.collect(used)
    monkeypatch.setattr(_Params, "datasets", ("toy", "new"))
    os.utime(changed, (1, 1))
    (used / "params.yaml").write_text(_PARAMS.format(length=2))
    _repro(used)  # of the run cache: what was not used is again
    cached = _cached(used)
    gc.remove(used, found)
    assert new.exists()
    assert changed.exists()
    assert _cached(used) == cached, "the results of 2 are used again; those of 3 were not spoken of"
    (used / "data/second/toy/out.txt").unlink()
    subprocess.run([sys.executable, "-m", "dvc", "checkout", "-q"], cwd=used, check=True)
    assert "length: 2" in (used / "data/second/toy/out.txt").read_text()


def test_dvc_yaml_without_the_stages_of_the_data_sets_is_refused(used: Path) -> None:
    (used / "params.yaml").write_text("datasets: [toy]\n" + _PARAMS.format(length=3))
    (used / "stages").mkdir()
    for kind in ("__init__", "second", "first"):
        (used / f"stages/{kind}.py").touch()
    gc.collect(used)
    before = (used / "dvc.yaml").read_text()
    for content, told in (
        ("", "first@toy and 1 more"), ("[]", "first@toy and 1 more"), ("# The st", "first@toy and 1 more"),
        (before[: before.index("  second:")], "second@toy"),
    ):  # fmt: skip
        (used / "dvc.yaml").write_text(content)
        for ask in (gc.collect, plan):
            with pytest.raises(PipelineError, match=rf"dvc\.yaml: has no stage {told}; .*git checkout dvc\.yaml"):
                ask(used)


@pytest.mark.parametrize("kind", ["copy", "symlink"])
def test_dvc_lock_cut_between_stages_is_refused(used: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if kind == "symlink":
        _relink(used)
    monkeypatch.setattr(gc, "STAGES", ("first", "second", "third"))
    monkeypatch.setattr("flows.own_outputs._NAMES", {name: r"out\.txt" for name in gc.STAGES})
    monkeypatch.setattr(gc, "CATALOG", {name: Output(name) for name in gc.STAGES})
    gc.collect(used)
    lock = (used / "dvc.lock").read_text()
    (used / "dvc.lock").write_text(lock[: lock.index("  second@toy:")])
    with pytest.raises(PipelineError, match=r"dvc\.lock: has no outputs of second@toy, .* lies in data/second/toy; it"):
        gc.collect(used)
    (used / "data/second/toy/out.txt").unlink()
    _file(used / "data/second/toy/out.txt", "begun, and never in the cache")
    shutil.rmtree(used / "data/third")
    gc.collect(used)


def _relink(root: Path) -> None:
    (root / ".dvc/config.local").write_text("[cache]\n    type = symlink\n")
    subprocess.run([sys.executable, "-m", "dvc", "checkout", "-q", "--relink"], cwd=root, check=True)
    assert (root / "data/second/toy/out.txt").is_symlink()


def test_links_into_the_cache_go_with_their_data_set_and_are_used_till_then(
    used: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _relink(used)
    (used / "dvc.lock").write_text("schema: '2.0'\nstages:\n")
    (used / "dvc.lock").unlink()
    _git(used, "rm", "-q", "--cached", "dvc.lock")
    gc.remove(used, gc.collect(used, keep="workspace"), keep="workspace")
    for name in ("first", "second", "side", "third"):
        assert (used / f"data/{name}/toy/out.txt").exists(), "no dangling link"
    monkeypatch.setattr(gc, "STAGES", ("second",))
    monkeypatch.setattr("flows.own_outputs._NAMES", {"second": r"out\.txt"})
    monkeypatch.setattr(_Params, "datasets", ())
    monkeypatch.setattr(_Params, "data", {})
    target = (used / "data/second/toy/out.txt").resolve()
    gc.remove(used, gc.collect(used, keep="workspace"), keep="workspace")
    assert not (used / "data/second/toy").exists()
    assert not target.exists()
    assert (used / "data/third/toy/out.txt").exists()


def test_cache_behind_a_link_of_the_whole_dvc_folder_is_left_alone(used: Path, tmp_path: Path) -> None:
    shutil.move(used / ".dvc", tmp_path / "shared")
    (used / ".dvc").symlink_to(tmp_path / "shared")
    log = _file(tmp_path / "shared/tmp/boundaryflow/logs/error-old.log")
    os.utime(log, (1, 1))
    (used / ".dvc/config.local").write_text("[core]\n    no_scm = true\n")
    before = _all(tmp_path / "shared/cache")
    found = gc.collect(used, keep="workspace")
    assert "may be shared with others, and stays" in gc.as_text(found)
    gc.remove(used, found, keep="workspace")
    assert _all(tmp_path / "shared/cache") == before
    assert log.exists()


def test_damaged_lock_is_told_by_its_cause(used: Path) -> None:
    (used / "dvc.lock").write_text("schema: '9.0'\n")
    with pytest.raises(PipelineError, match=r"dvc\.lock.*`boundaryflow run` sets a damaged one aside"):
        gc.collect(used)
