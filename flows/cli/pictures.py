"""Commands that edit and draw pictures: edit, sweep, sample, text."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flows.cli.common import Number, NumberRange, enter_root, one_dataset
from flows.cli.delivering import delivered

if TYPE_CHECKING:
    from boundaryflow.jobs.fitted import Fitted

_OUT = Path("out")
_PATH = click.Path(path_type=Path)
_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)
_PICTURES = click.argument(
    "photos", metavar="PICTURE...", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True)
)
_DATASET = click.option(
    "--dataset", metavar="NAME", help="Use its model and boundaries [default: the only one in params.yaml]."
)
_STRENGTHS = click.option(
    "--strength", "strengths", multiple=True, type=Number(), default=(1.0,), help="May be repeated [default: 1.0]."
)


def _how_to_edit(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that edit and sweep share."""
    for option in reversed(
        (
            _DATASET,
            click.option(
                "--bundle",
                type=click.Path(path_type=Path, exists=True, file_okay=False),
                metavar="FOLDER",
                help="Use what `boundaryflow bundle` wrote instead of a data set; needs no checkout.",
            ),
            click.option(
                "--model", metavar="MODEL", help="The model of the bundle, where it is not in it or elsewhere."
            ),
            click.option(
                "--attribute",
                "attributes",
                required=True,
                multiple=True,
                metavar="NAME[=on|off|STRENGTH]",
                help="Attribute to add, to remove, or to change so much; may be repeated for a joint edit.",
            ),
            click.option("--mask", type=_FILE, metavar="FILE", help="Picture that is white where pictures may change."),
            click.option("--grid", type=_PATH, metavar="FILE", help="Write a contact sheet (PNG), too."),
        )
    ):
        command = option(command)
    return command


@click.command(
    epilog="""\b
Examples:
  boundaryflow edit photo.png --attribute smiling
  boundaryflow edit *.png --attribute eyeglasses --strength 0.5 --strength 1 --out edited
  boundaryflow edit photo.png --attribute smiling --format jpeg --quality 90
  boundaryflow edit photos/ --attribute smiling --attribute beard=off --grid sheet.png
  boundaryflow edit photo.png --attribute mouth_open=0.5 --mask mouth.png
  boundaryflow edit photo.png --bundle out/bundle/faces/ --attribute smiling"""
)
@_PICTURES
@_how_to_edit
@_STRENGTHS
@click.option("--out", type=_PATH, default=_OUT / "edit", show_default=True, help="Folder for the pictures.")
@delivered
def edit(
    photos: tuple[Path, ...],
    dataset: str | None,
    bundle: Path | None,
    model: str | None,
    attributes: tuple[str, ...],
    mask: Path | None,
    grid: Path | None,
    strengths: tuple[float, ...],
    out: Path,
    **delivery: Any,
) -> None:
    """Edit pictures, and folders of them, with the boundaries of `boundaryflow run`."""
    amounts = _amounts(attributes)
    given, more = [path.resolve() for path in photos], _resolved(mask=mask, grid=grid)
    out = out.resolve()
    source = _source(dataset, bundle, model)
    from boundaryflow.config import delivery_of
    from boundaryflow.jobs.pictures import edit_photos

    how = delivery_of("edit", **delivery)
    for path in edit_photos(given, source, amounts, list(strengths), out, how, **more):
        click.echo(path)


@click.command(
    epilog="""\b
Examples:
  boundaryflow sweep photo.png --attribute smiling --from 0 --to 2 --num 9
  boundaryflow sweep photos/ --attribute smiling --attribute mouth_open --grid sheet.png"""
)
@_PICTURES
@_how_to_edit
@click.option("--from", "start", type=Number(), default=0.0, show_default=True, help="First strength.")
@click.option("--to", "stop", type=Number(), default=2.0, show_default=True, help="Last strength.")
@click.option("--num", type=click.IntRange(2, 101), default=9, show_default=True, help="How many strengths.")
@click.option("--out", type=_PATH, default=_OUT / "sweep", show_default=True, help="Folder for the strips.")
@delivered
def sweep(
    photos: tuple[Path, ...],
    dataset: str | None,
    bundle: Path | None,
    model: str | None,
    attributes: tuple[str, ...],
    mask: Path | None,
    grid: Path | None,
    start: float,
    stop: float,
    num: int,
    out: Path,
    **delivery: Any,
) -> None:
    """Write a strip of each picture at many strengths."""
    amounts = _amounts(attributes)
    given, more = [path.resolve() for path in photos], _resolved(mask=mask, grid=grid)
    out = out.resolve()
    source = _source(dataset, bundle, model)
    from boundaryflow.config import delivery_of
    from boundaryflow.jobs.pictures import sweep_photos

    how = delivery_of("sweep", **delivery)
    for path in sweep_photos(given, source, amounts, start, stop, num, out, how, **more):
        click.echo(path)


