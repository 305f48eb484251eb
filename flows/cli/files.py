"""Commands about single files and folders: inspect, import-checkpoint, bundle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from flows.cli.common import enter_root


@click.command(
    epilog="""\b
Examples:
  boundaryflow inspect celeba_hq.ckpt
  boundaryflow inspect data/raw/celebahq256/CelebAMask-HQ-attribute-anno.txt
  boundaryflow inspect data/raw/church256
  boundaryflow inspect net.pt --try data/raw/faces
  boundaryflow inspect data/boundary/avatars/smiling.safetensors --json"""
)
@click.argument("path")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.option(
    "--try",
    "pictures",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="PICTURES",
    help="Measure which size, heads, schedule, ... of a model fit these pictures (a file or folder; may be repeated).",
)
def inspect(path: str, as_json: bool, pictures: tuple[Path, ...]) -> None:
    """Identify a file or folder, and show its facts.

    A checkpoint, a CLIP model, a table of labels, pictures in a folder, an archive or an LMDB, a boundary, a shard, a
    judge, a bundle, a table or folder of a stage.
    """
    from boundaryflow.jobs.inspection import as_text
    from boundaryflow.jobs.inspection import inspect as examine

    facts = examine(path, pictures)
    click.echo(json.dumps(facts, indent=2) if as_json else as_text(facts))


@click.command(
    "import-checkpoint",
    epilog="""\b
Examples:
  boundaryflow import-checkpoint celeba_hq.ckpt data/pretrained/celebahq256
  boundaryflow import-checkpoint afhqdog_p2.pt data/pretrained/afhqdog256 --head-channels 64
  boundaryflow import-checkpoint ckpt.pth data/pretrained/celeba64 --ema require""",
)
@click.argument("source", metavar="SRC")
@click.argument("target", metavar="DST", type=click.Path(path_type=Path))
@click.option("--image-size", type=click.IntRange(min=1), help="Side in pixels [default: from where attention begins].")
@click.option("--num-heads", type=click.IntRange(min=1), help="Attention heads [default: what the family has].")
@click.option("--head-channels", type=click.IntRange(min=1), help="Channels of a head, instead of their number.")
@click.option(
    "--qkv-order", type=click.Choice(["legacy", "new"]), help="How an iDDPM packs attention [default: legacy]."
)
@click.option("--schedule", type=click.Choice(["linear", "cosine"]), help="Schedule of the betas [default: linear].")
@click.option("--timesteps", type=click.IntRange(min=2), help="Timesteps of the schedule [default: 1000].")
@click.option("--ema", type=click.Choice(["prefer", "require", "never"]), help="Averaged weights [default: prefer].")
def import_checkpoint(source: str, target: Path, schedule: str | None, timesteps: int | None, **stated: Any) -> None:
    """Convert a checkpoint to a diffusers folder with a model card.

    SRC is a DDPM or iDDPM / guided-diffusion checkpoint, a diffusers folder or a hub id. What its tensors do not show
    is taken from the options, else from SRC.json if it exists, else from the defaults of its family; the model card
    lists these assumptions.
    """
    from boundaryflow.jobs.import_checkpoint import convert

    betas: dict[str, Any] = {}
    if schedule:
        betas["beta_schedule"] = {"linear": "linear", "cosine": "squaredcos_cap_v2"}[schedule]
    if timesteps:
        betas["num_train_timesteps"] = timesteps
    for line in convert(source, target, {k: v for k, v in {**stated, "schedule": betas}.items() if v}):
        click.echo(line)


@click.command(
    epilog="""\b
Examples:
  boundaryflow bundle faces
  boundaryflow bundle faces out/smiles --with-model""",
)
@click.argument("dataset")
@click.argument("out", required=False, type=click.Path(path_type=Path))
@click.option("--with-model", is_flag=True, help="Put the model in, too; otherwise its path or hub id, and its hash.")
def bundle(dataset: str, out: Path | None, with_model: bool) -> None:
    """Write boundaries, settings and a card into one folder, which opens elsewhere.

    `edit --bundle OUT`, `sweep --bundle OUT` and `boundaryflow.load(OUT)` open it, without a checkout. OUT is
    out/bundle/DATASET by default; an earlier bundle of the data set there is replaced.
    """
    out = None if out is None else out.resolve()
    enter_root()
    from boundaryflow.jobs.bundle import write_bundle

    out = out or Path("out/bundle") / dataset
    attributes = write_bundle(dataset, out, with_model=with_model)
    click.echo(f"{out}: {', '.join(attributes)}")
