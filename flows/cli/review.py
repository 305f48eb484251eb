"""The command `review`: look at all edits of a data set, and choose."""

from __future__ import annotations

import click

from flows.cli.common import enter_root, one_dataset


@click.command(
    epilog="""\b
Examples:
  boundaryflow review
  boundaryflow review faces --port 8400 --no-open"""
)
@click.argument("dataset", required=False, metavar="[DATASET]")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=0, metavar="PORT", help="Of the page [default: a free one]."
)
@click.option("--open/--no-open", "open_it", default=True, help="Open it in a browser.", show_default=True)
@click.pass_context
def review(ctx: click.Context, dataset: str | None, port: int, open_it: bool) -> None:
    """Look at all edits of a data set on a local page, and accept, reject or change the strength of each.

    What was chosen is kept in data/review/DATASET/review.parquet, and `export --accepted` writes it out. Only this
    machine reaches the page, by an address that is printed; stop it with Ctrl-C.
    """
    root = enter_root()
    name = one_dataset(None) if dataset is None else dataset
    from flows import review as room

    def ready(address: str) -> None:
        room.say(f"{address} (Ctrl-C stops it)")
        if open_it and room.has_display():
            click.launch(address)

    room.check_reviewable(root, name)
    ctx.exit(room.serve_review(root, name, port, ready))
