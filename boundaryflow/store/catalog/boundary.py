"""What the stage boundary writes: hyperplanes, a file for each attribute, and how well they separate."""

from boundaryflow.store.catalog.output import Output, Table

_ALONG = {"mean_positive": "latent units", "mean_negative": "latent units", "sd": "latent units"}
_FACTS = {"num_positive": "int64", "num_negative": "int64", "auc_val": "float64", "mean_positive": "float64",
          "mean_negative": "float64", "sd": "float64"}  # fmt: skip
_OF_SPACE = {"train_accuracy": "float64", "bootstrap_cosine": "float64", "auc_test": "float64"}
BOUNDARIES = Table(
    "boundaries.parquet", "boundaries/1", _ALONG, {"attribute": "str", "space": "str", **_FACTS, **_OF_SPACE}
)
NOISE_LEVELS = Table("path.parquet", "path/2", _ALONG, {"attribute": "str", "t": "int64", **_FACTS, "followed": "bool"})
SCORES = Table(
    "scores.parquet",
    "scores/1",
    {"signed_distance": "latent units", "label": "probability"},
    {"item_id": "str", "split": "str", "attribute": "str", "space": "str", "signed_distance": "float32",
     "label": "float32"},
)  # fmt: skip
BOUNDARY = Output(
    "boundary",
    files=r"\w[\w-]*\.safetensors|(boundaries|path|scores)\.parquet",
    counted=(BOUNDARIES.file, NOISE_LEVELS.file),
)
METRICS = Output("boundary_metrics")  # data/boundary_metrics/NAME.json
