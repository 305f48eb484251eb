"""`boundaryflow run`: plan, run, and report. Prefect is imported only if a stage has to run."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from boundaryflow.errors import ParamsError, PipelineError
from boundaryflow.text import visible
from flows import environment, locks, processes, progress, record, summary
from flows.dvc_graph import Step, has_remote, plan
from flows.environment import log_path
from flows.progress import Board, LogBoard, Outcome
from flows.record import Kind

EXIT_INTERRUPTED = 130


def execute(
    root: Path,
    datasets: Sequence[str] = (),
    stages: Sequence[str] = (),
    *,
    force: bool = False,
    pull: bool = False,
    push: bool = False,
    quiet: bool = False,
    verbose: bool = False,
) -> int:
    """Bring the graph up to date and report on it.

    Args:
        root: The checkout.
        datasets: Only these data sets; empty for all.
        stages: Only these stages and their upstream stages; empty for all.
        force: Run the chosen stages though they are up to date.
        pull: Fetch outputs that DVC's remote has instead of computing them.
        push: Send the outputs to DVC's remote at the end.
        quiet: Print errors only.
        verbose: Show what the stages print.

    Returns:
        The exit status: 0; 2 if all failures are errors of the user; 130 if interrupted; otherwise 1.

    Raises:
        PipelineError: The run cannot begin.
    """
    environment.prepare(root)
    environment.num_parallel()
    environment.retry_delay_s()
    options = {"force": force, "pull": pull, "push": push}
    return _until_interrupted(root, lambda: _execute(root, datasets, stages, options, quiet=quiet, verbose=verbose))


def execute_job(
    root: Path,
    kind: Kind,
    job: str,
    options: Sequence[str] = (),
    *,
    wait_s: float = 0,
    quiet: bool = False,
    verbose: bool = False,
) -> int:
    """Run a job of the flow `bulk_edit` or `augment` and report on it.

    Args:
        root: The checkout.
        kind: Which flow.
        job: Name of the job.
        options: Arguments of the job's command line, such as `--inbox=FOLDER`.
        wait_s: Seconds to wait for another run in this checkout to end.
        quiet: Print errors only.
        verbose: Show what the stages print.

    Returns:
        The exit status, as of `execute`.

    Raises:
        PipelineError: The run cannot begin.
    """
    environment.prepare(root)
    environment.retry_delay_s()

    def work() -> int:
        record.dataset_of(root, kind, job)  # fails at once for an unknown job
        if not wait_s:
            with locks.flow_lock(root):
                pass  # fails before the seconds that a server takes to start
        board = _board_for_output(root, quiet=quiet, verbose=verbose)
        with _failures_reported(root, board), board:
            _connect(root, board)
            from flows import jobs

            jobs.call(kind, job, root, options, wait_s=wait_s)
        return _conclude_job(root, kind, job, board.outcomes, quiet=quiet)

    return _until_interrupted(root, work)


def _until_interrupted(root: Path, work: Callable[[], int]) -> int:
    with _sigterm_interrupts(), environment.full_disk_is_one_line(root):
        try:
            return work()
        except KeyboardInterrupt:
            processes.stop_all()
            sys.stderr.write("boundaryflow: stopped; finished shards are kept, the same command goes on from there\n")
            return EXIT_INTERRUPTED


def _execute(
    root: Path,
    datasets: Sequence[str],
    stages: Sequence[str],
    options: Mapping[str, bool],
    *,
    quiet: bool,
    verbose: bool,
) -> int:
    with locks.flow_lock(root):
        locks.clear_what_is_stale(root)
        steps = plan(root, datasets, stages)
    for option in ("pull", "push"):
        if options[option] and not has_remote(root):
            raise ParamsError(
                f"--{option}: DVC has no default remote in .dvc/config; add one: "
                "dvc remote add --default NAME FOLDER_OR_URL"
            )
    if not options["force"] and not environment.server_url() and not any(step.is_dirty for step in steps):
        return _nothing_to_do(root, steps, push=options["push"], quiet=quiet)
    board = _board_for_output(root, quiet=quiet, verbose=verbose)
    with _failures_reported(root, board), board:
        board.begin(steps)
        _connect(root, board)
        from flows import pipeline

        pipeline.call(root, datasets, stages, **options)
    return _conclude(root, steps, board.outcomes, quiet=quiet)


def _board_for_output(root: Path, *, quiet: bool, verbose: bool) -> Board:
    """Choose and set the board for a terminal, a log, or quiet output."""
    board: Board
    if quiet:
        board = Board(root)
    elif sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
        from flows.live import LiveBoard

        board = LiveBoard(root, verbose=verbose)
    else:
        board = LogBoard(root, verbose=verbose)
    progress.use(board)
    return board


def _nothing_to_do(root: Path, steps: Sequence[Step], *, push: bool, quiet: bool) -> int:
    if push:
        from flows import stage_process

        processes.reset()
        stage_process.push(root)
    if not quiet:
        sys.stdout.write(f"everything is up to date ({len(steps)} stages)\n{summary.text(root, steps, {})}\n")
    return 0


def _connect(root: Path, board: Board) -> None:
    board.note("starting")
    from flows import server

    server.connect(root, board.note)


def _conclude(root: Path, steps: Sequence[Step], outcomes: dict[str, Outcome], *, quiet: bool) -> int:
    if not quiet:
        sys.stdout.write(f"{summary.text(root, steps, outcomes)}\n")
        if all(outcome.state == "up to date" for outcome in outcomes.values()):
            sys.stdout.write(f"everything is up to date ({len(steps)} stages)\n")
    sys.stdout.flush()
    return _report_failures(root, outcomes)


def _conclude_job(root: Path, kind: Kind, job: str, outcomes: dict[str, Outcome], *, quiet: bool) -> int:
    last_run = record.last(root, kind, job)
    name = f"{kind}@{job}"
    if not quiet and last_run is not None and name in outcomes:
        sys.stdout.write(f"{job}: {record.in_a_line(last_run)}\n{last_run['outbox']}\n")
    sys.stdout.flush()
    return _report_failures(root, outcomes)


def _report_failures(root: Path, outcomes: dict[str, Outcome]) -> int:
    """Print failures to standard error; returns the exit status."""
    failed = {name: outcome for name, outcome in outcomes.items() if outcome.state == "failed"}
    for name, outcome in failed.items():
        sys.stderr.write(f"boundaryflow: {name} failed: {visible(outcome.error)}\n")
        sys.stderr.write(f"  full log: {log_path(root, name)}\n")
    not_run = [name for name, outcome in outcomes.items() if outcome.state == "not run"]
    if not_run:
        sys.stderr.write(f"boundaryflow: not run because of that: {', '.join(not_run)}\n")
    if not failed and all(outcome.is_good for outcome in outcomes.values()):
        return 0
    return 2 if failed and all(outcome.exit_code == 2 for outcome in failed.values()) else 1


@contextmanager
def _failures_reported(root: Path, board: Board) -> Generator[None]:
    """If a run is aborted, for example as its server was lost, also report the stages that failed before."""
    try:
        yield
    except PipelineError:
        _report_failures(root, board.outcomes)
        raise


@contextmanager
def _sigterm_interrupts() -> Generator[None]:
    """Let SIGTERM stop a run in the same way as Ctrl-C."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
