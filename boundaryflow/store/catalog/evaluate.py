"""What the stage evaluate writes: measures of every edited picture, and their summary."""

from boundaryflow.store.catalog.output import Output, Table

PER_IMAGE = Table(
    "tables/per_image.parquet",
    "per_image/1",
    {
        "target_probability": "probability",
        "drift": "probability",
        "psnr_db": "dB",
        "counterfactual_rmse": "1 is the range from black to white",
    },
)
EVALUATE = Output(
    "evaluate",
    files=r"tables/(per_image\.parquet|summary\.csv)|strength\.csv|metrics\.json",
    facts="metrics.json",
    counted=(PER_IMAGE.file,),
    runs_networks=True,
)
