"""Commands that run jobs of params.yaml, once or on a schedule: bulk-edit, augment, serve."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from flows.cli.common import Number, enter_root, how_it_runs, use_dask
from flows.environment import LONG_WAIT_S

if TYPE_CHECKING:
    from flows.record import Kind

_waits = click.option("--wait", is_flag=True, help="Wait for another run in this checkout to end.")


def _given(option: str, address: str | None) -> list[str]:
    """An option of the job's command line; a folder becomes absolute, as the command changes into the checkout."""
    if address is None:
        return []
    return [f"{option}={address if '://' in address else Path(address).resolve()}"]


def _run(
    kind: Kind, job: str, options: Sequence[str], dask: str | None, *, wait: bool, quiet: bool, verbose: bool
) -> int:
    root = enter_root()
    use_dask(dask)
    from flows.run import execute_job

    wait_s = LONG_WAIT_S if wait else 0
    return execute_job(root, kind, job, options, wait_s=wait_s, quiet=quiet, verbose=verbose)


@click.command(
    "bulk-edit",
    epilog="""\b
Examples:
  boundaryflow bulk-edit glasses
  boundaryflow bulk-edit glasses --inbox s3://photos/new --outbox s3://photos/edited
  boundaryflow bulk-edit glasses --again
  boundaryflow bulk-edit glasses --release 20261127-020000-123""",
)
@click.argument("job")
@click.option("--inbox", metavar="FOLDER_OR_URL", help="Another inbox than the job's.")
@click.option("--outbox", metavar="FOLDER_OR_URL", help="Another outbox than the job's.")
@click.option("--again", is_flag=True, help="Also edit again what another version of the job edited.")
@click.option("--release", metavar="RUN", help="Deliver a run that fell short and is in quarantine; edit nothing.")
@click.option("--discard", metavar="RUN", help="Remove such a run, and let its files count as new; edit nothing.")
@_waits
@how_it_runs
@click.pass_context
def bulk_edit(
    ctx: click.Context,
    job: str,
    inbox: str | None,
    outbox: str | None,
    again: bool,
    release: str | None,
    discard: str | None,
    wait: bool,
    dask: str | None,
    quiet: bool,
    verbose: bool,
) -> None:
    """Edit new files of an inbox, and deliver them with a manifest.

    JOB is an entry of bulk_edit in params.yaml: edits, strengths, inbox and outbox.
    """
    if release is not None or discard is not None:
        if (release is not None and discard is not None) or inbox is not None or again:
            raise click.UsageError("--release RUN or --discard RUN goes with --outbox only")
        address = _given("--outbox", outbox)
        enter_root()
        from boundaryflow.jobs.bulk_edit import settle_run

        to = address[0].partition("=")[2] if address else None
        click.echo(settle_run(job, to, release or discard or "", release=release is not None))
        return
    options = [*_given("--inbox", inbox), *_given("--outbox", outbox), *(["--again"] if again else [])]
    ctx.exit(_run("bulk_edit", job, options, dask, wait=wait, quiet=quiet, verbose=verbose))


@click.command(
    epilog="""\b
Examples:
  boundaryflow augment glasses
  boundaryflow augment glasses --out balanced"""
)
@click.argument("job")
@click.option("--out", metavar="DIR", help="Another folder than the job's.")
@_waits
@how_it_runs
@click.pass_context
def augment(
    ctx: click.Context, job: str, out: str | None, wait: bool, dask: str | None, quiet: bool, verbose: bool
) -> None:
    """Balance a data set with the fewest edits, each of them checked.

    JOB is an entry of augment in params.yaml: the balance, and the criteria of a good edit.
    """
    ctx.exit(_run("augment", job, _given("--out", out), dask, wait=wait, quiet=quiet, verbose=verbose))


@click.command(
    epilog="""\b
Examples:
  boundaryflow serve --cron "0 2 * * *"
  boundaryflow serve glasses --cron "30 1 * * 1-5" --timezone Europe/Berlin
  boundaryflow serve glasses --every 3600"""
)
@click.argument("jobs", metavar="[JOB]...", nargs=-1)
@click.option("--cron", metavar="CRON", help="When: minute, hour, day of the month, month, day of the week.")
@click.option("--timezone", metavar="NAME", default="UTC", show_default=True, help="Of --cron, such as Europe/Berlin.")
@click.option("--every", type=Number(), metavar="SECONDS", help="Every so many seconds instead.")
@click.option("--port", type=int, metavar="PORT", default=4200, show_default=True, help="Of the server's page.")
@click.pass_context
def serve(
    ctx: click.Context, jobs: tuple[str, ...], cron: str | None, timezone: str, every: float | None, port: int
) -> None:
    """Run jobs of bulk_edit on a schedule, until stopped; without JOB all that params.yaml has.

    One process: with PREFECT_API_URL it uses that server, else it keeps one of its own on the loopback interface, with
    SQLite and a password that it makes. A run that falls due while another is at work waits for it.
    """
    if (cron is None) == (every is None):
        raise click.UsageError("say when: either --cron or --every")
    root = enter_root()
    from flows.serving import serve_jobs

    ctx.exit(serve_jobs(root, jobs, cron=cron, timezone=timezone, every_s=every, port=port))
