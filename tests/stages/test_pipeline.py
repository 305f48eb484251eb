"""The stages in a row: what they leave, that twice is the same, that killing them changes nothing."""

from __future__ import annotations

import json
import random
import re
import shutil
import time
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from distributed import LocalCluster

from boundaryflow.boundary import load_boundaries, save_boundaries
from boundaryflow.errors import BoundaryError
from boundaryflow.runtime.metering import TALLY
from boundaryflow.store.shards import load_items
from boundaryflow.store.tables import read_table, write_table
from flows import own_outputs
from flows.own_outputs import files_of
from tests.forked import Forked
from tests.small_project import ROOT, content, run_here, run_stage, start_stage


def change(folder: Path, section: str, **values: object) -> None:
    params = yaml.safe_load((folder / "params.yaml").read_text())
    params["data"]["avatars"][section].update(values)
    (folder / "params.yaml").write_text(yaml.safe_dump(params))


def test_strength_zero_returns_the_input_to_the_last_bit(finished: Path) -> None:
    manifest = read_table(finished / "data/edit/avatars/manifest.parquet", schema="edits/2")
    items = sorted(set(manifest["item_id"]))
    before = load_items(finished / "data/ingest/avatars", items, ["pixels"])["pixels"]
    after = load_items(finished / "data/edit/avatars/hat", items, ["edited"])["edited"]
    torch.testing.assert_close(after[:, 0], before)
    assert (after[:, 1] != before).any()


def test_images_that_have_it_already_are_left_alone(finished: Path) -> None:
    manifest = read_table(finished / "data/edit/avatars/manifest.parquet", schema="edits/2")
    labels = read_table(finished / "data/label/avatars/labels.parquet", schema="labels/1").set_index("item_id")
    dark = manifest[(manifest["edit"] == "dark") & (manifest["method"] == "guided") & (manifest["strength"] == 1)]
    asked = {row["item_id"]: json.loads(row["targets"]) for row in dark.to_dict("records")}
    assert all(bool(targets) != (labels.at[item, "dark_skin"] > 0.5) for item, targets in asked.items())
    assert asked
    assert all(asked.values()), "an image of which nothing was asked is no edit"
    still = [item for item in manifest["item_id"].unique() if item not in asked]
    assert still
    before = load_items(finished / "data/ingest/avatars", still, ["pixels"])["pixels"]
    after = load_items(finished / "data/edit/avatars/dark", still, ["edited"])["edited"]
    torch.testing.assert_close(after[:, 1], before)


def test_latents_of_one_timestep_and_boundaries_that_fit_them(finished: Path) -> None:
    facts = json.loads((finished / "data/invert/avatars/invert.json").read_text())
    assert facts["t_mix"] == 300
    table = read_table(finished / "data/boundary/avatars/boundaries.parquet", schema="boundaries/1")
    assert set(zip(table["attribute"], table["space"], strict=True)) == {
        (a, s) for a in ("hat", "dark_skin") for s in ("eps", "h")
    }
    metrics = json.loads((finished / "data/evaluate/avatars/metrics.json").read_text())
    assert metrics["edits"]["hat"]["0"]["counterfactual_recovery"] == pytest.approx(0, abs=0.02)
    assert metrics["edits"]["hat"]["0"]["psnr_db"] == 100


