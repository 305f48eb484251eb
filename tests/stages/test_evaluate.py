"""The evaluation, with the shipped judges, on edits whose verdict is known beforehand."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from boundaryflow.avatars import ATTRIBUTES, FACTORS, Avatar, render
from boundaryflow.evaluation.intervals import wilson_interval
from boundaryflow.store.fingerprint import fingerprint
from boundaryflow.store.shards import complete_shard, plan_shards
from boundaryflow.store.tables import read_table, write_table
from tests.foreign_judges import channel_means, declare
from tests.small_project import ROOT, copy_project, run_here

ATTRIBUTE_OF = {"hat": "hat", "dark": "dark_skin"}


def draw(row: pd.Series, **attributes: bool) -> torch.Tensor:
    """[3,64,64] uint8 of a row of factors.parquet, some attributes set."""
    face = Avatar({a: bool(row[a]) for a in ATTRIBUTES}, {f: float(row[f]) for f in FACTORS})
    for name, value in attributes.items():
        face = face.with_attribute(name, value)
    return torch.from_numpy(np.array(render(face)).transpose(2, 0, 1))


@pytest.fixture(scope="module")
def judged(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Edits at 64 pixels; strength 0 is the input, strength 1 the exact counterfactual; the comparison is the input."""
    project = copy_project(finished, tmp_path_factory.mktemp("judged") / "project")
    for name in ("avatars64", "avatars64_judges", "avatars64_clip"):
        (project / "data/pretrained" / name).symlink_to(ROOT / "data/pretrained" / name)
    params = yaml.safe_load((project / "params.yaml").read_text())
    avatars = params["data"]["avatars"]
    avatars["model"] = "data/pretrained/avatars64"  # never run: it goes with the size
    avatars["ingest"]["image_size"] = 64
    avatars["label"] = yaml.safe_load((ROOT / "params.yaml").read_text())["data"]["avatars"]["label"]
    avatars["evaluate"].update(judges="data/pretrained/avatars64_judges", clip="data/pretrained/avatars64_clip/clip.pt")
    (project / "params.yaml").write_text(yaml.safe_dump(params))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BOUNDARYFLOW_PROGRESS", "off")
        run_here(project, patch, "ingest", "label")
        _edit_by_hand(project / "data")
        run_here(project, patch, "evaluate")
    return project


def _edit_by_hand(data: Path) -> None:
    faces = read_table(data / "ingest/avatars/factors.parquet", schema="avatars/1").set_index("item_id")
    items = sorted(faces.index)[:12]
    rows: list[dict[str, object]] = []
    for edit, attribute in ATTRIBUTE_OF.items():
        for name, is_edited in ((edit, True), (f"{edit}.single_step", False)):
            folder = data / "edit/avatars" / name
            for path in folder.glob("shard-*"):
                path.unlink()
            for task in plan_shards(folder, items, fingerprint(made="by hand"), 64).tasks:
                pairs = [
                    torch.stack([draw(row), draw(row, **{attribute: row[attribute] != is_edited})])
                    for _, row in faces.loc[list(task.missing)].iterrows()
                ]
                complete_shard(task, {"edited": torch.stack(pairs)})
        for item in items:
            targets = json.dumps({attribute: -1 if faces.at[item, attribute] else 1})
            rows += [
                {"item_id": item, "edit": edit, "method": method, "strength": float(k), "strength_index": k,
                 "targets": targets, "shard": f"{folder}/shard", "row": 0}
                for folder, method in ((edit, "guided"), (f"{edit}.single_step", "single_step"))
                for k in (0, 1)
            ]  # fmt: skip
    write_table(data / "edit/avatars/manifest.parquet", pd.DataFrame(rows), schema="edits/2")


def test_the_truth_wins_and_the_input_fails(judged: Path) -> None:
    metrics = json.loads((judged / "data/evaluate/avatars/metrics.json").read_text())
    for edit in ("hat", "dark"):
        untouched, exact = metrics["edits"][edit]["0"], metrics["edits"][edit]["1"]
        assert untouched["target_success"] <= 0.1
        assert exact["target_success"] >= 0.9
        assert exact["clean_success"] >= 0.8
        assert untouched["drift"] == 0
        assert untouched["psnr_db"] == 100
        assert untouched["counterfactual_recovery"] == 0
        assert exact["counterfactual_recovery"] == pytest.approx(1, abs=1e-4)
        assert exact["rmse_outside"] == 0
        assert exact["s_dir"] > untouched["s_dir"]
        assert metrics["compared"]["single_step"][edit]["0"] == untouched
        assert metrics["compared"]["single_step"][edit]["1"] == untouched
        assert metrics["chosen"]["guided"][edit] == {
            "strengths": [1.0], **{name: value for name, value in exact.items() if not name.startswith("clip_")}
        }  # fmt: skip
        assert metrics["chosen"]["single_step"][edit]["target_success"] == untouched["target_success"]
    assert metrics["method"] == "guided"


