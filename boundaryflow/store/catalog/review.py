"""What people decided on the edits of a data set; only the review page writes it, and no command removes it."""

from boundaryflow.store.catalog.output import Output, Table

VERDICTS = Table(
    "review.parquet",
    "review/1",
    {"strength": "as edit.strengths in params.yaml", "when": "UTC"},
    {"item_id": "str", "edit": "str", "strength": "float64", "verdict": "str", "when": "datetime64[us, UTC]"},
)
REVIEW = Output("review", files=r"review\.parquet", counted=(VERDICTS.file,), by="person")