def test_gc_knows_all_that_stages_write(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_here(project, monkeypatch, "params", "ingest", "report")
    for kind in own_outputs.STAGES:
        for file in files_of(project / "data" / kind / "avatars"):
            name = file.relative_to(project / "data" / kind / "avatars").as_posix()
            assert re.fullmatch(own_outputs._NAMES[kind], name) or kind == "boundary_metrics"
            assert own_outputs._has_mark(file) == (file.suffix in (".parquet", ".safetensors")), file


def test_second_run_computes_nothing_and_changes_no_byte(
    project: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    before = content(project / "data")
    with caplog.at_level("INFO"):
        run_here(project, monkeypatch, "ingest", "invert", "edit")
    assert content(project / "data") == before
    assert caplog.text.count(", 0 images to compute") == 3


def test_five_more_images_compute_five(
    project: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    source = yaml.safe_load((project / "params.yaml").read_text())["data"]["avatars"]["ingest"]["source"]
    change(project, "ingest", source={**source, "num_images": 45})
    with caplog.at_level("INFO"):
        run_here(project, monkeypatch, "ingest", "invert")
    assert caplog.text.count(", 5 images to compute") == 2


def test_one_more_edit_leaves_the_others_as_they_are(
    project: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    before = content(project / "data/edit/avatars/hat")
    change(project, "edit", edits={"hat": {"hat": "flip"}, "both": {"hat": "add", "dark_skin": "flip"}})
    with caplog.at_level("INFO"):
        run_here(project, monkeypatch, "edit")
    assert content(project / "data/edit/avatars/hat") == before
    there = sorted(p.name for p in (project / "data/edit/avatars").iterdir() if p.is_dir())
    assert there == ["both", "both.single_step", "hat", "hat.single_step"]
    assert "20 images to compute" in caplog.text  # ten, by either method


def test_settings_of_the_other_method_edit_nothing_anew(
    project: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def shards() -> dict[str, bytes]:
        found = (project / "data/edit/avatars").rglob("*.safetensors")
        return {p.name: p.read_bytes() for p in found if "." not in p.parent.name}  # without those compared

    before = shards()
    change(project, "edit", eps_scale=3.0, h_window=[0.9, 0.2], compare={"method": "single_step", "strengths": [2.0]})
    change(project, "mixing", rule="fixed", fixed_t=350)
    with caplog.at_level("INFO"):
        run_here(project, monkeypatch, "mixing", "invert", "boundary")
        assert ", 40 images to compute" in caplog.text  # the latents lie elsewhere now
        caplog.clear()
        run_here(project, monkeypatch, "edit")
    assert ", 20 images to compute" in caplog.text  # those compared
    assert shards() == before
    caplog.clear()
    change(project, "edit", compare=None)
    with caplog.at_level("INFO"):
        run_here(project, monkeypatch, "edit")
    assert ", 0 images to compute" in caplog.text
    assert shards() == before
    assert sorted(p.name for p in (project / "data/edit/avatars").iterdir() if p.is_dir()) == ["dark", "hat"]


def test_the_edit_that_is_compared_is_the_edit_of_that_method(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def pictures(folder: str) -> torch.Tensor:
        index = read_table(project / "data/edit/avatars/manifest.parquet", schema="edits/2")
        items = sorted(set(index.loc[index["edit"] == "hat", "item_id"]))
        return load_items(project / "data/edit/avatars" / folder, items, ["edited"])["edited"]

    change(project, "edit", compare={"method": "single_step", "strengths": [0.5, 2.0]})
    run_here(project, monkeypatch, "edit")
    compared = pictures("hat.single_step")
    change(project, "edit", method="single_step", strengths=[0.5, 2.0])  # which is not compared with itself
    run_here(project, monkeypatch, "edit")
    assert torch.equal(pictures("hat"), compared)
    facts = json.loads((project / "data/edit/avatars/edit.json").read_text())
    assert (facts["method"], facts["compare"]) == ("single_step", None)
    assert sorted(p.name for p in (project / "data/edit/avatars").iterdir() if p.is_dir()) == ["dark", "hat"]


def test_attribute_that_a_single_step_cannot_change_is_not_compared(
    project: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = project / "data/boundary/avatars/hat.safetensors"
    whole = load_boundaries(path)
    at = whole.at_mixing_step["eps"]
    useless = replace(at, calibration=replace(at.calibration, mean_positive=0.0, mean_negative=1.0))
    save_boundaries(path, replace(whole, at_mixing_step={**whole.at_mixing_step, "eps": useless}))
    run_here(project, monkeypatch, "edit", "evaluate")
    assert "edit hat: is left out of what is compared: boundary 'hat' (eps-space): held-out images" in caplog.text
    metrics = json.loads((project / "data/evaluate/avatars/metrics.json").read_text())
    assert set(metrics["edits"]) == {"dark", "hat"}
    assert set(metrics["compared"]["single_step"]) == {"dark"}


def test_without_a_single_step_the_network_is_not_asked_for_one(
    project: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    data = project / "data"
    tables = ("mixing/avatars/curves.parquet", "invert/avatars/index.parquet", "boundary/avatars/boundaries.parquet",
              "boundary/avatars/scores.parquet")  # fmt: skip
    columns = {name: pq.read_schema(data / name) for name in tables}
    header = (data / "mixing/avatars/curves.csv").read_text().splitlines()[0]
    guided = {p: p.read_bytes() for p in (data / "edit/avatars/hat").iterdir()}
    change(project, "edit", compare=None)
    with caplog.at_level("INFO"):
        before = TALLY.image_calls
        run_here(project, monkeypatch, "mixing", "invert", "boundary")
        assert TALLY.image_calls == before
        assert "no edit needs a mixing step" in caplog.text
        assert "no edit needs images at the mixing step" in caplog.text
        caplog.clear()
        run_here(project, monkeypatch, "edit", "evaluate", "report")
    assert ", 0 images to compute" in caplog.text  # of guided edits nothing is different
    assert {p: p.read_bytes() for p in (data / "edit/avatars/hat").iterdir()} == guided
    assert {name: pq.read_schema(data / name) for name in tables} == columns
    assert [len(pq.read_table(data / name)) for name in tables] == [0, 0, 0, 0]
    assert (data / "mixing/avatars/curves.csv").read_text() == f"{header}\n"
    assert not list((data / "invert").rglob("*.safetensors"))
    assert not load_boundaries(data / "boundary/avatars/hat.safetensors").at_mixing_step
    change(project, "edit", method="single_step")
    with pytest.raises(BoundaryError, match="a single step needs images inverted to the mixing step, and no edit"):
        run_here(project, monkeypatch, "edit")


def test_low_pass_smooths_normals_in_eps_space_only(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = project / "data/boundary/avatars/hat.safetensors"
    before = load_boundaries(path)
    change(project, "boundary", low_pass=1.0)
    run_here(project, monkeypatch, "boundary")
    after = load_boundaries(path)
    assert float(before.at_mixing_step["eps"].normal @ after.at_mixing_step["eps"].normal) < 0.99
    assert before.at_mixing_step["eps"].calibration != after.at_mixing_step["eps"].calibration
    assert torch.equal(before.at_mixing_step["h"].normal, after.at_mixing_step["h"].normal)


def test_label_that_changes_edits_its_own_image_only(
    project: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = project / "data/label/avatars/labels.parquet"
    labels = read_table(path, schema="labels/1")
    edited = read_table(project / "data/edit/avatars/manifest.parquet", schema="edits/2")["item_id"][0]
    labels.loc[labels["item_id"] == edited, "hat"] = 1 - labels.loc[labels["item_id"] == edited, "hat"]
    write_table(path, labels, schema="labels/1")
    with caplog.at_level("INFO"):
        run_here(project, monkeypatch, "edit")
    assert ", 2 images to compute" in caplog.text  # by either method


@pytest.mark.slow
def test_workers_give_the_same_bytes(project: Path) -> None:
    before = content(project / "data/invert")
    for path in (project / "data/invert/avatars").glob("shard-*"):
        path.unlink()
    result = run_stage(project, "invert", BOUNDARYFLOW_WORKERS="2")
    assert result.returncode == 0, result.stderr
    assert content(project / "data/invert") == before


@pytest.mark.slow
def test_dask_cluster_gives_the_same_bytes(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = content(project / "data/invert")
    for path in (project / "data/invert/avatars").glob("shard-*"):
        path.unlink()
    monkeypatch.chdir(project)  # the workers of a cluster see the checkout under the same path
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster:
        result = run_stage(project, "invert", BOUNDARYFLOW_DASK=cluster.scheduler_address)
    assert result.returncode == 0, result.stderr
    assert content(project / "data/invert") == before


@pytest.mark.slow
def test_dask_scheduler_that_does_not_answer_is_one_line(project: Path) -> None:
    for path in (project / "data/invert/avatars").glob("shard-*"):
        path.unlink()
    result = start_stage(project, "invert", BOUNDARYFLOW_DASK="tcp://127.0.0.1:9")
    assert result.wait() == 2
    assert "no scheduler answers there" in result.said()
    assert "Traceback" not in result.said()


def test_no_more_images_are_inverted_than_asked_for(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    split = pd.read_parquet(project / "data/ingest/avatars/manifest.parquet").set_index("item_id")["split"]
    every = pd.read_parquet(project / "data/invert/avatars/index.parquet")
    train, val = (sorted(split.index[split == name]) for name in ("train", "val"))
    assert len(train) > 9
    assert len(val) > 5
    change(project, "invert", max_images=9)
    before = TALLY.image_calls
    run_here(project, monkeypatch, "invert", "boundary")
    assert TALLY.image_calls == before  # what stays was there
    some = pd.read_parquet(project / "data/invert/avatars/index.parquet")
    assert sorted(some["item_id"]) == sorted([*train[:9], *val[:5]])
    assert len(every) == len(split)
    scores = pd.read_parquet(project / "data/boundary/avatars/scores.parquet")
    at_mixing_step = scores[scores["space"] == "eps"]
    assert set(at_mixing_step["item_id"]) == {*train[:9], *val[:5]}
    run_here(project, monkeypatch, "edit")
    assert TALLY.image_calls > before  # along the new hyperplanes; an edit inverts its own images


@pytest.mark.parametrize("stage", ["invert", pytest.param("edit", marks=pytest.mark.slow)])
def test_killed_stage_ends_with_the_bytes_of_an_undisturbed_one(project: Path, stage: str) -> None:
    undisturbed = content(project / "data" / stage)
    for path in (project / "data" / stage).rglob("shard-*"):
        path.unlink()
    rng, killed = random.Random(stage), 0
    for _ in range(2):
        process = start_stage(project, stage, BOUNDARYFLOW_BATCH_SIZE="32")
        _wait_for_first_shard(process, project / "data" / stage)
        time.sleep(rng.uniform(0, 0.05))
        killed += process.kill()
        half = content(project / "data" / stage)
        assert all(half[name] == undisturbed[name] for name in half if "shard-" in name and not name.endswith(".tmp"))
    (project / "data" / stage / "avatars" / ".boundaryflow-1-00ff00ff00ff00ff.tmp").write_bytes(b"PAR1")
    result = start_stage(project, stage)
    assert result.wait() == 0, result.said()
    assert killed > 0
    assert content(project / "data" / stage) == undisturbed


def _wait_for_first_shard(process: Forked, folder: Path) -> None:
    """Until one more shard is there than before, or the process has ended."""
    before = len(list(folder.rglob("shard-*.safetensors")))
    while process.poll() is None and len(list(folder.rglob("shard-*.safetensors"))) <= before:
        time.sleep(0.005)


def test_corrupted_shard_is_found_and_made_again(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = content(project / "data/invert")
    victim = sorted((project / "data/invert/avatars").glob("shard-*"))[0]
    data = bytearray(victim.read_bytes())
    data[-1] ^= 255
    victim.write_bytes(bytes(data))
    run_here(project, monkeypatch, "invert")
    assert content(project / "data/invert") == before


def test_mistake_in_params_is_one_line_and_exit_status_two(project: Path) -> None:
    change(project, "edit", eta=3.0)
    result = start_stage(project, "edit")
    assert result.wait() == 2
    assert (
        result.said().strip() == "params.yaml: data.avatars.edit.eta: input should be less than or equal to 1 (got 3.0)"
    )


def test_folders_of_others_among_the_edits_stay(
    project: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = project / "data/edit/avatars"
    for name in ("best", "mixed", "former"):
        shutil.copytree(folder / "hat", folder / name)
    (folder / "best/deep").mkdir()
    (folder / "mixed/mine.png").write_bytes(b"x")
    (folder / "link").symlink_to(folder / "hat")
    before = {name: content(folder / name) for name in ("best", "mixed", "hat")}
    run_here(project, monkeypatch, "edit")
    assert not (folder / "former").exists()
    assert {name: content(folder / name) for name in before} == before
    assert (folder / "link").is_symlink()
    assert "best: belongs to no edit, but holds files that this project did not write; it is kept" in caplog.text
