"""The command line: `boundaryflow COMMAND`. Imports nothing heavy until a command needs it."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from boundaryflow.errors import PipelineError
from boundaryflow.files import way_out
from boundaryflow.text import masked, visible
from flows.cli import exporting, files, jobs, pictures, review, running, training
from flows.environment import LOG_FOLDER, find_root


class _Commands(click.Group):
    """Turns errors into one line and an exit status: 2 for those that the user can fix, 1 for others."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except PipelineError as error:
            _say_error(error)
            ctx.exit(2)
        except KeyboardInterrupt:
            click.echo("boundaryflow: stopped", err=True)
            ctx.exit(130)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            ctx.exit(1)
        except Exception as error:
            if os.environ.get("BOUNDARYFLOW_DEBUG") == "1":
                raise
            if isinstance(error, OSError) and (advice := way_out(error)):
                _echo(f"boundaryflow: {error.filename or Path.cwd()}: {error.strerror}; {advice}")
                ctx.exit(2)
            if isinstance(error, MemoryError):
                _echo(f"boundaryflow {ctx.invoked_subcommand}: out of memory; use fewer or smaller pictures at a time")
                ctx.exit(1)
            _echo(f"boundaryflow: unexpected {type(error).__name__}: {' '.join(str(error).split()) or 'no message'}")
            _echo(f"  traceback: {_write_traceback()} (BOUNDARYFLOW_DEBUG=1 prints it)")
            ctx.exit(1)


def _say_error(error: PipelineError) -> None:
    from boundaryflow.config.advice import with_advice  # pydantic takes a while to import

    for line in with_advice(error).splitlines() or [""]:
        _echo(f"{type(error).__name__}: {line}")


def _echo(line: str) -> None:
    click.echo(visible(masked(line)), err=True)


def _write_traceback() -> Path | str:
    try:
        folder = find_root() / LOG_FOLDER
    except PipelineError:
        folder = Path.home() / ".cache" / "boundaryflow"
    path = folder / f"error-{datetime.now():%Y%m%d-%H%M%S}-{os.getpid()}.log"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(traceback.format_exc(), encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        return f"could not be written to {path} ({error.strerror})"
    return path


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("boundaryflow")
    except PackageNotFoundError:
        return "not installed"


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="""\b
Examples:
  boundaryflow run
  boundaryflow edit photo.png --attribute eyeglasses
  boundaryflow sweep photo.png --attribute smiling --from 0 --to 2
  boundaryflow text "a face with a beard" --from "a face" photo.png
  boundaryflow sample -n 16 --attribute smiling --attribute beard=off
  boundaryflow review faces
  boundaryflow bulk-edit glasses
  boundaryflow serve --cron "0 2 * * *"
  boundaryflow status
  boundaryflow doctor""",
)
@click.version_option(_version(), prog_name="boundaryflow", message="%(prog)s %(version)s")
def cli() -> None:
    """Edit an image data set by attribute with a frozen diffusion model.

    Exit status: 0 when all is done, 2 for errors that you can fix (one line says how), 1 for others.
    """


for _module in (running, jobs, pictures, exporting, review, files, training):
    for _member in vars(_module).values():
        if isinstance(_member, click.Command):
            cli.add_command(_member)


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of `boundaryflow`."""
    cli.main(args=None if argv is None else list(argv), prog_name="boundaryflow")
