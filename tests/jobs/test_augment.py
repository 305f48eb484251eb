"""Augmentation: the fewest edits that balance a set, each checked, with what training code and an auditor need."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from PIL import Image

from boundaryflow.errors import ManifestError
from boundaryflow.jobs import augment
from boundaryflow.review.verdicts import Change, Verdicts
from boundaryflow.store.shards import load_items
from boundaryflow.store.tables import read_table, write_table
from flows.own_outputs import OwnOutputs, files_of
from tests.small_project import content


def set_job(folder: Path, **values: Any) -> None:
    path = folder / "params.yaml"
    params = yaml.safe_load(path.read_text())
    job = {
        "dataset": "avatars",
        "target": {"equal": "hat"},
        "split": "train",
        "strengths": [0.0, 2.0, 1.0],
        "min_probability": 0.01,
        "out": "out/balanced",
    }
    path.write_text(yaml.safe_dump({**params, "augment": {"some": {**job, **values}}}))


def run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["augment", "some"])
    augment.main.__wrapped__()
    own, entry = OwnOutputs(folder, None), folder / "data/augment/some"
    assert own.is_entry("augment", entry)
    assert all(own.is_ours("augment", entry, file) for file in files_of(entry)), "gc would know it"
    return json.loads((folder / "data/augment/some/last_run.json").read_text())


def metadata(folder: Path) -> pd.DataFrame:
    return read_table(folder / "out/balanced/metadata.parquet", schema="augmented/1")


def written(folder: Path) -> dict[str, bytes]:
    found = content(folder / "out/balanced")
    return {name: data for name, data in found.items() if name != "runs.jsonl" and not name.startswith(".boundaryflow")}


def make_hats_rare(folder: Path, num: int = 3) -> None:
    """Say of all but a few images of the training split that they show no hat."""
    path = folder / "data/label/avatars/labels.parquet"
    labels = read_table(path, schema="labels/1")
    manifest = read_table(folder / "data/ingest/avatars/manifest.parquet", schema="manifest/1")
    train = set(manifest.loc[manifest["split"] == "train", "item_id"])
    rows = labels.index[labels["item_id"].isin(train)]
    labels.loc[rows, "hat"] = 0.0
    labels.loc[rows[:num], "hat"] = 1.0
    write_table(path, labels, schema="labels/1")


@pytest.fixture
def lopsided(project: Path) -> Path:
    make_hats_rare(project)
    set_job(project)
    return project


def test_as_many_with_it_as_without_and_every_picture_says_where_it_is_from(
    lopsided: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = run(lopsided, monkeypatch)
    table = metadata(lopsided)
    edits = table[table["synthetic"]]
    assert (table["label_hat"] == 1).sum() == (table["label_hat"] == 0).sum()
    assert len(edits) == told["added"]["hat-1"] == told["wanted"]["hat-1"] == told["before"]["hat-0"] - 3
    assert (edits["edit"] == "hat-on").all()
    assert (edits["strength"] == 1.0).all(), "the weakest strength that is good enough"
    for row in table.to_dict("records"):
        assert row["file_name"].startswith(f"hat-{row['label_hat']}/")
        with Image.open(lopsided / "out/balanced" / row["file_name"]) as picture:
            pixels = torch.from_numpy(np.array(picture).transpose(2, 0, 1))
            assert picture.text["synthetic"] == str(row["synthetic"]).lower()  # type: ignore[attr-defined]
            assert picture.text["item_id"] == row["item_id"]  # type: ignore[attr-defined]
        original = load_items(lopsided / "data/ingest/avatars", [row["item_id"]], ["pixels"])["pixels"][0]
        assert torch.equal(pixels, original) != row["synthetic"]
    assert edits["boundary"].nunique() == 1
    assert edits["item_id"].is_unique


def test_second_run_edits_nothing_and_changes_no_byte(
    lopsided: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run(lopsided, monkeypatch)
    before = written(lopsided)
    with caplog.at_level("INFO"):
        run(lopsided, monkeypatch)
    assert " 0 images to compute" in caplog.text
    assert written(lopsided) == before


def test_independence_of_two_attributes(lopsided: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_job(lopsided, target={"independent": ["hat", "dark_skin"]}, min_probability=0.001)
    monkeypatch.setattr(augment.Augmenter, "_judge", _judge_all_good)
    told = run(lopsided, monkeypatch)
    assert abs(told["phi"]["after"]) < abs(told["phi"]["before"]) + 1e-9
    table = metadata(lopsided)
    pairs = table.groupby(["label_hat", "label_dark_skin"]).size()
    assert abs(pairs[1, 1] * pairs[0, 0] - pairs[1, 0] * pairs[0, 1]) <= pairs.max()
    assert set(table["file_name"].str.split("/").str[0]) == {
        f"hat-{hat}_dark_skin-{dark}" for hat in (0, 1) for dark in (0, 1)
    }


def _judge_all_good(self: Any, item: str, route: Any, _seen: torch.Tensor, _group: Any) -> Any:
    from boundaryflow.jobs.augmenter import Good

    return Good(item, route, 1.0, 2, 1.0)


def test_what_a_former_target_left_is_removed_and_foreign_files_stay(
    lopsided: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(lopsided, monkeypatch)
    (lopsided / "out/balanced/hat-1/mine.txt").write_text("keep me")
    set_job(lopsided, target={"equal": "dark_skin"})
    run(lopsided, monkeypatch)
    names = {str(path.relative_to(lopsided / "out/balanced")) for path in (lopsided / "out/balanced").rglob("*.png")}
    assert names == set(metadata(lopsided)["file_name"])
    assert all(name.startswith("dark_skin-") for name in names)
    assert (lopsided / "out/balanced/hat-1/mine.txt").exists()


def test_failed_edits_are_dropped_replaced_and_told_of(lopsided: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    judge = augment.Augmenter._judge

    def every_third_fails(self: Any, item: str, *rest: Any) -> Any:
        return None if int(item, 16) % 3 == 0 else judge(self, item, *rest)

    monkeypatch.setattr(augment.Augmenter, "_judge", every_third_fails)
    make_hats_rare(lopsided, num=5)
    told = run(lopsided, monkeypatch)
    assert not any(int(item, 16) % 3 == 0 for item in metadata(lopsided).query("synthetic")["item_id"])
    assert told["tried"]["hat-on"] > told["kept"]["hat-on"] >= told["added"]["hat-1"]
    assert told["added"] == told["wanted"]


def test_target_out_of_reach_is_one_line_and_the_set_is_written_all_the_same(
    lopsided: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_job(lopsided, min_probability=0.999999999)
    with pytest.raises(ManifestError, match=r"augment some: \d+ of \d+ in hat-1 are missing: every image .* lower"):
        run(lopsided, monkeypatch)
    assert len(metadata(lopsided)) > 0
    assert json.loads((lopsided / "data/augment/some/last_run.json").read_text())["state"] == "failed"


def test_folder_of_something_else_and_unknown_attributes_are_refused(
    lopsided: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (lopsided / "out/other").mkdir(parents=True)
    write_table(lopsided / "out/other/metadata.parquet", pd.DataFrame({"a": [1]}), schema="delivery/1")
    set_job(lopsided, out="out/other")
    with pytest.raises(ManifestError, match=r"out/other: metadata.parquet exists, and is not as a run wrote it"):
        run(lopsided, monkeypatch)
    set_job(lopsided, target={"independent": ["hat", "hat"]})
    with pytest.raises(Exception, match=r"augment.some.target.independent: names one attribute twice"):
        run(lopsided, monkeypatch)


def test_verdicts_of_review_are_heeded(lopsided: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_hats_rare(lopsided, num=5)
    run(lopsided, monkeypatch)
    first, second, third = metadata(lopsided).query("synthetic")["item_id"][:3]
    Verdicts(lopsided / "data/review/avatars").put(
        [
            Change(first, "hat", 1.0, "rejected"),
            Change(second, "hat", 2.0, "accepted"),
            Change(third, "hat", 0.3, "accepted"),
            Change(third, "dark", 1.0, "rejected"),
        ]
    )
    told = run(lopsided, monkeypatch)
    edits = metadata(lopsided).query("synthetic").set_index("item_id")
    assert first not in edits.index
    assert edits.loc[second, "strength"] == 2.0
    assert edits.loc[third, "strength"] == 1.0, "there is no edit at 0.3, and `dark` is another one"
    assert told["tried"]["hat-on"] > told["kept"]["hat-on"]


def test_inputs_are_read_only_where_somebody_looks_at_them(lopsided: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_hats_rare(lopsided, num=1)
    read: list[list[str]] = []
    pixels = augment._Images.pixels

    def noted(self: Any, items: Any) -> torch.Tensor:
        read.append(list(items))
        return pixels(self, items)

    monkeypatch.setattr(augment, "_AT_ONCE", 4)
    monkeypatch.setattr(augment, "_NUM_SHOWN", 3)
    monkeypatch.setattr(augment._Images, "pixels", noted)
    told = run(lopsided, monkeypatch)
    num_images = sum(told["before"].values())
    assert told["added"]["hat-1"] > 4
    assert sum(map(len, read)) == num_images + 4
