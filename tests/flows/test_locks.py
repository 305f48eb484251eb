from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flows import locks


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
    alive = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(30)", "dvc"])
    while b"dvc" not in Path(f"/proc/{alive.pid}/cmdline").read_bytes():
        time.sleep(0.01)
    try:
        users = {"dvc": {"pid": alive.pid, "cmd": "dvc repro"}, "gone": {"pid": 2**22 - 1, "cmd": "dvc repro"}}
        users["reused"] = {"pid": os.getpid(), "cmd": "dvc repro"}
        path = root / ".dvc/tmp/rwlock"
        path.write_text(
            json.dumps({"write": {"a": users["dvc"], "b": users["gone"]}, "read": {"c": list(users.values())}})
        )
        assert locks.stale_rwlock_entries(root) == ("b", "c")
        locks.clear_what_is_stale(root)
        assert json.loads(path.read_text()) == {"write": {"a": users["dvc"]}, "read": {"c": [users["dvc"]]}}
    finally:
        alive.kill()
        alive.wait()


def test_clear_what_is_stale_without_a_file_does_nothing(root: Path) -> None:
    locks.clear_what_is_stale(root)
    assert not (root / ".dvc/tmp/rwlock").exists()
