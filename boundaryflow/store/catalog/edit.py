"""What the stage edit writes: edited pictures in shards, and a row for each."""

from boundaryflow.store.catalog.output import SHARD, Output, Table

EDITS = Table(
    "manifest.parquet",
    "edits/1",
    {
        "strength": "1: typical of the other side; with single_step, gaps between classes; in paper mode, latent units",
        "targets": "JSON: attribute to +1 or -1",
    },
)
EDIT = Output(
    "edit",
    files=rf"[^/]+/{SHARD}|manifest\.parquet|edit\.json",
    facts="edit.json",
    counted=(EDITS.file,),
    runs_networks=True,
)
