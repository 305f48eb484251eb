"""The Prefect flow over DVC's graph: runs stale stages, shows others as Cached, and retries temporary failures.

DVC decides which stages are stale, this module when and where they run. Prefect carries no tensors and caches nothing.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from prefect import flow, get_run_logger, task
from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.exceptions import CancelledRun, FailedRun, PrefectException, TerminationSignal
from prefect.futures import PrefectFuture
from prefect.states import Completed, Failed
from prefect.task_runners import ThreadPoolTaskRunner
from prefect.tasks import exponential_backoff

from boundaryflow.errors import PipelineError
from boundaryflow.store.catalog import CATALOG
from boundaryflow.text import masked
from flows import dvc_graph, environment, locks, processes, progress, stage_process
from flows.dvc_graph import Step
from flows.environment import num_parallel
from flows.progress import Board, Outcome, Progress

_MAX_STAGES_AT_ONCE = 64
_ARTIFACT_EVERY_S = 5.0
ON_GPU = {output.name for output in CATALOG.values() if output.runs_networks}
"""Stages that run networks."""


def _is_worth_retrying(_task: Any, run: Any, state: State[Any]) -> bool:
    if processes.stopping():
        return False
    error = state.result(raise_on_failure=False)
    return isinstance(error, stage_process.StageFailedError) and run.run_count < error.attempts


PROCESS_TASK: dict[str, Any] = {
    "cache_policy": NO_CACHE,
    "persist_result": False,
    "retries": stage_process.MAX_ATTEMPTS - 1,
    "retry_delay_seconds": exponential_backoff(environment.retry_delay_s()),
    "retry_jitter_factor": 0.5,
    "retry_condition_fn": _is_worth_retrying,
}
"""Options of a task that runs a process: no caching by Prefect, and retries for temporary failures only."""


@task(**PROCESS_TASK)
def run_stage(name: str, root: str, is_dirty: bool, force: bool, pull: bool = False) -> State[Any]:
    """One DVC stage: Cached if it is up to date, otherwise reproduced by DVC in a separate process."""
    folder = Path(root)
    board = progress.current(folder)
    if not is_dirty and not force:
        board.finished(name, Outcome("up to date"))
        return Completed(name="Cached", message="DVC: inputs, code and parameters are unchanged")
    outcome = attempt(
        name,
        board,
        lambda on_progress, halvings: stage_process.run(
            name, folder, board, force=force, pull=pull, halvings=halvings, on_progress=on_progress
        ),
    )
    if outcome.state == "done":
        return Completed(message=f"ran in {progress.duration(outcome.seconds)}")
    return Completed(name="Cached" if outcome.state == "up to date" else "Restored", message="decided by DVC")


def attempt(name: str, board: Board, work: Callable[[Callable[[Progress], None], int], Outcome]) -> Outcome:
    """Run a process once, within a task with `PROCESS_TASK`, and report it to the board.

    Args:
        name: Name of the stage.
        board: Receives start, progress and outcome.
        work: Runs the process; takes a callback for progress, and the number of times to halve the batch size: once
            for each time that the process was killed, most likely because memory ran out.

    Raises:
        StageFailedError: It failed; Prefect retries it if that may help.
    """
    from prefect.context import TaskRunContext

    context = TaskRunContext.get()
    count = context.task_run.run_count if context else 1
    board.started(name, count)
    halvings = board.kills.get(name, 0)
    if halvings:
        board.note(f"{name}: with 1/{2**halvings} of the batch size, as it was killed before")
    try:
        outcome = work(_ProgressArtifact(name), halvings)
    except stage_process.StageFailedError as error:
        if processes.stopping():
            board.finished(name, Outcome("stopped", error.outcome.seconds))
        elif count < error.attempts:
            board.kills[name] = halvings + error.was_killed
            board.retrying(name, error.outcome)
        else:
            board.finished(name, error.outcome)
            get_run_logger().error("%s", error)
        raise
    board.finished(name, outcome)
    return outcome


_GRAPH_FLOW: dict[str, Any] = {
    "name": "boundaryflow",
    "task_runner": ThreadPoolTaskRunner(max_workers=_MAX_STAGES_AT_ONCE),
    "validate_parameters": False,
    "persist_result": False,
}


@flow(**_GRAPH_FLOW)
def run_graph(
    datasets: Sequence[str] = (),
    stages: Sequence[str] = (),
    force: bool = False,
    pull: bool = False,
    push: bool = False,
    wait_s: float = 0,
) -> State[Any]:
    """Bring the graph of the checkout that the process runs in up to date.

    Args:
        datasets: Only these data sets; empty for all.
        stages: Only these stages and their upstream stages; empty for all.
        force: Run the chosen stages though they are up to date.
        pull: Fetch outputs that DVC's remote has instead of computing them.
        push: Send the outputs to DVC's remote at the end.
        wait_s: Seconds to wait for another run in this checkout to end.
    """
    root = environment.find_root()
    return _bring_all(root, datasets, stages, force=force, pull=pull, push=push, wait_s=wait_s)


def _bring_all(
    root: Path,
    datasets: Sequence[str],
    stages: Sequence[str],
    *,
    force: bool,
    pull: bool,
    push: bool,
    wait_s: float = 0,
) -> State[Any]:
    environment.prepare(root)
    board = progress.current(root)
    processes.reset()
    with locks.flow_lock(root, wait_s=environment.checked_wait(wait_s), note=board.note):
        steps, bad = bring_up_to_date(root, datasets, stages, force=force, pull=pull)
        _publish(steps, board)
        if bad:
            return Failed(message=f"{len(bad)} of {len(steps)} stages did not complete: {', '.join(bad)}")
        if push:
            board.note("dvc push")
            stage_process.push(root)
    return Completed(message=f"{len(steps)} stages are up to date")


def bring_up_to_date(
    root: Path, datasets: Sequence[str] = (), stages: Sequence[str] = (), *, force: bool = False, pull: bool = False
) -> tuple[tuple[Step, ...], list[str]]:
    """Run stale stages, within a flow that holds the checkout's lock.

    Args:
        root: The checkout.
        datasets: Only these data sets; empty for all.
        stages: Only these stages and their upstream stages; empty for all.
        force: Run the chosen stages though they are up to date.
        pull: Fetch outputs that DVC's remote has instead of computing them.

    Returns:
        The plan, and the names of the stages that did not complete.
    """
    board = progress.current(root)
    locks.clear_what_is_stale(root, board.note)
    steps = dvc_graph.plan(root, datasets, stages)
    board.begin(steps)
    forced = {step.name for step in steps if force and (not stages or {step.name, step.kind} & set(stages))}
    try:
        _run_steps(steps, forced, str(root), board, pull=pull)
    except BaseException:
        processes.stop_all()
        raise
    return steps, [name for name, outcome in board.outcomes.items() if not outcome.is_good]


def call(
    root: Path,
    datasets: Sequence[str],
    stages: Sequence[str],
    *,
    force: bool = False,
    pull: bool = False,
    push: bool = False,
) -> None:
    """Run the flow in this process; the outcome of each stage is in the current board.

    Raises:
        PipelineError: The run could not begin, or not be pushed.
        KeyboardInterrupt: It was interrupted, terminated or cancelled; all child processes have ended.
    """

    @flow(**_GRAPH_FLOW)
    def by_hand(datasets: Sequence[str], stages: Sequence[str], force: bool, pull: bool, push: bool) -> State[Any]:
        return _bring_all(root, datasets, stages, force=force, pull=pull, push=push)

    run: Any = by_hand
    with stopped_like_a_command():
        try:
            run(list(datasets), list(stages), force, pull, push)
        except FailedRun:
            if all(outcome.is_good for outcome in progress.current(root).outcomes.values()):
                raise


@contextmanager
def stopped_like_a_command() -> Generator[None]:
    """Turn the ways in which a flow is stopped into KeyboardInterrupt, and end all child processes.

    Raises:
        KeyboardInterrupt: It was stopped.
        PipelineError: The connection to the server was lost.
    """
    try:
        yield
    except (TerminationSignal, CancelledRun):
        raise KeyboardInterrupt from None
    except httpx.TransportError as error:
        named = environment.server_url()
        server = f"the Prefect server at {masked(named)}" if named else "the Prefect server of this run"
        raise PipelineError(
            f"{server} stopped answering during the run ({masked(str(error)) or type(error).__name__}); finished "
            f"stages are kept, run again{' when it answers' if named else ''}"
        ) from None
    finally:
        processes.stop_all()


def _run_steps(steps: Sequence[Step], forced: set[str], root: str, board: Board, *, pull: bool) -> None:
    """Submit each stage as soon as its upstream stages are done; at most `num_parallel` stale ones run at once."""
    limit = num_parallel()
    waiting = list(steps)
    futures: dict[str, PrefectFuture[Any]] = {}
    running: set[str] = set()
    busy: set[str] = set()
    ended: queue.SimpleQueue[str] = queue.SimpleQueue()
    while waiting or running:
        for step in [step for step in waiting if not any(name in running for name in step.upstream)]:
            if any(name not in board.outcomes for name in step.upstream):
                continue
            blocker = next((name for name in step.upstream if not board.outcomes[name].is_good), "")
            has_work = (step.is_dirty or step.name in forced) and not blocker
            if has_work and (len(busy) >= limit or _waits_for_a_gpu(step.name, busy)):
                continue
            waiting.remove(step)
            # A blocked stage is submitted too: Prefect records it as not ready.
            named: Any = run_stage.with_options(task_run_name=step.name)
            upstream = [futures[name] for name in step.upstream]
            future = named.submit(step.name, root, step.is_dirty, step.name in forced, pull, wait_for=upstream)
            futures[step.name] = future
            if blocker:
                board.finished(step.name, Outcome("not run", error=f"needs {blocker}"))
                continue
            running.add(step.name)
            busy |= {step.name} if has_work else set()
            future.add_done_callback(lambda _, name=step.name: ended.put(name))
        if running:
            name = ended.get()
            futures[name].wait()
            _account_for(name, futures[name], board)
            running.discard(name)
            busy.discard(name)
    for future in futures.values():
        future.wait()


def _waits_for_a_gpu(name: str, busy: set[str]) -> bool:
    """Whether a stage has to wait as another stage uses the GPU."""
    kinds = {other.partition("@")[0] for other in busy}
    return name.partition("@")[0] in ON_GPU and bool(ON_GPU & kinds) and environment.uses_gpu()


def _account_for(name: str, future: PrefectFuture[Any], board: Board) -> None:
    """Report a failure if a task failed outside its stage's process, so that it does not count as successful."""
    state = future.state
    known = board.outcomes.get(name)
    if state.is_completed() and known is not None:
        return
    if known is None or known.is_good:
        error = state.message or f"task ended as {state.name}"
        board.finished(name, Outcome("failed", error=" ".join(error.split()), exit_code=1))


