"""The flows `bulk_edit` and `augment`: bring the boundaries up to date, run a job, publish its result.

The work is done by modules that can also be run directly: `python -m boundaryflow.jobs.bulk_edit NAME`.
"""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.artifacts import create_image_artifact, create_markdown_artifact, create_table_artifact
from prefect.client.schemas.objects import State
from prefect.exceptions import FailedRun
from prefect.states import Completed, Failed

from boundaryflow.errors import ParamsError, PipelineError
from flows import environment, locks, pipeline, processes, progress, record, stage_process
from flows.record import Kind


@flow(name="bulk_edit", validate_parameters=False, persist_result=False)
def bulk_edit(job: str, again: bool = False, wait_s: float = 0) -> State[Any]:
    """Edit what arrived in an inbox since the last run, and deliver it.

    Every user of the server can choose these parameters, so none of them is a path: the checkout is the current folder
    of the process, inbox and outbox are the job's.

    Args:
        job: Name of an entry of `bulk_edit` in params.yaml.
        again: Also edit files again that another version of the job has edited.
        wait_s: Seconds to wait for another run in this checkout to end.
    """
    return _run("bulk_edit", job, ["--again"] if again is True else [], wait_s=wait_s)


@flow(name="augment", validate_parameters=False, persist_result=False)
def augment(job: str, wait_s: float = 0) -> State[Any]:
    """Balance a data set with edits.

    Args:
        job: Name of an entry of `augment` in params.yaml.
        wait_s: Seconds to wait for another run in this checkout to end.
    """
    return _run("augment", job, [], wait_s=wait_s)


def _run(kind: Kind, job: Any, options: Sequence[str], *, wait_s: float, root: Path | None = None) -> State[Any]:
    if not isinstance(job, str):
        raise ParamsError(f"{kind}: job must be a name, an entry of `{kind}` in params.yaml")
    folder = environment.find_root(root)
    os.chdir(folder)  # paths of a job are relative to it
    environment.prepare(folder)
    board = progress.current(folder)
    processes.reset()
    name = f"{kind}@{job}"
    dataset = record.dataset_of(folder, kind, job)
    with locks.flow_lock(folder, wait_s=environment.checked_wait(wait_s), note=board.note):
        try:
            steps, bad = pipeline.bring_up_to_date(folder, [dataset], ["boundary"])
            if bad:
                return Failed(message=f"{name} was not begun: {', '.join(bad)} of {len(steps)} stages did not complete")
            before = record.last(folder, kind, job)
            named: Any = run_job.with_options(task_run_name=name)
            state: State[Any] = named(name, [*options, "--", job], str(folder), return_state=True)
        except BaseException:
            processes.stop_all()
            raise
        last = record.last(folder, kind, job)
        if last is not None and last != before:
            _publish(folder, kind, job, last)
    return Completed(message=record.in_a_line(last)) if state.is_completed() and last else Failed(message=state.message)


@task(**pipeline.PROCESS_TASK)
def run_job(name: str, arguments: Sequence[str], root: str) -> State[Any]:
    """Run the module of a job in a separate process."""
    folder = Path(root)
    board = progress.current(folder)
    outcome = pipeline.attempt(
        name,
        board,
        lambda on_progress, halvings: stage_process.run_module(
            name, arguments, folder, board, halvings=halvings, on_progress=on_progress
        ),
    )
    return Completed(message=f"ran in {progress.duration(outcome.seconds)}")


def call(kind: Kind, job: str, root: Path, options: Sequence[str] = (), *, wait_s: float = 0) -> None:
    """Run a flow in this process; its outcome is in the current board.

    Args:
        kind: Which flow.
        job: Name of the job.
        root: The checkout.
        options: Arguments of the job's command line, such as `--inbox=FOLDER`. As they may be paths, they are not
            parameters of the flow.
        wait_s: Seconds to wait for another run in this checkout to end.

    Raises:
        PipelineError: It could not begin.
        KeyboardInterrupt: It was interrupted, terminated or cancelled; all child processes have ended.
    """

    @flow(name=kind, validate_parameters=False, persist_result=False)
    def without_schedule(job: str) -> State[Any]:
        return _run(kind, job, options, wait_s=wait_s, root=root)

    run: Any = without_schedule
    with pipeline.stopped_like_a_command():
        try:
            run(job)
        except FailedRun as error:
            if all(outcome.is_good for outcome in progress.current(root).outcomes.values()):
                raise PipelineError(str(error)) from None


def _publish(root: Path, kind: Kind, job: str, last: dict[str, Any]) -> None:
    """The run as artifacts: a summary, a table of counts, a grid of pictures."""
    key = re.sub(r"[^a-z0-9]+", "-", f"{kind}-{job}".lower()).strip("-")
    create_markdown_artifact(record.markdown(last), key=key, description=f"{kind} {job}")
    create_table_artifact(table=record.rows(last), key=f"{key}-counts", description=f"Counts of {kind} {job}")
    grid = record.folder(root, kind, job) / "grid.png"
    if grid.is_file():
        data = base64.b64encode(grid.read_bytes()).decode()
        create_image_artifact(
            image_url=f"data:image/png;base64,{data}",
            key=f"{key}-pictures",
            description="A few pictures before the edit, and below them after it",
        )