def test_tables_hold_every_image_and_intervals_hold_the_mean(judged: Path) -> None:
    per_image = read_table(judged / "data/evaluate/avatars/tables/per_image.parquet", schema="per_image/2")
    summary = pd.read_csv(judged / "data/evaluate/avatars/tables/summary.csv")
    for row in summary.to_dict("records"):
        same = [per_image[key] == row[key] for key in ("edit", "method", "strength")]
        group = per_image[same[0] & same[1] & same[2]]
        assert len(group) == row["num_images"]
        assert row["target_success"] == pytest.approx(group["target_success"].mean(), abs=1e-5)
        low, high = wilson_interval(int(group["target_success"].sum()), len(group))
        assert row["target_success_low"] == pytest.approx(low, abs=1e-5)
        assert row["target_success_high"] == pytest.approx(high, abs=1e-5)
        assert row["identity_low"] <= row["identity"] <= row["identity_high"]
        metrics = json.loads((judged / "data/evaluate/avatars/metrics.json").read_text())
        stated = metrics["edits"] if row["method"] == "guided" else metrics["compared"][row["method"]]
        of_row = stated[row["edit"]][f"{row['strength']:g}"]
        for name in ("identity_low", "target_success_high"):
            assert of_row[name] == pytest.approx(row[name], abs=1e-4)
        assert {"clip_fd", "clip_kd"} <= of_row.keys()


def test_judge_from_elsewhere_decides_and_ours_is_told_beside_it(
    judged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network that takes red pictures for hats, and another that takes the mean colour for the person."""
    project = copy_project(judged, tmp_path / "project")
    folder = project / "data/pretrained/judges"
    channel_means(folder, shape=["N", 3, 4, 4])
    shutil.copy(ROOT / "data/pretrained/avatars64_judges/attributes.safetensors", folder)
    declare(folder, "red", attributes={"hat": 0}, activation="none", image_size=64)
    declare(folder, "who", kind="embed", activation=None, attributes=None, distance="l2", threshold=0.01)
    params = yaml.safe_load((project / "params.yaml").read_text())
    params["data"]["avatars"]["evaluate"].update(judges="data/pretrained/judges", clip=None)
    (project / "params.yaml").write_text(yaml.safe_dump(params))
    monkeypatch.setenv("BOUNDARYFLOW_PROGRESS", "off")
    run_here(project, monkeypatch, "evaluate")
    metrics = json.loads((project / "data/evaluate/avatars/metrics.json").read_text())
    assert metrics["judged_by"]["hat"] == "red"
    assert metrics["judged_by"]["dark_skin"] == "attributes"
    exact = metrics["edits"]["hat"]["1"]
    assert exact["target_success"] == exact["target_success_by_red"]
    assert exact["target_success_by_attributes"] >= 0.9
    assert exact["target_success_by_attributes_low"] < exact["target_success_by_attributes"]
    assert metrics["edits"]["dark"]["1"].get("target_success_by_red") is None  # it knows hats only
    assert metrics["edits"]["hat"]["0"]["same_person"] == 1
    per_image = read_table(project / "data/evaluate/avatars/tables/per_image.parquet", schema="per_image/2")
    ours = per_image[per_image["method"] == metrics["method"]]
    hats = ours[(ours["edit"] == "hat") & (ours["strength"] == 1)].set_index("item_id")
    faces = read_table(project / "data/ingest/avatars/factors.parquet", schema="avatars/1").set_index("item_id")
    for item, row in hats.iterrows():
        face = faces.loc[item]
        red = float(draw(face, hat=not face["hat"])[0].float().mean()) / 255
        if abs(red - 0.5) > 0.02:  # a smaller picture's mean is not quite the same
            assert row["target_success"] == ((red > 0.5) != bool(face["hat"]))
