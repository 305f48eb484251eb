"""What the stage listing writes: what there is to be read, by name and content."""

from boundaryflow.store.catalog.output import Output, Table

PICTURES, TABLES = (Table(f"{what}.parquet", "listing/2", {"size": "bytes"}) for what in ("pictures", "tables"))
LISTING = Output(
    "listing",
    files=r"(pictures|tables)\.parquet|listing\.json",
    facts="listing.json",
    counted=("listing.json", "num_pictures"),
)
