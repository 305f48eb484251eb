"""The command that writes out what a run has edited: export."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flows.cli.common import Number, NumberRange, enter_root, one_dataset
from flows.cli.delivering import delivered

if TYPE_CHECKING:
    from boundaryflow.jobs.export import Kind

_PATH = click.Path(path_type=Path)


@click.command(
    epilog="""\b
Examples:
  boundaryflow export --dataset avatars --to balanced --edit eyeglasses --strength 1
  boundaryflow export --dataset avatars --to smiling --edit smiling --weakest 0.9
  boundaryflow export --dataset faces --to chosen --accepted
  boundaryflow export --dataset faces --to edited --names source --suffix _edited --format source
  boundaryflow export --dataset faces --to hub --layout parquet --before
  boundaryflow export --dataset faces --to classes --layout imagefolder --label smiling
  boundaryflow export --dataset faces --to pairs --layout table"""
)
@click.option("--dataset", metavar="NAME", help="Which data set [default: the only one in params.yaml].")
@click.option("--to", type=_PATH, required=True, metavar="DIR", help="Folder to write.")
@click.option("--edit", "edits", multiple=True, metavar="NAME", help="Only this edit; may be repeated.")
@click.option("--strength", "strengths", multiple=True, type=Number(), help="Only this strength; may be repeated.")
@click.option(
    "--weakest",
    type=NumberRange(0, 1, min_open=True, max_open=True),
    metavar="P",
    help="Of each image only the weakest strength at which the judge gives the edit probability P.",
)
@click.option("--accepted", is_flag=True, help="Only what was accepted in `boundaryflow review`, at its strength.")
@click.option(
    "--method", type=click.Choice(["guided", "single_step"]), help="Pictures of this method [default: edit.method]."
)
@click.option(
    "--layout",
    type=click.Choice(["folders", "imagefolder", "parquet", "webdataset", "table"]),
    default="folders",
    show_default=True,
    help="What is written: see above.",
)
@click.option(
    "--label", metavar="NAME", help="Attribute that is the class: of imagefolder as folders, of parquet, of webdataset."
)
@click.option("--before", is_flag=True, help="The picture before each edit as well; table has it always.")
@click.option(
    "--shard-mib",
    type=click.IntRange(1),
    default=500,
    show_default=True,
    help="Most MiB of a file of parquet and webdataset.",
)
@delivered
@click.option(
    "--names",
    type=click.Choice(["item", "source"]),
    default="item",
    show_default=True,
    help="Name files after the item, or after their source, folders included.",
)
@click.option("--suffix", default="", metavar="TEXT", help="Added to the name of the source.")
def export(
    dataset: str | None,
    to: Path,
    edits: tuple[str, ...],
    strengths: tuple[float, ...],
    weakest: float | None,
    accepted: bool,
    method: str | None,
    layout: Kind,
    label: str | None,
    before: bool,
    shard_mib: int,
    **delivery: Any,
) -> None:
    r"""Write the edited pictures, and what is known of them.

    \b
    folders      EDIT/STRENGTH/ITEM.png and metadata.parquet
    imagefolder  SPLIT/EDIT/STRENGTH/ITEM.png and SPLIT/metadata.parquet
    parquet      data/SPLIT-00000-of-00003.parquet, as on the Hugging Face hub
    webdataset   SPLIT-000000.tar
    table        after/, before/ and edits.parquet, for FiftyOne and Spotlight
    """
    if accepted and weakest is not None:
        raise click.UsageError("--accepted and --weakest each choose the strength of every picture; give one of them")
    to = to.resolve()
    enter_root()
    name = one_dataset(dataset)
    from boundaryflow.config import delivery_of
    from boundaryflow.jobs.export import Layout, export_dataset

    how, laid_out = delivery_of("export", **delivery), Layout(layout, label, before, shard_mib * 2**20)
    num, num_left_out = export_dataset(
        name, to, how, laid_out, edits=edits, strengths=strengths, weakest=weakest, method=method, accepted=accepted
    )
    reasons = {
        "accepted, but not among these edits": accepted,
        "no strength did": weakest is not None,
        f"{label} is not known": label is not None,
    }
    why = ", or ".join(reason for reason, applies in reasons.items() if applies)
    left_out = f" ({num_left_out} left out: {why})" if num_left_out else ""
    click.echo(f"{num} pictures: {to}{left_out}")
