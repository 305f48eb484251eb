from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from boundaryflow.errors import PipelineError
from flows import locks
from flows.dvc_graph import plan
from tests.flows.toy import QUIET_DVC
from tests.hostile.corpus_serve import CASES

pytestmark = pytest.mark.filterwarnings(QUIET_DVC)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / ".dvc/tmp").mkdir(parents=True)
    return tmp_path


def test_flow_lock_is_held_by_one_and_says_who(root: Path) -> None:
    assert locks.flow_holder(root) is None
    with locks.flow_lock(root):
        assert f"process {os.getpid()}" in (locks.flow_holder(root) or "")
        with pytest.raises(locks.FlowBusyError, match="boundaryflow status"), locks.flow_lock(root):
            pass
    assert locks.flow_holder(root) is None


def test_flow_lock_of_a_killed_process_is_free(root: Path) -> None:
    imports = "import os, sys; from pathlib import Path; from flows import locks"
    code = f"{imports}\nwith locks.flow_lock(Path(sys.argv[1])): os.abort()"
    subprocess.run([sys.executable, "-c", code, str(root)], check=False, stderr=subprocess.DEVNULL)
    with locks.flow_lock(root):
        pass


def test_clear_what_is_stale_keeps_living_dvc_and_drops_the_rest(root: Path) -> None:
    (root / "dvc").write_text("import time; time.sleep(30)")
    alive = subprocess.Popen([sys.executable, root / "dvc", "repro"])
    while b"dvc" not in Path(f"/proc/{alive.pid}/cmdline").read_bytes():
        time.sleep(0.01)
    editor = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(30)", "dvc.yaml", "dvc"])
    try:
        users = {"dvc": {"pid": alive.pid, "cmd": "dvc repro"}, "gone": {"pid": 2**22 - 1, "cmd": "dvc repro"}}
        users["editor"] = {"pid": editor.pid, "cmd": "dvc repro"}
        users["reused"] = {"pid": os.getpid(), "cmd": "dvc repro"}
        path = root / ".dvc/tmp/rwlock"
        path.write_text(
            json.dumps({"write": {"a": users["dvc"], "b": users["gone"]}, "read": {"c": list(users.values())}})
        )
        assert locks.stale_rwlock_entries(root) == ("b", "c")
        locks.clear_what_is_stale(root)
        assert json.loads(path.read_text()) == {"write": {"a": users["dvc"]}, "read": {"c": [users["dvc"]]}}
    finally:
        for process in (alive, editor):
            process.kill()
            process.wait()


def test_clear_what_is_stale_without_a_file_does_nothing(root: Path) -> None:
    locks.clear_what_is_stale(root)
    assert not (root / ".dvc/tmp/rwlock").exists()


@pytest.mark.parametrize(
    ("command", "is_dvc"),
    [
        ("/venv/bin/dvc repro", True),
        ("/venv/bin/python /venv/bin/dvc status", True),
        ("python3 -I -m dvc --wait-for-lock repro", True),
        ("vim dvc.yaml", False),
        ("python -m http.server dvc", False),
        ("python -c x dvc", False),
        ("", False),
    ],
)
def test_process_is_dvc_by_its_program_and_not_by_a_word(command: str, is_dvc: bool) -> None:
    assert locks._runs_dvc(command.split(" ")) is is_dvc


@pytest.mark.parametrize("case", [name for name in CASES if name.startswith("rwlock")])
def test_damaged_rwlock_is_set_aside_unless_dvc_is_at_work(root: Path, case: str) -> None:
    path, notes = CASES[case](root), list[str]()
    content = path.read_bytes()
    assert locks.stale_rwlock_entries(root) == (".dvc/tmp/rwlock (damaged)",)
    if case == "rwlock_cut":
        (root / "dvc").write_text("import time; time.sleep(30)")
        alive = subprocess.Popen([sys.executable, root / "dvc", "repro"], cwd=root)
        while b"repro" not in Path(f"/proc/{alive.pid}/cmdline").read_bytes():
            time.sleep(0.01)
        try:
            with pytest.raises(PipelineError, match=rf"is damaged, and DVC is at work here \(process {alive.pid}\)"):
                locks.clear_what_is_stale(root, notes.append)
        finally:
            alive.kill()
            alive.wait()
        assert path.read_bytes() == content
    locks.clear_what_is_stale(root, notes.append)
    assert not path.exists()
    assert len(notes) == 1
    assert notes[0].startswith(".dvc/tmp/rwlock was damaged; it lies in .dvc/tmp/boundaryflow/damaged/rwlock-")


@pytest.mark.parametrize("case", [name for name in CASES if name.startswith("lock") and name != "lock_conflict"])
def test_damaged_dvc_lock_is_set_aside_and_the_graph_can_be_read(toy: Path, case: str) -> None:
    content = CASES[case](toy).read_bytes()
    with pytest.raises(PipelineError, match=r"dvc\.lock.*; `boundaryflow run` sets a damaged one aside"):
        plan(toy)
    locks.clear_what_is_stale(toy, lambda _: None)
    (kept,) = (toy / ".dvc/tmp/boundaryflow/damaged").iterdir()
    assert kept.read_bytes() == content
    assert len(plan(toy)) == 4
