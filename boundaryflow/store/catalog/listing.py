"""What the stage listing writes: the names and hashes of the raw files."""

from boundaryflow.store.catalog.output import Output, Table

PICTURES, TABLES = (Table(f"{what}.parquet", "listing/2", {"size": "bytes"}) for what in ("pictures", "tables"))
LISTING = Output(
    "listing",
    files=r"(pictures|tables)\.parquet|listing\.json",
    facts="listing.json",
    counted=("listing.json", "num_pictures"),
)
