"""What jobs and commands write outside the stage graph."""

from boundaryflow.store.catalog.output import SHARD, Output

RECORD_SCHEMA = "run/1"
LAST, GRID, RUNS = "last_run.json", "grid.png", "runs.jsonl"
"""The record of a job's last run, some of its pictures, and a line for each run."""
_RECORD = r"last_run\.json|runs\.jsonl|grid\.png"
BULK_EDIT = Output("bulk_edit", files=rf"shards/{SHARD}|{_RECORD}", by="job")
AUGMENT = Output("augment", files=rf"[^/]+/{SHARD}|{_RECORD}", by="job")
TEXT = Output("text", by="person")  # hyperplanes, by names that a person chose