@click.command(
    epilog="""\b
Examples:
  boundaryflow sample -n 16 --attribute smiling
  boundaryflow sample -n 16 --attribute smiling --attribute hat=off --strength 1.2 --seed 7
  boundaryflow sample -n 64 --attribute hat=0.5 --attribute eyeglasses=0.25"""
)
@click.option("-n", "--num", type=click.IntRange(1, 10_000), default=16, show_default=True, help="How many images.")
@_DATASET
@click.option(
    "--attribute",
    "attributes",
    multiple=True,
    metavar="NAME[=on|off|SHARE]",
    help="With it, without it, or that share of the images with it (0 to 1); may be repeated.",
)
@click.option("--strength", type=NumberRange(min=0), default=1.0, show_default=True, help="As in `edit`.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of the noise.")
@click.option("--out", type=_PATH, default=_OUT / "sample", show_default=True, help="Folder for the pictures.")
def sample(num: int, dataset: str | None, attributes: tuple[str, ...], strength: float, seed: int, out: Path) -> None:
    """Draw images from noise, with attributes on, off, or at a given rate."""
    wanted = dict(_parse_attribute(text) for text in attributes)
    out = out.resolve()
    enter_root()
    name = one_dataset(dataset)
    from boundaryflow.jobs.sampling import sample_images

    click.echo(sample_images(name, num, wanted, seed, out, strength))


@click.command(
    epilog="""\b
Examples:
  boundaryflow text "a face with a beard" --from "a clean-shaven face"
  boundaryflow text "a person wearing a hat" --from "a person" photo.png --strength 1 --on images
  boundaryflow text "a red brick church" --from "a church" photo.png --positives generated/"""
)
@click.argument("words")
@click.argument("photos", metavar="[PHOTO]...", nargs=-1, type=_FILE)
@click.option("--from", "start", required=True, metavar="WORDS", help="Description of images before the edit.")
@click.option("--dataset", metavar="NAME", help="Use its model [default: the only one in params.yaml].")
@click.option("--name", metavar="NAME", help="Name of the boundary [default: made from the words].")
@click.option(
    "--on",
    type=click.Choice(["samples", "images"]),
    default="samples",
    show_default=True,
    help="Look at images that the model draws, or at the data set's own.",
)
@click.option("--positives", type=click.Path(path_type=Path, exists=True, file_okay=False), metavar="DIR",
              help="Images that fit WORDS, made elsewhere; used instead of CLIP.")  # fmt: skip
@click.option("--num", type=click.IntRange(30), default=400, show_default=True, help="How many images to look at.")
@_STRENGTHS
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of the drawn images.")
@click.option("--out", type=_PATH, default=_OUT / "text", show_default=True, help="Folder for the pictures.")
def text(
    words: str,
    photos: tuple[Path, ...],
    start: str,
    dataset: str | None,
    name: str | None,
    on: Any,
    positives: Path | None,
    num: int,
    strengths: tuple[float, ...],
    seed: int,
    out: Path,
) -> None:
    """Fit a boundary from WORDS, and edit photos with it.

    CLIP says which images fit WORDS better than the words of --from. The boundary is kept: `edit`, `sweep` and `sample`
    know it by its name.
    """
    photos, out = tuple(path.resolve() for path in photos), out.resolve()
    positives = positives.resolve() if positives else None
    enter_root()
    of = one_dataset(dataset)
    from boundaryflow.jobs.pictures import check_strengths, edit_photos
    from boundaryflow.jobs.text import boundary_from_words, name_of

    check_strengths("text", strengths)
    name = name or name_of(words)
    path, found = boundary_from_words(of, words, start, name, on=on, num=num, seed=seed, positives=positives)
    best = max(found.noised, key=lambda hyperplane: hyperplane.calibration.auc)
    click.echo(
        f"{path}: {len(found.noised)} noise levels up to {found.noised[-1].t}, held-out AUC {best.calibration.auc:.2f}"
    )
    for written in edit_photos(list(photos), of, name, list(strengths), out) if photos else []:
        click.echo(written)


def _source(dataset: str | None, bundle: Path | None, model: str | None) -> str | Fitted:
    """The data set, after a change into its checkout, or the opened bundle."""
    if bundle is None:
        if model is not None:
            raise click.UsageError("--model names the model of a bundle; say which with --bundle")
        enter_root()
        return one_dataset(dataset)
    if dataset is not None:
        raise click.UsageError("--dataset and --bundle are both given; give one")
    from boundaryflow.jobs.bundle import open_bundle

    return open_bundle(bundle, model)


def _resolved(**paths: Path | None) -> dict[str, Path | None]:
    """Absolute paths, as the command changes into the checkout."""
    return {name: path and path.resolve() for name, path in paths.items()}


def _amounts(texts: tuple[str, ...]) -> dict[str, float]:
    """Attribute to how much it is to change: +1 on, -1 off."""
    found: dict[str, float] = {}
    for text in texts:
        name, _, state = text.partition("=")
        try:
            amount = {"": 1.0, "on": 1.0, "off": -1.0}[state] if state in ("", "on", "off") else float(state)
        except ValueError:
            amount = 0.0
        if not name or not math.isfinite(amount) or amount == 0:
            wanted = "NAME, NAME=on, NAME=off, or NAME=STRENGTH with a number other than 0"
            raise click.BadParameter(f"{text!r} is not {wanted}", param_hint="--attribute")
        if name in found:
            raise click.BadParameter(f"{name!r} is named twice; name it once", param_hint="--attribute")
        found[name] = amount
    return found


def _parse_attribute(text: str) -> tuple[str, float]:
    name, _, state = text.partition("=")
    try:
        share = {"": 1.0, "on": 1.0, "off": 0.0}[state] if state in ("", "on", "off") else float(state)
    except ValueError:
        share = -1.0
    if not name or not 0 <= share <= 1:
        wanted = "NAME, NAME=on, NAME=off, or NAME=SHARE with a share from 0 to 1"
        raise click.BadParameter(f"{text!r} is not {wanted}", param_hint="--attribute")
    return name, share
