"""Labels of a whole data set: from words, from a file, from the renderer."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from boundaryflow.errors import LabelError, ParamsError
from boundaryflow.evaluation.judges import JudgeNet
from boundaryflow.labelling.clip_labels import ClipLabeller
from boundaryflow.store.tables import read_table, write_table
from tests.foreign_judges import channel_means, declare
from tests.small_project import ROOT, content, copy_project, run_here, write_project

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
    drawn = {"kind": "avatars", "num_images": 60, "seed": 0, "rates": {}, "correlations": {}}
    labels = relabel(project, monkeypatch, SHIPPED, image_size=64, source=drawn)
    assert set(labels.columns) == {"item_id", *SHIPPED["attributes"]}
    facts = json.loads((project / "data/label/avatars/label.json").read_text())
    assert all(about["positive"] + about["negative"] == 60 and about["unknown"] == 0 for about in facts.values())
    assert all(about["auc"] >= 0.95 for about in facts.values()), facts


CLIP_PT = "data/pretrained/avatars64_clip/clip.pt"
SMILE = {"smiling": {"positive": ["a smiling face"], "negative": ["a frowning face"]}}


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 faces of 64 x 64, and a table that says of 60 of them whether they smile."""
    folder = write_project(tmp_path_factory.mktemp("faces"), model="data/pretrained/avatars64", ingest__image_size=64)
    for name in ("avatars64", "avatars64_clip"):
        (folder / "data/pretrained" / name).symlink_to(ROOT / "data/pretrained" / name)
    params = yaml.safe_load((folder / "params.yaml").read_text())
    params["data"]["avatars"]["ingest"]["source"]["num_images"] = 120
    params["data"]["avatars"]["label"]["attributes"] = {"smiling": {"column": None}, "hat": {"column": None}}
    params["data"]["avatars"]["edit"]["edits"] = {"only": {"smiling": "flip"}}
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BOUNDARYFLOW_PROGRESS", "off")
        run_here(folder, patch, "ingest", "label")
    manifest = read_table(folder / "data/ingest/avatars/manifest.parquet", schema="manifest/1")
    truth = read_table(folder / "data/label/avatars/labels.parquet", schema="labels/1").set_index("item_id")
    rows = truth.loc[manifest["item_id"]].astype(int).assign(file=manifest["source"].to_list())
    rows = pd.concat([rows[:60], rows[:1].assign(file="stray.png")])
    raw = folder / "data/raw/avatars"
    raw.mkdir(parents=True)
    rows.to_csv(raw / "some.csv", index=False)
    rows.melt("file").to_csv(raw / "long.csv", index=False)
    return folder


def facts_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "data/label/avatars/label.json").read_text())


