"""DVC and `status` go by the listing: what lies beside the pictures can neither hang nor end them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from flows.cli import cli
from flows.dvc_graph import plan
from tests.conftest import ROOT
from tests.flows.toy import QUIET_DVC
from tests.hostile.corpus_listing import CASES
from tests.raw_data import encoded
from tests.small_project import write_project

pytestmark = pytest.mark.filterwarnings(QUIET_DVC)
_AFTER = {
    "matrix": {"ds": "${datasets}"},
    "cmd": "echo ${item.ds} >> ran.txt && cat data/listing/${item.ds}/pictures.parquet > data/after-${item.ds}.bin",
    "deps": ["data/listing/${item.ds}/pictures.parquet"],
    "outs": ["data/after-${item.ds}.bin"],
}


@pytest.fixture(scope="module")
def listed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two data sets whose listings are up to date, and a stage that reads them."""
    label = {"source": {"kind": "csv", "path": "l.csv", "file_column": "file"}, "attributes": {"x": {"column": None}}}
    root = write_project(
        tmp_path_factory.mktemp("listed") / "checkout", ingest__source={"kind": "folder"}, label=label,
        edit__edits={"x": {"x": "flip"}}, evaluate__counterfactuals=False,
    )  # fmt: skip
    params = yaml.safe_load((root / "params.yaml").read_text())
    params |= {"datasets": ["one", "two"], "data": {name: params["data"]["avatars"] for name in ("one", "two")}}
    (root / "params.yaml").write_text(yaml.safe_dump(params))
    ours = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    stages = {"params": ours["params"], "listing": ours["listing"], "after": _AFTER}
    (root / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    for dep in (dep for kind in ("params", "listing") for dep in ours[kind]["deps"] if not dep.startswith("data/")):
        (root / dep).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / dep, root / dep)
    for name in ("one", "two"):
        (root / f"data/raw/{name}").mkdir(parents=True)
        (root / f"data/raw/{name}/fine.png").write_bytes(encoded(0, (16, 16)))
        (root / f"data/raw/{name}/l.csv").write_text("file,x\nfine.png,1\n")
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    dvc(root, "init", "-q")
    dvc(root, "repro", "-q")
    return root


@pytest.fixture
def root(listed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = Path(shutil.copytree(listed, tmp_path / "checkout"))
    monkeypatch.chdir(folder)
    return folder


def dvc(root: Path, *words: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    subprocess.run([sys.executable, "-m", "dvc", *words], cwd=root, check=True, env=environment, timeout=100)


def reasons(root: Path) -> dict[str, str]:
    return {step.name: step.reason for step in plan(root) if step.reason}


def test_nothing_has_work_while_the_folder_is_as_it_was(root: Path) -> None:
    assert reasons(root) == {}
    for path in (root / "data/raw").rglob("*"):
        os.utime(path)
    assert reasons(root) == {}
    (root / "data/raw/two/new.png").write_bytes(encoded(1, (16, 16)))
    assert reasons(root) == {
        "listing@two": "data/raw/two: pictures: 1 new",
        "after@two": "listing@two will run",
    }


def test_dvc_alone_runs_what_reads_a_folder_that_changed_and_nothing_else(root: Path) -> None:
    assert (root / "ran.txt").read_text().split() == ["one", "two"]
    (root / "data/raw/two/new.png").write_bytes(encoded(1, (16, 16)))
    os.mkfifo(root / "data/raw/two/pipe.png")
    os.utime(root / "data/raw/one/fine.png")
    dvc(root, "repro", "-q")
    assert (root / "ran.txt").read_text().split() == ["one", "two", "two"]
    assert reasons(root) == {}


@pytest.mark.parametrize(
    "case", ["device by a link", "dangling link", "fifo", "link to itself", "name not UTF-8", "socket", "sparse movie"]
)
def test_status_of_a_folder_with_an_odd_entry(root: Path, tmp_path: Path, case: str) -> None:
    shutil.rmtree(root / "data/raw/two")
    CASES[case](tmp_path).rename(root / "data/raw/two")
    result = CliRunner().invoke(cli, ["status"])
    assert result.exit_code == 0, result.output
    lines = {line.split()[0]: line for line in result.output.splitlines() if "@" in line}
    assert "up to date" in lines["listing@one"]
    assert lines["listing@two"].endswith("data/raw/two: pictures: 1 new")


def test_folder_that_is_missing_concerns_its_own_data_set_alone(root: Path) -> None:
    shutil.rmtree(root / "data/raw/two")
    told = reasons(root)
    assert sorted(told) == ["after@two", "listing@two"]
    assert told["listing@two"].startswith("ingest data/raw/two: no such folder; put images there")
