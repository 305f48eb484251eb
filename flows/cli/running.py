"""Commands that run the graph, inspect it and clean up: run, status, report, doctor, gc."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from boundaryflow.errors import PipelineError
from boundaryflow.files import write_bytes
from boundaryflow.store.catalog.raw import RAW
from flows.cli.common import enter_root, how_it_runs, one_dataset, use_dask
from flows.environment import num_parallel, prepare


@click.command(
    epilog="""\b
Examples:
  boundaryflow run
  boundaryflow run --dataset digits
  boundaryflow run --stage edit --force
  boundaryflow run --pull --push
  boundaryflow run --estimate --images 100000
  boundaryflow run --dask tcp://10.0.0.5:8786
  BOUNDARYFLOW_PARALLEL=2 boundaryflow run --verbose"""
)
@click.option(
    "--dataset", "datasets", multiple=True, metavar="NAME", help="Only this one, added to params.yaml; may be repeated."
)
@click.option("--stage", "stages", multiple=True, metavar="NAME", help="Up to this stage only (edit, edit@avatars).")
@click.option("--force", is_flag=True, help="Run stages that are up to date, too; finished shards are kept.")
@click.option("--pull", is_flag=True, help="Fetch what DVC's default remote has instead of computing it.")
@click.option("--push", is_flag=True, help="Then send the outputs to DVC's default remote.")
@click.option("--estimate", is_flag=True, help="Only estimate the cost: time, disk, network calls.")
@click.option("--images", "num_images", type=click.IntRange(min=8), help="With --estimate: number of images to assume.")
@how_it_runs
@click.pass_context
def run(
    ctx: click.Context,
    estimate: bool,
    num_images: int | None,
    datasets: tuple[str, ...],
    stages: tuple[str, ...],
    force: bool,
    pull: bool,
    push: bool,
    dask: str | None,
    quiet: bool,
    verbose: bool,
) -> None:
    """Bring all stages up to date, params to report, for the data sets in params.yaml.

    Only what changed is computed. Ctrl-C stops it; the next run continues from finished shards.
    """
    root = enter_root()
    if num_images is not None and not estimate:
        raise click.UsageError("--images goes with --estimate; how many images a run takes is in params.yaml")
    if estimate:
        _estimate(datasets, num_images)
        return
    use_dask(dask)
    _check_params(root, datasets, stages, push=push, quiet=quiet)
    from flows.run import execute

    ctx.exit(execute(root, datasets, stages, force=force, pull=pull, push=push, quiet=quiet, verbose=verbose))


def _estimate(datasets: Sequence[str], num_images: int | None) -> None:
    from boundaryflow.config import load_params
    from flows import estimate as room

    params = load_params()
    click.echo(room.tell(params, datasets or params.datasets, num_images))


def _check_params(root: Path, datasets: Sequence[str], stages: Sequence[str], *, push: bool, quiet: bool) -> None:
    """Validate params.yaml as a whole, after adding named data sets that are not in its `datasets`."""
    from boundaryflow.config import described, load_params

    params = load_params()
    for name in datasets:
        described(params, name)
    new = [name for name in dict.fromkeys(datasets) if name not in params.datasets]
    if new:
        from flows.locks import flow_lock

        with flow_lock(root):
            _activate(root, new, datasets, stages, push=push)
    for name in new if not quiet else ():
        copied = "" if name in params.data else ", its entry copied from examples/"
        click.echo(f"params.yaml: {name} added to `datasets`{copied}")


def _activate(root: Path, new: Sequence[str], datasets: Sequence[str], stages: Sequence[str], *, push: bool) -> None:
    """Add data sets to params.yaml; they are removed again if the requested run cannot begin."""
    from boundaryflow.config import activate_dataset, copy_entry, load_params, ready_entries
    from boundaryflow.sources.raw import RawFolder, Wanted
    from flows.dvc_graph import has_remote, plan
    from flows.locks import clear_what_is_stale

    prepare(root)  # before DVC is imported
    num_parallel()
    clear_what_is_stale(root)
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
                wanted = Wanted(dataset.ingest.source.include, dataset.ingest.source.exclude)
                RawFolder(RAW.folder(name), dataset.ingest.image_size, wanted)
            elif name in new and dataset.ingest.source.kind == "parquet":
                from boundaryflow.sources.datasets import open_unlisted

                open_unlisted(name, dataset.ingest.source, dataset.ingest.image_size)
            elif name in new and dataset.ingest.source.kind == "remote":
                from boundaryflow.sources.remote import list_remote

                list_remote(dataset.ingest.source.url)
        plan(root, datasets, stages)
    except BaseException:
        write_bytes(path, before, follow=True)
        raise


@click.command()
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def status(as_json: bool) -> None:
    """Show what is up to date, what is stale and why, and what to do next."""
    root = enter_root()
    from flows import status as room

    found = room.collect(root)
    click.echo(room.as_json(found) if as_json else room.as_text(found))


@click.command()
@click.option("--dataset", metavar="NAME", help="Only this data set.")
@click.option("--open", "open_it", is_flag=True, help="Open it in a browser.")
def report(dataset: str | None, open_it: bool) -> None:
    """Print the path of the HTML report."""
    root = enter_root()
    from boundaryflow.config import load_params
    from flows.summary import report_path

    for name in [dataset] if dataset else load_params().datasets:
        path = root / report_path(name)
        if not path.is_file():
            raise PipelineError(f"{path}: there is no report yet; run `boundaryflow run --dataset {name}` first")
        click.echo(path)
        if open_it:
            click.launch(path.as_uri())


@click.command(
    epilog="""\b
