"""What the stage label writes: the probability that an image has an attribute."""

from boundaryflow.store.catalog.output import Output, Table

LABELS = Table("labels.parquet", "labels/1")
LABEL = Output(
    "label",
    files=r"labels\.parquet|label\.json",
    facts="label.json",
    counted=(LABELS.file,),
    runs_networks=True,
)
