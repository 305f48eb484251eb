"""Shared parts of the commands; large packages are imported only when a command runs."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from boundaryflow.errors import ParamsError, PipelineError
from boundaryflow.text import masked
from flows.environment import check_conflicts, find_root


class _Finite(click.ParamType[float]):
    """Refuses NaN and infinity, which click's own types accept."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """See `click.ParamType`."""
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number


class Number(_Finite, click.types.FloatParamType):
    """A finite number."""


class NumberRange(_Finite, click.FloatRange):
    """A finite number within bounds."""


def enter_root() -> Path:
    """Change into the checkout that the current folder is in, and return it."""
    root = find_root()
    os.chdir(root)
    check_conflicts(root)
    return root


def one_dataset(name: str | None) -> str:
    """The named data set, or else the only one of params.yaml.

    Raises:
        PipelineError: There are several.
    """
    from boundaryflow.config import load_params

    active = list(load_params().datasets)
    if name is not None:
        return name
    if len(active) == 1:
        return active[0]
    raise PipelineError(f"params.yaml lists the data sets {', '.join(active)}: say which one with --dataset NAME")


def use_dask(address: str | None) -> None:
    """Let the stages of this run distribute their shards over a cluster.

    Raises:
        ParamsError: It is not the address of a scheduler.
    """
    if address is None:
        return
    if not re.fullmatch(r"(tcp|tls|ucx|ws|wss)://[^/\s]+:\d+", address):
        raise ParamsError(
            f"--dask {masked(address)}: is not the address of a Dask scheduler, such as tcp://10.0.0.5:8786"
        )
    os.environ["BOUNDARYFLOW_DASK"] = address


def how_it_runs(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of every command that runs stages: cluster and verbosity."""
    for option in (
        click.option("--verbose", is_flag=True, help="Show what the stages print."),
        click.option("--quiet", is_flag=True, help="Print errors only."),
        click.option(
            "--dask", metavar="ADDRESS", help="Spread shards over this Dask cluster, such as tcp://host:8786."
        ),
    ):
        command = option(command)
    return command
