"""SIGKILL at random moments: the next run completes, to the bytes of an undisturbed one."""

from __future__ import annotations

import importlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.faults.checkout import (
    STAGES,
    boundaryflow,
    environment,
    half_written,
    make_checkout,
    processes_in,
    repro,
    results,
)
from tests.faults.tally import Tally, broken_shards
from tests.small_project import content, copy_project, run_here

pytestmark = [pytest.mark.faults, pytest.mark.timeout(1800)]
NUM_PER_STAGE, NUM_OF_FLOW = 11, 6


def _fork_stage(folder: Path, stage: str) -> int:
    """Run a stage in a child that starts at once, as everything is imported already; its process id."""
    module = importlib.import_module(f"stages.{stage}")
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.chdir(folder)
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, 1)
            os.dup2(null, 2)
            sys.argv = [stage, "avatars"]
            module.main.__wrapped__()
            code = 0
        finally:
            os._exit(code)
    return child


@pytest.fixture(scope="module")
def reported(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The finished project with its report."""
    folder = copy_project(finished, tmp_path_factory.mktemp("reported") / "project")
    with pytest.MonkeyPatch.context() as patch:
        run_here(folder, patch, "report")
    return folder


@pytest.mark.parametrize("stage", STAGES)
def test_stage_killed_at_random_moments(
    reported: Path, tmp_path: Path, stage: str, tally: Tally, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BOUNDARYFLOW_PROGRESS", "off")
    undisturbed = content(reported / "data")
    rng, num_killed = random.Random(f"kill {stage}"), 0
    started = time.monotonic()
    trial = copy_project(reported, tmp_path / "trial")
    _empty(trial, stage, rng, everything=True)
    os.waitpid(_fork_stage(trial, stage), 0)
    seconds = time.monotonic() - started
    for number in range(NUM_PER_STAGE):
        folder = copy_project(reported, tmp_path / f"project-{number}")
        _empty(folder, stage, rng, everything=number % 2 == 0)
        child = _fork_stage(folder, stage)
        time.sleep(rng.uniform(0, seconds))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        num_killed += os.WIFSIGNALED(status)
        assert broken_shards(folder / "data" / stage) == []
        run_here(folder, monkeypatch, stage)
        tally.count("SIGKILL of a stage at a random moment", undisturbed, content(folder / "data"))
        monkeypatch.chdir(tmp_path)
        shutil.rmtree(folder)
    assert num_killed > 0, "every stage had ended before it was killed"


def _empty(folder: Path, stage: str, rng: random.Random, *, everything: bool) -> None:
    """Take away all that a stage wrote, or some of its files."""
    files = sorted(path for path in (folder / "data" / stage / "avatars").rglob("*") if path.is_file())
    for path in files:
        if everything or rng.random() < 0.5:
            path.unlink()


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout in which the whole graph has run."""
    folder = make_checkout(tmp_path_factory.mktemp("checkout") / "checkout")
    done = repro(folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("number", range(NUM_OF_FLOW))
@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT], ids=["SIGKILL", "SIGINT"])
def test_flow_stopped_at_a_random_moment(
    checkout: Path, tmp_path: Path, number: int, sent: signal.Signals, tally: Tally
) -> None:
    if sent == signal.SIGINT and number >= NUM_OF_FLOW // 2:
        pytest.skip("half as many of these")
    undisturbed, rng = results(checkout), random.Random(f"flow {sent} {number}")
    folder = Path(shutil.copytree(checkout, tmp_path / "checkout", symlinks=True))
    for stage in rng.sample(STAGES[3:], 3):
        shutil.rmtree(folder / "data" / stage / "avatars")
    shutil.rmtree(folder / ".dvc/cache", ignore_errors=True)
    command = [sys.executable, "-m", "flows.cli", "run", "--quiet"]
    process = subprocess.Popen(
        command, cwd=folder, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    time.sleep(rng.uniform(3, 25))
    process.send_signal(sent)
    process.wait(timeout=120)
    deadline = time.monotonic() + 20
    while processes_in(folder) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert processes_in(folder) == [], "a child process is left"
    done = boundaryflow(folder, "run", "--quiet")
    assert done.returncode == 0, done.stderr
    assert half_written(folder) == []
    tally.count(f"{sent.name} of the flow at a random moment", undisturbed, results(folder))
