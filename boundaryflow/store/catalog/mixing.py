"""What the stage mixing writes: the mixing step, and the curves from which it was chosen."""

from boundaryflow.store.catalog.output import Output, Table

CURVES = Table("curves.parquet", "curves/1", {"t": "timestep", "value": "radius / sqrt(d), or AUC"})
MIXING = Output(
    "mixing",
    files=r"curves\.(parquet|csv)|mixing\.json",
    facts="mixing.json",
    runs_networks=True,
)
