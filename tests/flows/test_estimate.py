"""What `run --estimate` prints."""

from __future__ import annotations

import json

from click.testing import CliRunner

from boundaryflow.estimate import Forecast, StageCost, as_json
from flows.cli import cli
from flows.estimate import as_text

FORECAST = Forecast(
    "faces",
    100_000,
    "cuda, bfloat16",
    (StageCost("ingest", 100_000, 0, 61.0, 2 * 2**30), StageCost("invert", 100_000, 1_700_000, 7200.0, 3 * 2**30)),
)


def test_every_stage_has_a_row_and_all_of_them_one() -> None:
    title, _header, _line, ingest, invert, whole = as_text(FORECAST).splitlines()
    assert title == "faces: 100,000 images on cuda, bfloat16"
    assert ingest.split() == ["ingest", "100,000", "1", "min", "1", "s", "2.0", "GiB"]
    assert invert.split() == ["invert", "100,000", "1,700,000", "2", "h", "0", "min", "3.0", "GiB"]
    assert whole.split() == ["all", "1,700,000", "2", "h", "1", "min", "5.0", "GiB"]


def test_json_has_the_same() -> None:
    found = json.loads(as_json(FORECAST))
    assert found["stages"][1]["image_calls"] == 1_700_000
    assert found["where"] == "cuda, bfloat16"


def test_number_of_images_goes_with_an_estimate() -> None:
    done = CliRunner().invoke(cli, ["run", "--images", "5000"])
    assert done.exit_code == 2
    assert "--images goes with --estimate" in done.output
