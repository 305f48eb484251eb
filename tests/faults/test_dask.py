"""Shards over a Dask cluster of processes: the same bytes, whoever is killed on the way."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.faults.cluster import Cluster
from tests.small_project import ROOT, command, content, environment, run_stage

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]
STAGE = "invert"


@pytest.fixture
def emptied(project: Path) -> Path:
    """The project without the shards of one stage."""
    for path in (project / "data" / STAGE / "avatars").glob("shard-*"):
        path.unlink()
    return project


def shards(folder: Path) -> list[Path]:
    return sorted((folder / "data" / STAGE / "avatars").glob("shard-*.safetensors"))


def slow_code(tmp_path: Path) -> Path:
    """The code of this checkout, whose `invert` waits a second for each shard; nothing else of it differs."""
    folder = tmp_path / "slow"
    for name in ("boundaryflow", "stages"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    path = folder / "stages/invert.py"
    text = path.read_text()
    assert "    net = open_model(model, dtype)\n    path = timestep_path" in text
    path.write_text(
        text.replace(
            "    net = open_model(model, dtype)\n    path = timestep_path",
            "    import time\n    time.sleep(1)\n    net = open_model(model, dtype)\n    path = timestep_path",
        )
    )
    return folder


@pytest.fixture
def code(tmp_path: Path) -> Path:
    """Code that is slow enough to be killed at."""
    return slow_code(tmp_path)


@pytest.fixture
def undisturbed(code: Path, emptied: Path, tmp_path: Path) -> dict[str, bytes]:
    """What a local run of this code leaves."""
    copy = Path(shutil.copytree(emptied, tmp_path / "undisturbed"))
    env = {**environment(), "PYTHONPATH": str(code)}
    subprocess.run(command(STAGE), cwd=copy, env=env, check=True, stderr=subprocess.DEVNULL)
    return content(copy / "data" / STAGE)


def start(folder: Path, cluster: Cluster, code: Path) -> subprocess.Popen[bytes]:
    env = {**environment(BOUNDARYFLOW_DASK=cluster.address), "PYTHONPATH": str(code)}
    with (folder / "client.log").open("wb") as log:
        return subprocess.Popen(command(STAGE), cwd=folder, env=env, stderr=log)


def said(folder: Path) -> str:
    return (folder / "client.log").read_text()


def wait_for_shards(folder: Path, num: int, process: subprocess.Popen[bytes]) -> None:
    while len(shards(folder)) < num:
        assert process.poll() is None, said(folder)
        time.sleep(0.05)


def test_two_workers_write_the_bytes_of_a_local_run_and_load_the_model_once_each(
    finished: Path, emptied: Path, tmp_path: Path
) -> None:
    with Cluster(emptied, tmp_path / "cluster", num_threads=3) as cluster:
        result = run_stage(emptied, STAGE, BOUNDARYFLOW_DASK=cluster.address)
        assert result.returncode == 0, result.stderr
        assert content(emptied / "data" / STAGE) == content(finished / "data" / STAGE)
        workers = {line.rpartition("on ")[2] for line in result.stderr.splitlines() if " shard " in line}
        assert len(workers) == 2
        for number in range(2):
            assert cluster.log(number).count("model data/pretrained/tiny") <= 1


def test_shards_of_a_killed_worker_are_done_elsewhere(
    emptied: Path, tmp_path: Path, code: Path, undisturbed: dict[str, bytes]
) -> None:
    with Cluster(emptied, tmp_path / "cluster", code=code) as cluster:
        process = start(emptied, cluster, code)
        wait_for_shards(emptied, 2, process)
        cluster.kill(0)
        assert process.wait() == 0, said(emptied)
    assert content(emptied / "data" / STAGE) == undisturbed


def test_all_workers_killed_then_one_comes(
    emptied: Path, tmp_path: Path, code: Path, undisturbed: dict[str, bytes]
) -> None:
    with Cluster(emptied, tmp_path / "cluster", code=code) as cluster:
        process = start(emptied, cluster, code)
        wait_for_shards(emptied, 2, process)
        cluster.kill(0)
        cluster.kill(1)
        time.sleep(3)
        cluster.add_worker()
        assert process.wait() == 0, said(emptied)
    assert content(emptied / "data" / STAGE) == undisturbed


def test_nobody_comes_and_the_line_says_what_to_do(emptied: Path, tmp_path: Path) -> None:
    with Cluster(emptied, tmp_path / "cluster", num_workers=0) as cluster:
        result = run_stage(emptied, STAGE, BOUNDARYFLOW_DASK=cluster.address, BOUNDARYFLOW_DASK_WAIT_S="3")
    assert result.returncode == 75
    assert "no worker for 3 s; start some, and run again: finished shards are kept" in result.stderr
    assert "Traceback" not in result.stderr


def test_killed_client_keeps_what_was_finished_and_stragglers_write_nothing(
    emptied: Path, tmp_path: Path, code: Path, undisturbed: dict[str, bytes]
) -> None:
    with Cluster(emptied, tmp_path / "cluster", code=code) as cluster:
        process = start(emptied, cluster, code)
        wait_for_shards(emptied, 3, process)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        time.sleep(2.5)  # what was in hand is done
        there = len(shards(emptied))
        assert 3 <= there < 8
        assert start(emptied, cluster, code).wait() == 0, said(emptied)
        assert f"invert: {8 - there} shards to write, {there} up to date" in said(emptied)
    assert content(emptied / "data" / STAGE) == undisturbed


def test_worker_of_another_version_is_refused(finished: Path, emptied: Path, tmp_path: Path, code: Path) -> None:
    with Cluster(emptied, tmp_path / "cluster", num_workers=1, code=code) as cluster:
        alone = run_stage(emptied, STAGE, BOUNDARYFLOW_DASK=cluster.address)
        assert alone.returncode == 2
        assert "no worker matches this run, such as tcp://" in alone.stderr
        assert "code is " in alone.stderr
        assert "Traceback" not in alone.stderr
        cluster.add_worker(ROOT)
        both = run_stage(emptied, STAGE, BOUNDARYFLOW_DASK=cluster.address)
        assert both.returncode == 0, both.stderr
        assert both.stderr.count("is given no shards: code is ") == 1
    assert content(emptied / "data" / STAGE) == content(finished / "data" / STAGE)


def test_one_shard_at_a_time_on_a_gpu(finished: Path, emptied: Path, tmp_path: Path) -> None:
    with Cluster(emptied, tmp_path / "cluster", num_workers=1, resources="GPU=1", num_threads=4) as cluster:
        result = run_stage(emptied, STAGE, BOUNDARYFLOW_DASK=cluster.address)
        assert result.returncode == 0, result.stderr
    assert content(emptied / "data" / STAGE) == content(finished / "data" / STAGE)
