"""`boundaryflow serve`: jobs of the flow `bulk_edit` on a schedule, and their Prefect server."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import math
import os
import platform
import signal
import sys
import tempfile
import warnings
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from boundaryflow.errors import ParamsError
from boundaryflow.text import masked
from flows import environment, locks, processes, server

if TYPE_CHECKING:
    from prefect.runner import Runner
    from prefect.schedules import Schedule

_MAX_EVERY_S = 366 * 24 * 3600.0


def serve_jobs(
    root: Path, jobs: Sequence[str], *, cron: str | None, timezone: str, every_s: float | None, port: int
) -> int:
    """Run jobs on a schedule, until stopped.

    Only one run is active at a time: a scheduled run waits for another one, manual runs included.

    Args:
        root: The checkout.
        jobs: Entries of `bulk_edit` in params.yaml; empty for all.
        cron: Schedule, or None.
        timezone: Time zone of `cron`.
        every_s: Seconds between runs, or None.
        port: Port of the server that is started if PREFECT_API_URL is not set.

    Returns:
        The exit status: 130, as it runs until stopped.

    Raises:
        PipelineError: A job or a time is wrong, the server does not start, or this checkout is served already.
    """
    environment.prepare(root)
    check_times(cron, every_s, port)
    chosen = _chosen(root, jobs)
    with locks.serve_lock(root), environment.full_disk_is_one_line(root):
        url = environment.server_url() or _own_server(root, port)
        server.check(url)
        schedule = _schedule(cron, timezone, every_s)
        when = f"every {every_s:g} s" if cron is None else f"{cron} ({timezone})"
        page = masked(url).removesuffix("/api")
        _say(f"serving {', '.join(f'bulk_edit/{name}' for name in chosen)}: {when}; page: {page}")
        try:
            _serve(root, chosen, schedule)
        except (KeyboardInterrupt, SystemExit):  # Prefect's runner ends with these when stopped
            pass
        finally:
            processes.stop_all()
    _say("stopped; the next start goes on from here")
    return 130


def check_times(cron: str | None, every_s: float | None, port: int) -> None:
    """Refuse an invalid interval or port.

    Raises:
        ParamsError: One line with the valid range.
    """
    if cron is None and not 1 <= (math.nan if every_s is None else every_s) <= _MAX_EVERY_S:
        raise ParamsError(f"--every {every_s}: must be a number of seconds from 1 to {_MAX_EVERY_S:.0f}")
    if not 1 <= port <= 65535:
        raise ParamsError(f"--port {port}: must be a whole number from 1 to 65535")


def _own_server(root: Path, port: int) -> str:
    """Start a server for this process and the runs that it starts; returns its address."""
    with server.listening_socket(port) as own:
        _say("starting a Prefect server, which takes 5 to 15 s")
        started = server.start(root, own, has_page=True)
    os.environ.pop("PREFECT_API_KEY", None)
    # For this process and the runs that it starts; stages and DVC do not get it, see stage_process.py.
    os.environ |= {"PREFECT_API_URL": started.url, "PREFECT_API_AUTH_STRING": started.password}
    path = server.keep_password(root, started)
    _say(f"to sign in on its page, enter the line in {path} (only you can read it; every start makes a new one)")
    return started.url


def _chosen(root: Path, jobs: Sequence[str]) -> list[str]:
    from boundaryflow.config import load_params

    params = load_params(root)
    if not params.bulk_edit:
        raise ParamsError("params.yaml: bulk_edit has no job; add one (docs/operations.md shows how)")
    for name in jobs:
        params.bulk_edit_job(name)
    return list(jobs) or list(params.bulk_edit)


def _schedule(cron: str | None, timezone: str, every_s: float | None) -> Schedule:
    from prefect.schedules import Cron, Interval

    if cron is None:
        return Interval(timedelta(seconds=every_s or 0))
    try:
        ZoneInfo(timezone)
    except (KeyError, ValueError, OSError):
        raise ParamsError(f"--timezone {timezone}: no such time zone; give one such as UTC or Europe/Berlin") from None
    try:
        return Cron(cron, timezone=timezone)
    except ValueError:
        raise ParamsError(
            f"--cron {cron!r}: must be five fields: minute, hour, day of the month, month, day of the week, such as "
            '"0 2 * * *" for every night at two'
        ) from None


def deployment_name(root: Path, job: str) -> str:
    """Name of a job's deployment, unique to this checkout and machine at a shared server."""
    return f"{job}@{hashlib.sha256(f'{platform.node()}:{root}'.encode(errors='replace')).hexdigest()[:8]}"


def _serve(root: Path, jobs: Sequence[str], schedule: Schedule) -> None:
    from prefect.runner import Runner
    from prefect.types.entrypoint import EntrypointType

    from flows.jobs import bulk_edit

    make: Any = bulk_edit.to_deployment  # its type covers calls with and without an event loop
    deployments = [
        make(
            name=deployment_name(root, name),
            schedule=schedule,
            parameters={"job": name, "wait_s": environment.LONG_WAIT_S},
            description=f"Edit what arrived for job {name} of {root} on {platform.node()}, and deliver it",
            entrypoint_type=EntrypointType.MODULE_PATH,
        )
        for name in jobs
    ]
    _bury_dead_runs([deployment_name(root, name) for name in jobs])
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell that starts it with `&` ignores SIGINT
    warnings.filterwarnings("ignore", message="coroutine 'Runner.astop' was never awaited", category=RuntimeWarning)
    # On SIGTERM Prefect ends the process from within its event loop, which asyncio reports with a long traceback.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    runner = _in_folder(root / environment.STATE_FOLDER / "runner", lambda: Runner(limit=1, pause_on_shutdown=True))
    for deployment in deployments:
        runner.add_deployment(deployment)
    asyncio.run(runner.start())


def _in_folder(folder: Path, make: Callable[[], Runner]) -> Runner:
    """Make a runner with its files in a private folder; by default it uses one in /tmp that all users share."""
    folder.mkdir(parents=True, exist_ok=True)
    before, tempfile.tempdir = tempfile.tempdir, str(folder)
    try:
        return make()
    finally:
        tempfile.tempdir = before


def _bury_dead_runs(names: Sequence[str]) -> None:
    """Mark runs of this checkout as crashed that an earlier process left in the state running."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import (
        DeploymentFilter,
        DeploymentFilterName,
        FlowFilter,
        FlowFilterName,
        FlowRunFilter,
        FlowRunFilterState,
        FlowRunFilterStateType,
    )
    from prefect.client.schemas.objects import StateType
    from prefect.states import Crashed

    alive = [StateType.RUNNING, StateType.PENDING, StateType.CANCELLING]
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs(
            flow_filter=FlowFilter(name=FlowFilterName(any_=["bulk_edit"])),
            deployment_filter=DeploymentFilter(name=DeploymentFilterName(any_=list(names))),
            flow_run_filter=FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=alive))),
        )
        for run in runs:
            client.set_flow_run_state(run.id, Crashed(message="the process that served it ended"), force=True)


def _say(text: str) -> None:
    sys.stderr.write(f"boundaryflow serve: {text}\n")
    sys.stderr.flush()
