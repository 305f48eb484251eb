"""The command line: `boundaryflow COMMAND`. Imports nothing heavy until a command needs it."""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Sequence
from datetime import datetime
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from boundaryflow.errors import PipelineError
from boundaryflow.files import write_bytes
from flows.environment import LOG_FOLDER, find_root, num_parallel, prepare

if TYPE_CHECKING:
    from stages.params import Params

_OUT = Path("out")
_PATH = click.Path(path_type=Path)
_IMAGE = click.Path(path_type=Path, exists=True, dir_okay=False)


class _Commands(click.Group):
    """Turns what goes wrong into one line and an exit status: 2 for what the user can mend, 1 for the rest."""

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
            reason = " ".join(str(error).split()) or "no message"
            click.echo(f"boundaryflow: unexpected {type(error).__name__}: {reason}", err=True)
            click.echo(f"  traceback: {_write_traceback()} (BOUNDARYFLOW_DEBUG=1 prints it)", err=True)
            ctx.exit(1)


def _say_error(error: PipelineError) -> None:
    for line in str(error).splitlines() or [""]:
        click.echo(f"{type(error).__name__}: {line}", err=True)


def _write_traceback() -> Path:
    try:
        folder = find_root() / LOG_FOLDER
    except PipelineError:
        folder = Path.home() / ".cache" / "boundaryflow"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"error-{datetime.now():%Y%m%d-%H%M%S}-{os.getpid()}.log"
    path.write_text(traceback.format_exc(), encoding="utf-8")
    return path


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("boundaryflow")
    except PackageNotFoundError:
        return "not installed"


def _enter_root() -> Path:
    root = find_root()
    os.chdir(root)
    return root


def _one_dataset(name: str | None) -> str:
    """The data set meant: the one named, else the only one of params.yaml."""
    from stages.params import load_params

    active = list(load_params().datasets)
    if name is not None:
        return name
    if len(active) == 1:
        return active[0]
    raise PipelineError(f"params.yaml lists the data sets {', '.join(active)}: say which one with --dataset NAME")


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
  boundaryflow status
  boundaryflow doctor""",
)
@click.version_option(_version(), prog_name="boundaryflow", message="%(prog)s %(version)s")
def cli() -> None:
    """Edit an image data set by attribute with a frozen diffusion model.

    Exit status: 0 when all is done, 2 for what you can mend (one line says what and how), 1 for the rest.
    """


@cli.command(
    epilog="""\b
Examples:
  boundaryflow run
  boundaryflow run --dataset digits
  boundaryflow run --stage edit --force
  BOUNDARYFLOW_PARALLEL=2 boundaryflow run --verbose"""
)
@click.option("--dataset", "datasets", multiple=True, metavar="NAME", help="Only this data set; may be repeated.")
@click.option("--stage", "stages", multiple=True, metavar="NAME", help="Up to this stage only (edit, edit@avatars).")
@click.option("--force", is_flag=True, help="Run stages that are up to date, too; finished shards are kept.")
@click.option("--push", is_flag=True, help="Then send the outputs to DVC's default remote.")
@click.option("--quiet", is_flag=True, help="Print errors only.")
@click.option("--verbose", is_flag=True, help="Show what the stages print.")
@click.pass_context
def run(
    ctx: click.Context,
    datasets: tuple[str, ...],
    stages: tuple[str, ...],
    force: bool,
    push: bool,
    quiet: bool,
    verbose: bool,
) -> None:
    """Bring everything up to date: ingest to report, for the data sets in params.yaml.

    Only what changed is computed. Ctrl-C stops it; the next run goes on where it was.
    """
    root = _enter_root()
    _check_params(root, datasets, stages, push=push, quiet=quiet)
    _refresh_listings(root, datasets)
    from flows.run import execute

    ctx.exit(execute(root, datasets, stages, force=force, push=push, quiet=quiet, verbose=verbose))


def _check_params(root: Path, datasets: Sequence[str], stages: Sequence[str], *, push: bool, quiet: bool) -> None:
    """Validate params.yaml as a whole, after adding known data sets that are not in its `datasets`."""
    from stages.params import load_params, ready_entries

    params = load_params()
    known = sorted({*params.data, *ready_entries()})
    for name in datasets:
        if name not in known:
            near = get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"
            raise PipelineError(
                f"--dataset {name}: params.yaml has no data.{name}; {hint} docs/ says how to describe one"
            )
    new = [name for name in dict.fromkeys(datasets) if name not in params.datasets]
    if new:
        from flows.locks import flow_lock

        with flow_lock(root):
            _activate(root, new, datasets, stages, push=push)
    for name in new if not quiet else ():
        copied = "" if name in params.data else ", its entry copied from recipes/"
        click.echo(f"params.yaml: {name} added to `datasets`{copied}")


def _refresh_listings(root: Path, datasets: Sequence[str]) -> None:
    """List remote folders anew, so that DVC sees what changed there; a run whose folder cannot be listed stops."""
    from flows.locks import flow_lock
    from stages.params import load_params

    params = load_params()
    with flow_lock(root):
        _list_remote(params, datasets or params.datasets)


def _list_remote(params: Params, datasets: Sequence[str]) -> None:
    sources = {name: params.data[name].ingest.source for name in datasets}
    for name, source in sources.items():
        if source.kind == "remote":
            from stages.listing import refresh

            refresh(name, source.url)


def _activate(root: Path, new: Sequence[str], datasets: Sequence[str], stages: Sequence[str], *, push: bool) -> None:
    """Add data sets to params.yaml; none of them stays there unless the run that was asked for can begin."""
    from boundaryflow.storage.raw import RawFolder
    from flows.dvc_graph import has_remote, plan
    from flows.locks import clear_stale_rwlock
    from stages.params import activate_dataset, copy_entry, load_params, ready_entries

    prepare(root)  # before DVC is imported
    num_parallel()
    clear_stale_rwlock(root)
    if push and not has_remote(root):
        raise PipelineError("--push: DVC has no default remote in .dvc/config; add one with `dvc remote add --default`")
    path, described, ready = Path("params.yaml"), load_params().data, ready_entries()
    before = path.read_bytes()
    try:
        for name in new:
            if name not in described:
                copy_entry(path, name, ready[name])
            activate_dataset(path, name)
        params = load_params()
        for name, dataset in params.data.items():
            if name in new and dataset.ingest.source.kind == "folder":
                RawFolder(Path("data/raw") / name, dataset.ingest.image_size)
        _list_remote(params, new)
        plan(root, datasets, stages)
    except BaseException:
        write_bytes(path, before)
        raise


@cli.command(
    epilog="""\b