Example:
  boundaryflow params avatars"""
)
@click.argument("name", required=False, metavar="[DATASET]")
def params(name: str | None) -> None:
    """Show every value of a data set, and whether its own entry or `defaults` states it."""
    root = enter_root()
    import yaml

    from boundaryflow.config import load_params, written_out

    dataset = one_dataset(name)
    rows = [
        (
            f"{key}: {yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=1000).splitlines()[0]}",
            home,
        )
        for key, value, home in written_out(root, dataset)
    ]
    width = min(70, max(len(line) for line, _home in rows))
    for line, home in rows:
        click.echo(f"{line.ljust(width)}  # {home}")
    if dataset not in load_params(root, check_files=False).datasets:
        way_out = f"boundaryflow run --dataset {dataset} adds it and checks them"
        click.echo(f"{dataset} is not in datasets: the files that it names were not checked; {way_out}", err=True)


@click.command()
@click.pass_context
def doctor(ctx: click.Context) -> None:
    """Check this machine and this checkout; each line that is not ok gives a remedy."""
    root = enter_root()
    from flows.doctor import examine

    checks = examine(root)
    for check in checks:
        click.echo(str(check))
    ctx.exit(2 if any(check.level == "fail" for check in checks) else 0)


@click.command(
    epilog="""\b
Examples:
  boundaryflow gc --dry-run
  boundaryflow gc --keep commits
  boundaryflow gc --inactive --yes"""
)
@click.option(
    "--keep",
    type=click.Choice(["workspace", "branches", "commits"]),
    default="branches",
    show_default=True,
    help="What of DVC's cache to keep: files of the working tree, also of branches and tags, also of all commits.",
)
@click.option("--inactive", is_flag=True, help="Also results of data sets that are described but not in `datasets`.")
@click.option("--dry-run", is_flag=True, help="Only show what can be removed.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def gc(keep: Any, inactive: bool, dry_run: bool, yes: bool) -> None:
    """Remove files that no current result needs, after showing them with their sizes and asking.

    Raw images, models, boundaries from words, verdicts of reviews, delivered files and files in out/ are always kept.
    """
    root = enter_root()
    from humanize import naturalsize

    from flows import gc as room

    found = room.collect(root, keep=keep, inactive=inactive)
    if found:
        click.echo(room.as_text(found))
    if all(item.is_note for item in found):
        click.echo("nothing to free")
        return
    if dry_run:
        return
    room.check_terminal(is_terminal=sys.stdin.isatty(), yes=yes)
    if not yes and not click.confirm("Remove all this?"):
        click.echo("nothing was removed")
        return
    freed = naturalsize(room.remove(root, found, keep=keep, inactive=inactive), binary=True)
    click.echo(f"{freed} freed")
