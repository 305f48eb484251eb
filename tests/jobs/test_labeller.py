"""Who labels pictures that nobody annotated: the judges, else what labels the data set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from boundaryflow.config import load_params
from boundaryflow.jobs.labeller import Labeller, identity_of, spec_of
from tests.foreign_judges import channel_means, declare
from tests.small_project import write_project


def test_classifier_of_the_labels_labels_new_pictures_where_no_judge_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder, attributes in {"labels": {"hat": 0, "Dark": 1}, "judges": {"hat": 2}}.items():
        channel_means(tmp_path / folder)
        declare(tmp_path / folder, "mean", attributes=attributes, activation="none")
    source = {"kind": "classifier", "weights": "labels", "calibration": None}
    rules: dict[str, Any] = {"hat": {"column": None}, "dark_skin": {"column": "Dark"}}
    label = {"source": source, "attributes": rules}
    edits = {"hat": {"hat": "flip"}}
    write_project(tmp_path, label=label, evaluate__judges="judges", edit__edits=edits)
    spec = spec_of(load_params(tmp_path).dataset("avatars"), ["hat", "dark_skin"])
    assert spec.by == {"hat": "judges", "dark_skin": "classifier"}
    labeller = Labeller(spec, {}, None, None, None, 0)  # type: ignore[arg-type]  # no hyperplane is asked
    pixels = torch.tensor([51, 102, 204], dtype=torch.uint8).view(1, 3, 1, 1).expand(1, 3, 16, 16)
    torch.testing.assert_close(labeller(pixels, ["a"]), torch.tensor([[0.8, 0.4]]))
    before = identity_of(spec)
    declare(tmp_path / "labels", "mean", attributes={"hat": 0, "Dark": 0}, activation="none")
    assert identity_of(spec) != before
