"""What the stage ingest writes: pixels in shards, and a manifest of the images."""

from boundaryflow.store.catalog.output import SHARD, Output, Table

MANIFEST = Table("manifest.parquet", "manifest/1", {"width_px": "px", "height_px": "px"})
FACES = Table("factors.parquet", "avatars/1")
REMOTE = Table("remote.parquet", "remote/1")
INGEST = Output(
    "ingest",
    files=rf"{SHARD}|(manifest|factors|remote)\.parquet|ingest\.json",
    facts="ingest.json",
    counted=("ingest.json", "num_ok", "num_bad"),
)
