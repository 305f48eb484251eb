"""Options of the commands that deliver edited pictures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

_OPTIONS = (
    click.option(
        "--deliver",
        type=click.Choice(["original", "model"]),
        help="The picture itself with the change, or the model's [default: original, where it can be had].",
    ),
    click.option(
        "--format",
        type=click.Choice(["png", "jpeg", "webp", "source"]),
        default="png",
        show_default=True,
        help="Format of the files; that of each picture's own file.",
    ),
    click.option("--quality", type=click.IntRange(1, 100), help="Of JPEG [default: 95] and WebP [default: lossless]."),
    click.option(
        "--metadata",
        type=click.Choice(["drop", "keep"]),
        default="drop",
        show_default=True,
        help="EXIF of the picture: camera, time, position.",
    ),
)


def delivered(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say what is written."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command