Examples:
  boundaryflow edit photo.png --attribute smiling
  boundaryflow edit *.png --attribute eyeglasses --strength 0.5 --strength 1 --out edited"""
)
@click.argument("photos", metavar="PHOTO...", nargs=-1, required=True, type=_IMAGE)
@click.option("--dataset", metavar="NAME", help="Whose model and boundaries [default: the one in params.yaml].")
@click.option("--attribute", required=True, metavar="NAME", help="What to change.")
@click.option(
    "--strength", "strengths", multiple=True, type=float, default=(1.0,), show_default="1.0", help="May be repeated."
)
@click.option("--out", type=_PATH, default=_OUT / "edit", show_default=True, help="Folder for the pictures.")
def edit(
    photos: tuple[Path, ...], dataset: str | None, attribute: str, strengths: tuple[float, ...], out: Path
) -> None:
    """Edit a few images, from the boundaries that `boundaryflow run` left."""
    photos, out = tuple(path.resolve() for path in photos), out.resolve()
    _enter_root()
    name = _one_dataset(dataset)
    from stages.adhoc import edit_photos

    for path in edit_photos(list(photos), name, attribute, list(strengths), out):
        click.echo(path)


@cli.command(epilog="\b\nExample:\n  boundaryflow sweep photo.png --attribute smiling --from 0 --to 2 --num 9")
@click.argument("photo", metavar="PHOTO", type=_IMAGE)
@click.option("--dataset", metavar="NAME", help="Whose model and boundaries [default: the one in params.yaml].")
@click.option("--attribute", required=True, metavar="NAME", help="What to change.")
@click.option("--from", "start", type=float, default=0.0, show_default=True, help="First strength.")
@click.option("--to", "stop", type=float, default=2.0, show_default=True, help="Last strength.")
@click.option("--num", type=click.IntRange(2, 101), default=9, show_default=True, help="How many strengths.")
@click.option("--out", type=_PATH, default=_OUT / "sweep", show_default=True, help="Folder for the strip.")
def sweep(photo: Path, dataset: str | None, attribute: str, start: float, stop: float, num: int, out: Path) -> None:
    """Write a strip of one image at many strengths."""
    photo, out = photo.resolve(), out.resolve()
    _enter_root()
    name = _one_dataset(dataset)
    from stages.adhoc import sweep_photo

    click.echo(sweep_photo(photo, name, attribute, start, stop, num, out))


@cli.command(
    epilog="""\b