class _ProgressArtifact:
    """Updates a Prefect progress artifact, at most every few seconds."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._id: Any = None
        self._last = 0.0
        self._is_off = False

    def __call__(self, report: Progress) -> None:
        is_due = time.monotonic() - self._last > _ARTIFACT_EVERY_S or report.done >= report.total
        if self._is_off or not is_due:
            return
        percent = min(100.0, 100.0 * report.done / max(1, report.total))
        try:
            if self._id is None:
                self._id = create_progress_artifact(progress=percent, description=self._name)
            else:
                update_progress_artifact(artifact_id=self._id, progress=percent)
        except (httpx.HTTPError, PrefectException, OSError) as error:
            # A slow or lost server must not end a stage.
            self._is_off = True
            get_run_logger().warning("%s: no more progress artifacts: %s", self._name, error)
        self._last = time.monotonic()


def _publish(steps: Sequence[Step], board: Board) -> None:
    """Publish the run as artifacts: a table of stages, and a page with stages and metrics."""
    from flows.summary import markdown

    rows = [
        {
            "stage": step.name,
            "state": board.outcomes[step.name].state,
            "seconds": round(board.outcomes[step.name].seconds, 1),
            "reason": step.reason,
            "error": board.outcomes[step.name].error,
        }
        for step in steps
    ]
    create_table_artifact(table=rows, key="boundaryflow-stages", description="Stages of this run")
    create_markdown_artifact(markdown(board.root, steps, board.outcomes), key="boundaryflow-run")
