"""What people run on a finished data set runs in the bench as well."""

from __future__ import annotations

from pathlib import Path

import pytest

from benches.pipeline import daily
from tests.unit.review.conftest import write_run


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run of three items, two edits, three strengths."""
    monkeypatch.setattr(daily, "DATASET", "toy")
    write_run(tmp_path)
    return tmp_path


def test_review_shows_all_cases_and_then_those_in_half_the_range_of_a_measure(root: Path) -> None:
    found = daily.measured(lambda: daily.review(root))
    assert found["cases"] == 6
    assert 0 < found["filtered"] <= 6
    assert found["seconds"] >= found["open_s"]


def test_export_is_of_every_edited_picture(root: Path) -> None:
    assert daily.export(root)["pictures"] == daily.export_plan(root)["pictures"] == 18