Examples:
  boundaryflow sample -n 16 --attribute smiling
  boundaryflow sample -n 16 --attribute smiling --attribute hat=off --strength 1.2 --seed 7
  boundaryflow sample -n 64 --attribute hat=0.5 --attribute eyeglasses=0.25"""
)
@click.option("-n", "--num", type=click.IntRange(1, 10_000), default=16, show_default=True, help="How many images.")
@click.option("--dataset", metavar="NAME", help="Whose model and boundaries [default: the one in params.yaml].")
@click.option(
    "--attribute",
    "attributes",
    multiple=True,
    metavar="NAME[=on|off|SHARE]",
    help="With it, without it, or that share of the images with it (0 to 1); may be repeated.",
)
@click.option("--strength", type=click.FloatRange(min=0), default=1.0, show_default=True, help="How far, as in `edit`.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Which noise to start from.")
@click.option("--out", type=_PATH, default=_OUT / "sample", show_default=True, help="Folder for the pictures.")
def sample(num: int, dataset: str | None, attributes: tuple[str, ...], strength: float, seed: int, out: Path) -> None:
    """Draw images from noise, with attributes on, off, or at a given rate."""
    wanted = dict(_parse_attribute(text) for text in attributes)
    out = out.resolve()
    _enter_root()
    name = _one_dataset(dataset)
    from stages.adhoc import sample_images

    click.echo(sample_images(name, num, wanted, seed, out, strength))


@cli.command(
    epilog="""\b
Examples:
  boundaryflow text "a face with a beard" --from "a clean-shaven face"
  boundaryflow text "a person wearing a hat" --from "a person" photo.png --strength 1 --on images
  boundaryflow text "a red brick church" --from "a church" photo.png --positives generated/"""
)
@click.argument("words")
@click.argument("photos", metavar="[PHOTO]...", nargs=-1, type=_IMAGE)
@click.option("--from", "start", required=True, metavar="WORDS", help="What describes images as they are.")
@click.option("--dataset", metavar="NAME", help="Whose model [default: the one in params.yaml].")
@click.option("--name", metavar="NAME", help="Of the boundary [default: made of the words].")
@click.option(
    "--on",
    type=click.Choice(["samples", "images"]),
    default="samples",
    show_default=True,
    help="Look at images that the model draws, or at the data set's own.",
)
@click.option("--positives", type=click.Path(path_type=Path, exists=True, file_okay=False), metavar="DIR",
              help="Images that show it, made elsewhere; instead of asking CLIP.")  # fmt: skip
@click.option("--num", type=click.IntRange(30), default=400, show_default=True, help="How many images to look at.")
@click.option(
    "--strength", "strengths", multiple=True, type=float, default=(1.0,), show_default="1.0", help="May be repeated."
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of what the model draws.")
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
    _enter_root()
    of = _one_dataset(dataset)
    from stages.adhoc import edit_photos
    from stages.text import boundary_from_words, name_of

    name = name or name_of(words)
    path, found = boundary_from_words(of, words, start, name, on=on, num=num, seed=seed, positives=positives)
    best = max(found.noised, key=lambda plane: plane.calibration.auc)
    click.echo(
        f"{path}: {len(found.noised)} noise levels up to {found.noised[-1].t}, held-out AUC {best.calibration.auc:.2f}"
    )
    for written in edit_photos(list(photos), of, name, list(strengths), out) if photos else []:
        click.echo(written)


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


@cli.command(
    epilog="""\b
Examples:
  boundaryflow export --dataset avatars --to balanced --edit eyeglasses --strength 1
  boundaryflow export --dataset avatars --to smiling --edit smiling --weakest 0.9"""
)
@click.option("--dataset", metavar="NAME", help="Which data set [default: the one in params.yaml].")
@click.option("--to", type=_PATH, required=True, metavar="DIR", help="Folder to write.")
@click.option("--edit", "edits", multiple=True, metavar="NAME", help="Only this edit; may be repeated.")
@click.option("--strength", "strengths", multiple=True, type=float, help="Only this strength; may be repeated.")
@click.option(
    "--weakest",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    metavar="P",
    help="Of each image only the weakest strength at which the judge gives the edit probability P.",
)
def export(
    dataset: str | None, to: Path, edits: tuple[str, ...], strengths: tuple[float, ...], weakest: float | None
) -> None:
    """Write the edited pictures as PNG files: DIR/EDIT/STRENGTH/ITEM.png and DIR/metadata.parquet."""
    to = to.resolve()
    _enter_root()
    name = _one_dataset(dataset)
    from stages.export import export_images

    num, num_left_out = export_images(name, to, edits=edits, strengths=strengths, weakest=weakest)
    left_out = f" ({num_left_out} left out: no strength did)" if num_left_out else ""
    click.echo(f"{num} pictures: {to}{left_out}")


@cli.command(
    epilog="""\b
