"""What the stage boundary writes: hyperplanes, a file for each attribute, and how well they separate."""

from boundaryflow.store.catalog.output import Output, Table

_ALONG = {"mean_positive": "latent units", "mean_negative": "latent units", "sd": "latent units"}
BOUNDARIES = Table("boundaries.parquet", "boundaries/1", _ALONG)
NOISE_LEVELS = Table("path.parquet", "path/2", _ALONG)
SCORES = Table("scores.parquet", "scores/1", {"signed_distance": "latent units", "label": "probability"})
BOUNDARY = Output(
    "boundary",
    files=r"\w[\w-]*\.safetensors|(boundaries|path|scores)\.parquet",
    counted=(BOUNDARIES.file,),
)
METRICS = Output("boundary_metrics")  # data/boundary_metrics/NAME.json
