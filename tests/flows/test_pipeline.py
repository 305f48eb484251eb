from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flows import locks, progress
from flows.progress import Board
from flows.run import execute
from tests.flows.test_processes import is_gone
from tests.flows.toy import QUIET_DVC, attempts

pytestmark = [
    pytest.mark.filterwarnings(QUIET_DVC),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:prefect"),
    pytest.mark.usefixtures("prefect_server"),
    # The server takes seconds to start, and minutes where others keep the machine busy: not the tests' own time.
    pytest.mark.timeout(300, func_only=True),
]

_EXECUTE = "import sys; from pathlib import Path; from flows.run import execute; sys.exit(execute(Path('.').resolve()))"


def _states(root: Path) -> dict[str, str]:
    """Run the flow itself, whatever there is to do."""
    from flows import pipeline

    board = Board(root)
    progress.use(board)
    pipeline.call(root, (), (), force=False, push=False)
    return {name: outcome.state for name, outcome in board.outcomes.items()}


def test_run_then_again_then_changed_runs_what_is_stale(toy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(toy) == 0
    assert sorted(attempts(toy)) == ["first", "second", "side", "third"]
    assert attempts(toy)[0] == "first"
    assert "done in" in capsys.readouterr().err

    assert execute(toy) == 0
    assert "everything is up to date (4 stages)" in capsys.readouterr().out
    assert set(_states(toy).values()) == {"up to date"}
    assert len(attempts(toy)) == 4

    (toy / "params.yaml").write_text("length: 2\n")
    assert _states(toy) == {
        "first@toy": "up to date",
        "second@toy": "done",
        "side@toy": "up to date",
        "third@toy": "done",
    }
    assert attempts(toy)[4:] == ["second", "third"]


def test_cached_stage_is_cached_in_prefect_too(toy: Path) -> None:
    from flows import pipeline

    progress.use(Board(toy))
    assert pipeline.run_stage.fn("first@toy", str(toy), False, False).name == "Cached"


def test_users_mistake_fails_the_run_at_once_and_stops_what_needs_it(
    toy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (toy / "control/second").write_text("exit 2")
    assert execute(toy) == 2
    assert sorted(attempts(toy)) == ["first", "second", "side"]
    said = capsys.readouterr().err
    assert "second@toy failed: params.yaml: second.length is 0, must be at least 1" in said
    assert "not run because of that: third@toy" in said
    log = toy / ".dvc/tmp/boundaryflow/logs/second@toy.log"
    assert str(log) in said
    assert "second shard 2/2" in log.read_text()


@pytest.mark.parametrize(
    ("order", "exit_code", "num_attempts"),
    [("exit 1", 1, 1), ("exit 75", 1, 3), ("once 75", 0, 2)],
    ids=["bug", "for good", "once"],
)
def test_only_what_may_pass_is_tried_again(toy: Path, order: str, exit_code: int, num_attempts: int) -> None:
    (toy / "control/first").write_text(order)
    assert execute(toy, stages=["first"], quiet=True) == exit_code
    assert attempts(toy) == ["first"] * num_attempts


def test_stage_that_was_killed_gets_half_the_batch_size(toy: Path) -> None:
    (toy / "control/first").write_text("kill 9")
    assert execute(toy, stages=["first"], quiet=True) == 1
    assert (toy / "halvings.txt").read_text().split() == ["0", "1", "2"]  # and is tried again


@pytest.mark.parametrize(("device", "most"), [("cpu", 2), ("cuda", 1)])
def test_independent_stages_run_side_by_side_but_not_on_one_gpu(
    toy: Path, monkeypatch: pytest.MonkeyPatch, device: str, most: int
) -> None:
    from flows import pipeline

    monkeypatch.setenv("BOUNDARYFLOW_PARALLEL", "2")
    monkeypatch.setenv("BOUNDARYFLOW_DEVICE", device)
    monkeypatch.setattr(pipeline, "ON_GPU", {"second", "side"})
    (toy / "control/second").write_text("sleep 1.5")
    (toy / "control/side").write_text("sleep 1.5")
    board = Board(toy)
    at_once: list[int] = []
    started = board.started

    def count(stage: str, attempt: int = 1) -> None:
        started(stage, attempt)
        at_once.append(len(board.running))

    board.started = count  # type: ignore[method-assign]
    progress.use(board)
    pipeline.call(toy, (), ("second", "side"), force=False, push=False)
    assert at_once == [1, 1, most]


def test_push_without_a_remote_is_refused_with_it_sends(toy: Path, tmp_path: Path) -> None:
    from boundaryflow.errors import ParamsError

    with pytest.raises(ParamsError, match="dvc remote add"):
        execute(toy, push=True)
    subprocess.run(
        [sys.executable, "-m", "dvc", "remote", "add", "-q", "-d", "s", str(tmp_path / "s")], cwd=toy, check=True
    )
    assert execute(toy, stages=["first"], push=True, quiet=True) == 0
    assert list((tmp_path / "s").rglob("*.dir"))


def test_second_run_in_one_checkout_is_refused(toy: Path) -> None:
    with locks.flow_lock(toy), pytest.raises(locks.FlowBusyError, match=f"process {os.getpid()}"):
        execute(toy)


@pytest.mark.parametrize(
    ("number", "code"),
    [
        pytest.param(signal.SIGINT, 130, id="SIGINT"),
        pytest.param(signal.SIGTERM, 130, id="SIGTERM", marks=pytest.mark.slow),
        pytest.param(signal.SIGKILL, -signal.SIGKILL, id="SIGKILL"),
    ],
)
def test_stopped_run_leaves_no_child(toy: Path, prefect_server: str, number: signal.Signals, code: int) -> None:
    (toy / "control/first").write_text("sleep 120")
    env = {**os.environ, "PREFECT_API_URL": prefect_server, "PYTHONPATH": str(Path(__file__).parents[2])}
    with (toy / "run.log").open("w") as log:
        run = subprocess.Popen([sys.executable, "-c", _EXECUTE], cwd=toy, env=env, stdout=log, stderr=subprocess.STDOUT)
    note = toy / "sleeping.txt"
    deadline = time.monotonic() + 120
    while not (note.exists() and note.read_text()):
        assert run.poll() is None, (toy / "run.log").read_text()
        assert time.monotonic() < deadline, (toy / "run.log").read_text()
        time.sleep(0.05)
    run.send_signal(number)
    assert run.wait(timeout=60) == code
    assert is_gone(int(note.read_text())), (toy / "run.log").read_text()
    if code == 130:  # what is killed outright may be in the middle of saying something
        said = (toy / "run.log").read_text()
        assert "Traceback" not in said
        assert "goes on from there" in said