Examples:
  boundaryflow inspect celeba_hq.ckpt
  boundaryflow inspect data/raw/celebahq256/CelebAMask-HQ-attribute-anno.txt
  boundaryflow inspect data/raw/church256
  boundaryflow inspect data/boundary/avatars/smiling.safetensors --json"""
)
@click.argument("path")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def inspect(path: str, as_json: bool) -> None:
    """Say what a file or folder is, and where it came from.

    A checkpoint, a CLIP model, a table of labels, pictures in a folder, an archive or an LMDB, a boundary, a shard, a
    judge, a table or folder of a stage.
    """
    from stages.inspection import as_text
    from stages.inspection import inspect as examine

    facts = examine(path)
    click.echo(json.dumps(facts, indent=2) if as_json else as_text(facts))


@cli.command(
    "import-checkpoint",
    epilog="""\b
Examples:
  boundaryflow import-checkpoint celeba_hq.ckpt data/pretrained/celebahq256
  boundaryflow import-checkpoint afhqdog_p2.pt data/pretrained/afhqdog256 --head-channels 64
  boundaryflow import-checkpoint ckpt.pth data/pretrained/celeba64 --ema require""",
)
@click.argument("source", metavar="SRC")
@click.argument("target", metavar="DST", type=_PATH)
@click.option("--image-size", type=click.IntRange(min=1), help="Side in pixels [default: from where attention begins].")
@click.option("--num-heads", type=click.IntRange(min=1), help="Attention heads [default: what the family has].")
@click.option("--head-channels", type=click.IntRange(min=1), help="Channels of a head, instead of their number.")
@click.option(
    "--qkv-order", type=click.Choice(["legacy", "new"]), help="How an iDDPM packs attention [default: legacy]."
)
@click.option("--schedule", type=click.Choice(["linear", "cosine"]), help="Of the betas [default: linear].")
@click.option("--timesteps", type=click.IntRange(min=2), help="Of the schedule [default: 1000].")
@click.option("--ema", type=click.Choice(["prefer", "require", "never"]), help="Averaged weights [default: prefer].")
def import_checkpoint(source: str, target: Path, schedule: str | None, timesteps: int | None, **stated: Any) -> None:
    """Convert a checkpoint to a diffusers folder with a model card.

    SRC is a DDPM or iDDPM / guided-diffusion checkpoint, a diffusers folder or a hub id. What its tensors do not say is
    taken from the options, else from SRC.json where that is there, else from what its family usually has; the model
    card lists what was taken for granted.
    """
    from stages.checkpoint import convert

    betas: dict[str, Any] = {}
    if schedule:
        betas["beta_schedule"] = {"linear": "linear", "cosine": "squaredcos_cap_v2"}[schedule]
    if timesteps:
        betas["num_train_timesteps"] = timesteps
    for line in convert(source, target, {k: v for k, v in {**stated, "schedule": betas}.items() if v}):
        click.echo(line)


@cli.command()
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def status(as_json: bool) -> None:
    """Show what is up to date, what is stale and why, and what to do next."""
    root = _enter_root()
    from flows import status as room

    found = room.collect(root)
    click.echo(room.as_json(found) if as_json else room.as_text(found))


@cli.command()
@click.option("--dataset", metavar="NAME", help="Only this data set.")
@click.option("--open", "open_it", is_flag=True, help="Open it in a browser.")
def report(dataset: str | None, open_it: bool) -> None:
    """Print where the HTML report lies."""
    root = _enter_root()
    from flows.summary import report_path
    from stages.params import load_params

    for name in [dataset] if dataset else load_params().datasets:
        path = root / report_path(name)
        if not path.is_file():
            raise PipelineError(f"{path}: there is no report yet; run `boundaryflow run --dataset {name}` first")
        click.echo(path)
        if open_it:
            click.launch(path.as_uri())


@cli.command()
@click.pass_context
def doctor(ctx: click.Context) -> None:
    """Check this machine and this checkout; each line that is not ok says the way out."""
    root = _enter_root()
    from flows.doctor import examine

    checks = examine(root)
    for check in checks:
        click.echo(str(check))
    ctx.exit(2 if any(check.level == "fail" for check in checks) else 0)


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of `boundaryflow`."""
    cli.main(args=None if argv is None else list(argv), prog_name="boundaryflow")


if __name__ == "__main__":
    main()
