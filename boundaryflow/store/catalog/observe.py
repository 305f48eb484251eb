"""What the stage observe writes: features of images at many noise levels."""

from boundaryflow.store.catalog.output import SHARD, Output, Table

NOISED = Table("index.parquet", "noised/1", {"row": "position in the shard"})
OBSERVE = Output(
    "observe",
    files=rf"{SHARD}|index\.parquet|observe\.json",
    facts="observe.json",
    counted=(NOISED.file,),
    runs_networks=True,
)
