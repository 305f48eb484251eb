"""Labels of a whole data set: from words, from a file, from the renderer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from boundaryflow.errors import LabelError, ParamsError
from boundaryflow.storage.tables import read_table
from tests.stages.small_project import ROOT, run_here

SHIPPED = yaml.safe_load((ROOT / "params.yaml").read_text())["data"]["avatars"]["label"]


def relabel(folder: Path, monkeypatch: pytest.MonkeyPatch, label: dict[str, Any], **ingest: Any) -> pd.DataFrame:
    params = yaml.safe_load((folder / "params.yaml").read_text())
    params["data"]["avatars"]["label"] = label
    params["data"]["avatars"]["ingest"].update(ingest)
    params["data"]["avatars"]["edit"]["edits"] = {"only": {next(iter(label["attributes"])): "flip"}}
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    monkeypatch.setenv("BOUNDARYFLOW_PROGRESS", "off")
    run_here(folder, monkeypatch, *(["ingest"] if ingest else []), "label")
    return read_table(folder / "data/label/avatars/labels.parquet", schema="labels/1")


def test_words_find_the_attributes_of_faces(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("avatars64", "avatars64_clip"):
        (project / "data/pretrained" / name).symlink_to(ROOT / "data/pretrained" / name)
    text = (project / "params.yaml").read_text()
    (project / "params.yaml").write_text(text.replace("data/pretrained/tiny", "data/pretrained/avatars64"))
    labels = relabel(project, monkeypatch, SHIPPED, image_size=64)
    assert set(labels.columns) == {"item_id", *SHIPPED["attributes"]}
    facts = json.loads((project / "data/label/avatars/label.json").read_text())
    assert all(about["positive"] + about["negative"] == 40 and about["unknown"] == 0 for about in facts.values())
    assert all(about["auc"] >= 0.95 for about in facts.values()), facts


def test_rows_of_a_file_join_by_name_and_what_is_missing_is_unknown(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = read_table(project / "data/ingest/avatars/manifest.parquet", schema="manifest/1")
    truth = read_table(project / "data/label/avatars/labels.parquet", schema="labels/1").set_index("item_id")["hat"]
    rows = pd.DataFrame({"file": manifest["source"], "cap": [int(truth[i] > 0.5) for i in manifest["item_id"]]})
    raw = project / "data/raw/avatars"
    raw.mkdir(parents=True, exist_ok=True)
    rows.iloc[::-1].to_csv(raw / "l.csv", index=False)
    source = {"kind": "csv", "path": "l.csv", "file_column": "file"}
    labels = relabel(project, monkeypatch, {"source": source, "attributes": {"hat": {"column": "cap"}}})
    pd.testing.assert_series_equal(labels.set_index("item_id")["hat"].sort_index(), truth.sort_index())
    rows.iloc[:20].to_csv(raw / "l.csv", index=False)
    with pytest.raises(LabelError, match="20 of 40"):
        relabel(project, monkeypatch, {"source": source, "attributes": {"hat": {"column": "cap"}}})
    rows["cap"] = rows["cap"].where(rows.index < 30)
    rows.to_csv(raw / "l.csv", index=False)
    labels = relabel(project, monkeypatch, {"source": source, "attributes": {"hat": {"column": "cap"}}})
    assert labels["hat"].isna().sum() == 10


def test_truth_is_for_known_attributes_of_drawn_faces_only(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = {"kind": "avatars"}
    with pytest.raises(ParamsError, match="attributes.wings: the renderer has no such attribute"):
        relabel(project, monkeypatch, {"source": source, "attributes": {"wings": {"column": None}}})
    (project / "data/ingest/avatars/factors.parquet").unlink()
    with pytest.raises(LabelError, match="is for the built-in renderer's faces only"):
        relabel(project, monkeypatch, {"source": source, "attributes": {"hat": {"column": None}}})


def test_labels_of_a_folder_that_was_drawn_before_are_not_held_against_the_faces(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = project / "data/raw/avatars"
    raw.mkdir(parents=True)
    for seed in range(6):
        pixels = np.random.default_rng(seed).integers(0, 255, (16, 16, 3), np.uint8)
        Image.fromarray(pixels).save(raw / f"{seed}.png")
    (raw / "l.csv").write_text("file,hat\n" + "".join(f"{seed}.png,{seed % 2}\n" for seed in range(6)))
    params = yaml.safe_load((project / "params.yaml").read_text())
    params["data"]["avatars"]["evaluate"]["counterfactuals"] = False
    (project / "params.yaml").write_text(yaml.safe_dump(params))
    label = {
        "source": {"kind": "csv", "path": "l.csv", "file_column": "file"},
        "attributes": {"hat": {"column": None}},
    }
    labels = relabel(project, monkeypatch, label, source={"kind": "folder"})
    assert sorted(labels["hat"]) == [0, 0, 0, 1, 1, 1]
    assert not (project / "data/ingest/avatars/factors.parquet").exists()
