"""What the stage invert writes: latents at the mixing step."""

from boundaryflow.store.catalog.output import SHARD, Output, Table

LATENTS = Table("index.parquet", "latents/1", {"row": "position in the shard"})
INVERT = Output(
    "invert",
    files=rf"{SHARD}|index\.parquet|invert\.json",
    facts="invert.json",
    counted=(LATENTS.file,),
    runs_networks=True,
)