@pytest.mark.parametrize("kind", ["csv", "long"])
def test_annotations_of_half_the_faces_label_them_all(faces: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    annotations = {"kind": "csv", "path": "some.csv", "file_column": "file"}
    if kind == "long":
        annotations |= {"kind": "long", "path": "l*g.csv", "attribute_column": "variable", "value_column": "value"}
    source = {"kind": "probe", "weights": CLIP_PT, "annotations": annotations, "num_folds": 5}
    rules = {"smiling": {"column": None}, "capped": {"column": "hat", "positive": [1], "negative": [0]}}
    rules |= {"sad": {"not": "smiling"}, "merry": {"all": ["smiling", "capped"]}}
    labels = relabel(faces, monkeypatch, {"source": source, "attributes": rules})
    assert set(labels.columns) == {"item_id", *rules}
    assert labels.notna().all(axis=None)
    np.testing.assert_array_equal(labels["sad"], 1 - labels["smiling"])
    np.testing.assert_array_equal(labels["merry"], labels[["smiling", "capped"]].min(axis=1))
    facts = facts_of(faces)
    assert facts["smiling"]["auc"] >= 0.98  # of all 120, the truth is known
    assert facts["smiling"]["accuracy"] >= 0.95
    for name in ("smiling", "capped"):
        about = facts[name]
        assert (about["num_annotated"], about["rows_without_image"], about["unknown"]) == (60, 1, 0)
        assert about["cv_auc"] > 0.9
        assert about["cv_log_loss"] < 0.3
        assert about["cv_ece"] < 0.15
        assert about["c"] in (1e-4, 1e-3, 1e-2, 0.1, 1.0)
    before = (faces / "data/label/avatars/labels.parquet").read_bytes()
    run_here(faces, monkeypatch, "label")
    assert (faces / "data/label/avatars/labels.parquet").read_bytes() == before


def test_annotations_of_some_faces_calibrate_words(faces: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = {"kind": "clip", "weights": CLIP_PT, "templates": ["{}", "a drawing of {}"], "temperature": 0.2}
    plain = relabel(faces, monkeypatch, {"source": {**source, "calibration": None}, "attributes": SMILE})
    calibration = {"kind": "csv", "path": "some.csv", "file_column": "file"}
    fitted = relabel(faces, monkeypatch, {"source": {**source, "calibration": calibration}, "attributes": SMILE})
    about = facts_of(faces)["smiling"]
    assert (about["num_annotated"], about["rows_without_image"]) == (60, 1)
    assert about["log_loss_after"] < about["log_loss_before"]
    odds = np.log(plain["smiling"] / (1 - plain["smiling"]))
    expected = 1 / (1 + np.exp(-(about["slope"] * odds + about["offset"])))
    np.testing.assert_allclose(fitted["smiling"], expected, atol=1e-3)
    table = pd.read_csv(faces / "data/raw/avatars/some.csv")
    table[:15].to_csv(faces / "data/raw/avatars/few.csv", index=False)
    source |= {"calibration": {**calibration, "path": "few.csv"}}
    with pytest.raises(
        LabelError, match=r"calibration of 'smiling': \d+ annotated images with it and \d+ without, must"
    ):
        relabel(faces, monkeypatch, {"source": source, "attributes": SMILE})


def test_only_new_images_are_looked_at_and_labels_are_those_of_a_fresh_run(
    faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = copy_project(faces, tmp_path / "project")
    shutil.rmtree(project / "data/label")
    label = {"source": {"kind": "clip", "weights": CLIP_PT, "templates": ["{}"], "temperature": None,
                        "calibration": None}, "attributes": SMILE}  # fmt: skip
    looked_at: list[int] = []
    look = ClipLabeller.image_features
    monkeypatch.setattr(
        ClipLabeller, "image_features", lambda self, images: (looked_at.append(len(images)), look(self, images))[1]
    )
    drawn = {"kind": "avatars", "num_images": 101, "seed": 0, "rates": {}, "correlations": {}}
    few = relabel(project, monkeypatch, label, source=drawn, shard_size=64)  # in two shards
    shards = {path.name for path in (project / "data/label/avatars").glob("shard-*")}
    assert sum(looked_at) >= len(few) == 101
    looked_at.clear()
    run_here(project, monkeypatch, "label")
    assert not looked_at
    many = relabel(project, monkeypatch, label, source={**drawn, "num_images": 104})
    assert len(many) == 104
    assert 32 <= sum(looked_at) <= 2 * 32  # each shard's new ones, padded to a network call
    after = content(project / "data/label/avatars")
    assert not shards <= set(after)
    for path in (project / "data/label/avatars").iterdir():
        path.unlink()
    run_here(project, monkeypatch, "label")
    assert content(project / "data/label/avatars") == after
    relabel(project, monkeypatch, {"source": {"kind": "avatars"}, "attributes": {"smiling": {"column": None}}})
    assert set(content(project / "data/label/avatars")) == {"labels.parquet", "label.json"}


def as_folder(project: Path, files: Mapping[str, str]) -> None:
    """Small pictures in data/raw/avatars, and texts beside them; the project reads that folder."""
    raw = project / "data/raw/avatars"
    for seed, (name, text) in enumerate(files.items()):
        (raw / name).parent.mkdir(parents=True, exist_ok=True)
        if text:
            (raw / name).write_text(text)
        else:
            pixels = np.random.default_rng(seed).integers(0, 255, (16, 16, 3), np.uint8)
            Image.fromarray(pixels).save(raw / name)
    params = yaml.safe_load((project / "params.yaml").read_text())
    params["data"]["avatars"]["evaluate"]["counterfactuals"] = False
    (project / "params.yaml").write_text(yaml.safe_dump(params))


def by_source(project: Path, labels: pd.DataFrame, attribute: str) -> dict[str, float]:
    manifest = read_table(project / "data/ingest/avatars/manifest.parquet", schema="manifest/1")
    return dict(zip(manifest.set_index("item_id").loc[labels["item_id"], "source"], labels[attribute], strict=True))


FOLDER = {"source": {"kind": "folder"}}


def test_folders_are_labels(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    as_folder(
        project, {f"{split}/{kind}/{i}.png": "" for split in "ab" for kind in ("cat", "dog", "fox") for i in "12"}
    )
    rule = {"column": "folder", "positive": ["cat"], "negative": ["dog"]}
    label = {"source": {"kind": "folders"}, "attributes": {"cat": rule}}
    found = by_source(project, relabel(project, monkeypatch, label, **FOLDER), "cat")
    wanted = {name: {"cat": 1.0, "dog": 0.0, "fox": np.nan}[name.split("/")[1]] for name in found}
    np.testing.assert_array_equal(list(found.values()), list(wanted.values()))
    label["attributes"]["cat"] = {**rule, "negative": ["dogs"]}
    with pytest.raises(LabelError, match=r"labels: cat: no folder is named 'dogs', did you mean 'dog'\?"):
        relabel(project, monkeypatch, label)


def test_tables_of_several_folders_name_their_own_images(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hats = {f"{folder}/{i}.png": (i + (folder == "b")) % 2 for folder in "ab" for i in range(12)}
    tables = {
        f"{at}/metadata.csv": "file_name,hat\n" + "".join(f"{n[2:]},{hat}\n" for n, hat in hats.items() if n[0] == at)
        for at in "ab"
    }
    as_folder(project, dict.fromkeys(hats, "") | tables)
    source = {"kind": "csv", "path": "*/metadata.csv", "file_column": "file_name"}
    labels = relabel(project, monkeypatch, {"source": source, "attributes": {"hat": {"column": None}}}, **FOLDER)
    assert by_source(project, labels, "hat") == hats


def test_annotations_of_celeba_reach_images_of_celeba_hq(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = "".join(f"{i + 1:06d}.jpg {2 * (i % 2) - 1} -1\n" for i in range(30))
    mapping = "idx orig_idx orig_file\n" + "".join(f"{i} {25 - i} {26 - i:06d}.jpg\n" for i in range(20))
    texts = {"attr.txt": f"30\nSmiling Male\n{rows}", "map.txt": mapping}
    as_folder(project, {f"hq/{i:05d}.png": "" for i in range(20)} | texts)
    label = {"source": {"kind": "celeba", "path": "attr.txt", "mapping": "map.txt"}, "attributes": {}}
    label["attributes"] = {"smiling": {"column": "Smiling"}, "solemn": {"not": "smiling"}}
    labels = relabel(project, monkeypatch, label, **FOLDER)
    assert by_source(project, labels, "smiling") == {f"hq/{i:05d}.png": float((25 - i) % 2) for i in range(20)}
    np.testing.assert_array_equal(labels["solemn"], 1 - labels["smiling"])
    label["source"]["mapping"] = None
    with pytest.raises(LabelError, match="give CelebA-HQ-to-CelebA-mapping.txt as mapping"):
        relabel(project, monkeypatch, label)
    label["attributes"]["smiling"] = {"column": "Smile"}
    with pytest.raises(LabelError, match="has no column 'Smile', did you mean 'Smiling'"):
        relabel(project, monkeypatch, label)


def test_boundary_is_fitted_on_as_many_as_it_is_told(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def counts(**changes: Any) -> pd.DataFrame:
        params = yaml.safe_load((project / "params.yaml").read_text())
        params["data"]["avatars"]["boundary"].update(changes)
        (project / "params.yaml").write_text(yaml.safe_dump(params))
        run_here(project, monkeypatch, "boundary")
        return read_table(project / "data/boundary/avatars/boundaries.parquet", schema="boundaries/1")

    whole = counts()
    least = whole[["num_positive", "num_negative"]].min(axis=1)
    balanced = counts(balance=True)
    assert balanced["num_positive"].tolist() == balanced["num_negative"].tolist() == least.tolist()
    few = counts(balance=False, max_per_class=2)
    assert few["num_positive"].tolist() == few["num_negative"].tolist() == [2] * len(few)


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
    for seed in range(20):
        pixels = np.random.default_rng(seed).integers(0, 255, (16, 16, 3), np.uint8)
        Image.fromarray(pixels).save(raw / f"{seed}.png")
    (raw / "l.csv").write_text("file,hat\n" + "".join(f"{seed}.png,{seed % 2}\n" for seed in range(20)))
    params = yaml.safe_load((project / "params.yaml").read_text())
    params["data"]["avatars"]["evaluate"]["counterfactuals"] = False
    (project / "params.yaml").write_text(yaml.safe_dump(params))
    label = {
        "source": {"kind": "csv", "path": "l.csv", "file_column": "file"},
        "attributes": {"hat": {"column": None}},
    }
    labels = relabel(project, monkeypatch, label, source={"kind": "folder"})
    assert sorted(labels["hat"]) == [0] * 10 + [1] * 10
    assert not (project / "data/ingest/avatars/factors.parquet").exists()


def test_rare_attribute_is_left_out_and_the_others_go_on(
    project: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    manifest = read_table(project / "data/ingest/avatars/manifest.parquet", schema="manifest/1")
    truth = read_table(project / "data/label/avatars/labels.parquet", schema="labels/1").set_index("item_id")["hat"]
    rows = pd.DataFrame({"file": manifest["source"], "hat": [int(truth[item] > 0.5) for item in manifest["item_id"]]})
    (project / "data/raw/avatars").mkdir(parents=True, exist_ok=True)
    rows.assign(rare=[1, *[0] * (len(rows) - 1)]).to_csv(project / "data/raw/avatars/l.csv", index=False)
    params = yaml.safe_load((project / "params.yaml").read_text())
    avatars = params["data"]["avatars"]
    avatars["label"] = {
        "source": {"kind": "csv", "path": "l.csv", "file_column": "file"},
        "attributes": {"hat": {"column": None}, "rare": {"column": None}, "seldom": {"all": ["hat", "rare"]}},
    }
    both = {"hat": "add", "rare": "add"}
    avatars["edit"]["edits"] = {"hat": {"hat": "flip"}, "rare": {"rare": "add"}, "both": both}
    (project / "params.yaml").write_text(yaml.safe_dump(params))
    run_here(project, monkeypatch, "label", "boundary", "edit")
    labels = read_table(project / "data/label/avatars/labels.parquet", schema="labels/1")
    assert list(labels.columns) == ["item_id", "hat"]
    told = facts_of(project)["rare"]
    assert (told["positive"], told["negative"]) == (1, len(rows) - 1)
    assert re.fullmatch(r"[01] images of train have it and \d+ have not, must be at least 2 each; .*", told["left_out"])
    assert "left_out" not in facts_of(project)["hat"]
    edits = read_table(project / "data/edit/avatars/manifest.parquet", schema="edits/2")
    assert set(edits["edit"]) == {"hat"}
    assert "label rare: is left out, and so is every edit that needs it" in caplog.text
    for edit in ("rare", "both"):
        assert f"edit {edit}: is left out: attribute 'rare' has too few labelled images" in caplog.text
    rows.assign(rare=0).drop(columns="hat").to_csv(project / "data/raw/avatars/l.csv", index=False)
    avatars["label"]["attributes"], avatars["edit"]["edits"] = {"rare": {"column": None}}, {"rare": {"rare": "add"}}
    (project / "params.yaml").write_text(yaml.safe_dump(params))
    with pytest.raises(LabelError, match="no attribute has enough images; rare: 0 images of train have"):
        run_here(project, monkeypatch, "label")


def test_boundary_leaves_out_what_too_few_images_are_sure_of(
    project: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = project / "data/label/avatars/labels.parquet"
    labels = read_table(path, schema="labels/1")
    write_table(path, labels.assign(hat=labels["hat"].clip(0.4, 0.6)), schema="labels/1")
    params = yaml.safe_load((project / "params.yaml").read_text())
    params["data"]["avatars"]["boundary"]["min_confidence"] = 0.9
    (project / "params.yaml").write_text(yaml.safe_dump(params))
    run_here(project, monkeypatch, "boundary")
    assert {p.stem for p in (project / "data/boundary/avatars").glob("*.safetensors")} == {"dark_skin"}
    assert "boundary 'hat': 0 images with it and 0 without to fit on, must be at least 2 each" in caplog.text


JUDGES = "data/pretrained/avatars64_judges"


@pytest.fixture
def classified(faces: Path) -> Path:
    """The faces, with classifiers to label them: those of the avatars, and a network that is content with red."""
    if not (faces / JUDGES).exists():
        (faces / JUDGES).symlink_to(ROOT / JUDGES)
    return faces


def test_classifier_labels_the_images(classified: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rules = {"smiling": {"column": None}, "capped": {"column": "hat"}, "bare": {"not": "capped"}}
    source = {"kind": "classifier", "weights": JUDGES, "calibration": None}
    labels = relabel(classified, monkeypatch, {"source": source, "attributes": rules}).set_index("item_id")
    truth = read_table(classified / "data/ingest/avatars/factors.parquet", schema="avatars/1").set_index("item_id")
    truth = truth.loc[labels.index]
    assert ((labels["smiling"] > 0.5) == truth["smiling"]).mean() >= 0.95
    assert ((labels["capped"] > 0.5) == truth["hat"]).mean() >= 0.95
    np.testing.assert_allclose(labels["bare"], 1 - labels["capped"], atol=1e-6)
    assert labels["smiling"].nunique() > 10  # probabilities, not verdicts


def test_classifier_runs_on_new_images_only(classified: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = copy_project(classified, tmp_path / "project")
    shutil.rmtree(project / "data/label", ignore_errors=True)
    source = {"kind": "classifier", "weights": JUDGES, "calibration": None}
    rules = {"smiling": {"column": None}}
    batches: list[int] = []
    forward = JudgeNet.forward
    monkeypatch.setattr(
        JudgeNet, "forward", lambda self, images: (batches.append(len(images)), forward(self, images))[1]
    )
    drawn = {"kind": "avatars", "num_images": 40, "seed": 0, "rates": {}, "correlations": {}}
    before = relabel(project, monkeypatch, {"source": source, "attributes": rules}, source=drawn)
    assert sum(batches) >= 40
    batches.clear()
    rules["capped"] = {"column": "hat"}  # another attribute of the same classifier
    both = relabel(project, monkeypatch, {"source": source, "attributes": rules})
    assert not batches
    pd.testing.assert_frame_equal(both[["item_id", "smiling"]], before)
    after = content(project / "data/label/avatars")
    for path in (project / "data/label/avatars").iterdir():
        path.unlink()
    run_here(project, monkeypatch, "label")
    assert content(project / "data/label/avatars") == after
    source["weights"] = "data/pretrained/red"
    channel_means(project / "data/pretrained/red")
    declare(project / "data/pretrained/red", "red", attributes={"Reddish": 0}, activation="none")
    relabel(project, monkeypatch, {"source": source, "attributes": {"smiling": {"column": "Reddish"}}})
    assert not set(content(project / "data/label/avatars")) & set(after) - {"labels.parquet", "label.json"}
    relabel(project, monkeypatch, {"source": {"kind": "avatars"}, "attributes": {"smiling": {"column": None}}})
    assert not list((project / "data/label/avatars").glob("shard-*"))


def test_classifier_from_elsewhere_labels_and_classifiers_are_calibrated(
    classified: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network that says smiling of red pictures is caught by the annotations."""
    folder = classified / "data/pretrained/red"
    channel_means(folder)
    declare(folder, "red", attributes={"Reddish": 0}, activation="none")
    source = {"kind": "classifier", "weights": "data/pretrained/red", "calibration": None}
    label: dict[str, Any] = {"source": source, "attributes": {"smiling": {"column": "Reddish"}}}
    plain = relabel(classified, monkeypatch, label)
    assert plain["smiling"].between(0.2, 0.8).all()
    source["calibration"] = {"kind": "csv", "path": "some.csv", "file_column": "file"}
    with pytest.raises(LabelError, match="calibration of 'smiling': the scores contradict"):
        relabel(classified, monkeypatch, label)
    source["weights"] = JUDGES
    label["attributes"] = {"smiling": {"column": None}}
    relabel(classified, monkeypatch, label)
    about = facts_of(classified)["smiling"]
    assert about["rows_without_image"] == 1
    assert about["log_loss_after"] < 0.1
    assert about["slope"] > 0


def test_classifier_has_to_know_the_attributes_and_suit_the_images(
    classified: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = {"kind": "classifier", "weights": JUDGES, "calibration": None}
    label = {"source": source, "attributes": {"smile": {"column": None}}}
    with pytest.raises(ParamsError, match=r"label\.attributes\.smile: .* does not know 'smile'.*smiling"):
        relabel(classified, monkeypatch, label)
    with pytest.raises(ParamsError, match=r"label\.source\.weights: data/none does not exist"):
        relabel(classified, monkeypatch, label | {"source": source | {"weights": "data/none"}})
    wrong = {"smiling": {"column": "smiling", "above": 0.9, "below": 0.1}}
    with pytest.raises(ParamsError, match="does not fit source kind 'classifier'"):
        relabel(classified, monkeypatch, label | {"attributes": wrong})
