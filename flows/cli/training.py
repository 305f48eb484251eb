"""The command that trains a model: train-denoiser."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from flows.cli.common import NumberRange


class _WholeNumbers(click.ParamType[tuple[int, ...]]):
    """Whole numbers of at least 0 with commas between them."""

    name = "whole numbers"

    def __init__(self, num: int | None = None) -> None:
        self._num = num

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        """See `click.ParamType`."""
        parts = [] if value == "" else str(value).split(",")
        if not all(part.strip().isdecimal() and len(part) < 10 for part in parts):
            self.fail(f"{value!r} must be whole numbers with commas between them, such as 32,96,192.", param, ctx)
        if self._num is not None and len(parts) != self._num:
            self.fail(f"{value!r} must be {self._num} whole numbers with commas between them.", param, ctx)
        if self._num == 4 and not all(int(part) for part in parts[2:]):
            self.fail(f"{value!r} has no width or no height; both must be at least 1.", param, ctx)
        return tuple(int(part) for part in parts)


@click.command(
    "train-denoiser",
    epilog="""\b
Examples:
  boundaryflow train-denoiser photos data/pretrained/mine64 --size 64 --mirror --minutes 240
  boundaryflow train-denoiser data/ingest/digits data/pretrained/mine32 --images 500000
  boundaryflow train-denoiser celeba.zip data/pretrained/celeba64 --crop 25,57,128,128 --images 2000000
  boundaryflow train-denoiser photos data/pretrained/mine64 --start-from data/pretrained/faces64 --images 200000""",
)
@click.argument("source", metavar="SOURCE")
@click.argument("out", metavar="OUT", type=click.Path(path_type=Path))
@click.option("--minutes", type=NumberRange(min=0, min_open=True), help="Time to train, earlier sessions included.")
@click.option("--images", type=click.IntRange(min=1), help="Length of the training in images seen, repeats included.")
@click.option(
    "--start-from",
    type=click.Path(path_type=Path),
    metavar="MODEL",
    help="Start from the weights of this model, which train-denoiser made, and with its architecture.",
)
@click.option("--size", type=click.IntRange(8, 1024), help="Side in pixels [default: 64; what was ingested].")
@click.option("--channels", type=click.Choice(["1", "3"]), help="Grey or RGB [default: 3; what was ingested].")
@click.option(
    "--fit",
    type=click.Choice(["crop", "pad", "stretch"]),
    help="How pictures that are not square are brought to size [default: crop].",
)
@click.option(
    "--crop", type=_WholeNumbers(4), metavar="L,T,W,H", help="Cut out this box first: left, top, width, height."
)
@click.option("--mirror/--no-mirror", help="Also show them mirrored; for faces, not for writing [default: no].")
@click.option("--licence", default="", metavar="TEXT", help="Of the pictures, for the model card.")
@click.option(
    "--widths",
    type=_WholeNumbers(),
    metavar="W,W,...",
    help="Channels of each level [default: 32,96,192; 128,192,256 above 64 pixels].",
)
@click.option("--layers", type=click.IntRange(1, 8), help="Resnets per level [default: 1].")
@click.option(
    "--attention",
    type=_WholeNumbers(),
    metavar="S,S,...",
    help="Sides of feature maps at which it attends, beside the middle, such as 16.",
)
@click.option("--unshuffle", type=click.IntRange(1, 16), help="Fold by this factor [default: 2; 4 above 64 pixels].")
@click.option("--schedule", type=click.Choice(["linear", "cosine"]), help="Of the betas [default: linear].")
@click.option("--batch-size", type=click.IntRange(1, 4096), help="Images in a step [default: 32; 128 on a GPU].")
@click.option("--learning-rate", type=NumberRange(min=0, min_open=True), default=0.02, show_default=True)
@click.option(
    "--ema-gamma",
    type=NumberRange(min=0),
    default=6.94,
    show_default=True,
    help="Of the averaged weights: 6.94 averages over the last tenth, 16.97 over a twentieth.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option(
    "--dtype",
    type=click.Choice(["auto", "float32", "bfloat16"]),
    default="auto",
    show_default=True,
    help="auto: bfloat16 where the hardware multiplies it.",
)
def train_denoiser(source: str, out: Path, minutes: float | None, images: int | None, **options: Any) -> None:
    """Train a denoiser on your own images, for `model:` in params.yaml.

    SOURCE is a folder, an archive or an LMDB of pictures, or data/ingest/NAME of a data set. OUT becomes a diffusers
    folder with a model card, samples and measurements; it is written every few minutes and usable from then on. Run the
    same command again to go on after Ctrl-C or a crash, or with a larger budget.
    """  # fmt: skip
    if (minutes is None) == (images is None):
        raise click.UsageError("say how long: either --minutes or --images")
    from boundaryflow.jobs.train_denoiser import Budget, train_from

    train_from(source, out, Budget(minutes, images), tell=lambda line: click.echo(line, err=True), **options)
    click.echo(out)
