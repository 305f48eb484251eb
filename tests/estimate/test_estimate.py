"""A forecast counts what the stages then do, to the call; and says what it cannot know."""

from __future__ import annotations

import shutil
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from boundaryflow.boundary import load_boundaries, save_boundaries
from boundaryflow.config import DatasetParams, load_params
from boundaryflow.errors import ManifestError
from boundaryflow.estimate import Forecast, forecast, measure
from boundaryflow.estimate.counting import Counts, Planned, count
from boundaryflow.formats.tensor_files import read_tensors
from boundaryflow.runtime import frozen_model
from boundaryflow.runtime.metering import TALLY
from tests.foreign_judges import channel_means, declare
from tests.small_project import run_here, write_project

_WAYS = {
    "guided": {"method": "guided", "compare": None},
    "guided and a single step": {"method": "guided", "compare": {"method": "single_step", "strengths": [0.5, 1.0]}},
    "at all noise levels twice": {"method": "guided", "guided": {"num_iterations": 2}},
    "single step": {"method": "single_step"},
    "without the correction": {"method": "single_step", "residuals": False, "strengths": [0.5, 1.0]},
    "both spaces": {"method": "single_step", "h_scale": 1.0},
    "as the release": {"method": "single_step", "strengths": [-10.0, 10.0]},
}

_STARTS = measure.starts
_RATES: dict[str, measure.Rates] = {}


@pytest.fixture(autouse=True)
def starts_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Starting Python takes most of an estimate's time, and as long in every test."""
    monkeypatch.setattr(measure, "starts", lambda *modules: [1.0] * len(modules))


def test_starts_are_timed() -> None:
    light, heavy = _STARTS("json", "pandas")
    assert 0 < light < heavy


@pytest.fixture
def measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """How long things take does not matter for what counts calls and bytes."""

    def once(dataset: str, params: DatasetParams, *rest: Any) -> measure.Rates:
        key = repr((params.model, params.observe.features, params.label.source))
        if key not in _RATES:
            _RATES[key] = measure.measure(dataset, params, *rest)
        return _RATES[key]

    monkeypatch.setattr(import_module("boundaryflow.estimate.forecast"), "measure", once)


def change(folder: Path, section: str, **values: Any) -> None:
    params = yaml.safe_load((folder / "params.yaml").read_text())
    dataset = params["data"]["avatars"]
    place = dataset[section] if section else dataset
    for key, value in values.items():
        place[key] = {**place[key], **value} if isinstance(value, dict) else value
    (folder / "params.yaml").write_text(yaml.safe_dump(params))


def quick(**options: Any) -> Forecast:
    return forecast("avatars", load_params().dataset("avatars"), measure_s=0.1, **options)


@pytest.mark.usefixtures("measured_once")
@pytest.mark.parametrize("way", _WAYS)
def test_network_calls_are_those_that_the_stages_make(project: Path, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    change(project, "edit", **_WAYS[way])
    change(project, "", paper_mode=way == "as the release")
    run_here(project, monkeypatch, "mixing", "invert", "boundary")
    shutil.rmtree(project / "data/invert")
    shutil.rmtree(project / "data/edit")
    told = {stage.stage: stage.image_calls for stage in quick().stages}
    assert (told["mixing"] > 0) == (told["invert"] > 0) == (way != "guided")
    for stage in ("mixing", "invert", "edit"):
        before = TALLY.image_calls
        run_here(project, monkeypatch, stage)
        assert TALLY.image_calls - before == told[stage], stage


@pytest.mark.usefixtures("measured_once")
def test_images_that_are_not_inverted_are_not_counted(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    change(project, "edit", **_WAYS["single step"])
    change(project, "invert", max_images=9)
    run_here(project, monkeypatch, "mixing")
    shutil.rmtree(project / "data/invert")
    told = {stage.stage: stage for stage in quick().stages}["invert"]
    before = TALLY.image_calls
    run_here(project, monkeypatch, "invert")
    assert TALLY.image_calls - before == told.image_calls
    assert told.num_images == 9 + 5


@pytest.mark.usefixtures("measured_once")
@pytest.mark.parametrize("way", ["guided", "single step", "both spaces", "as the release"])
def test_images_drawn_from_noise_are_counted(project: Path, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    change(project, "", paper_mode=way == "as the release")
    change(project, "edit", **_WAYS[way])
    run_here(project, monkeypatch, "edit")  # what is given
    without = {stage.stage: stage for stage in quick().stages}["edit"]
    change(project, "edit", num_samples=3)
    told = {stage.stage: stage for stage in quick().stages}["edit"]
    before = TALLY.image_calls
    run_here(project, monkeypatch, "edit")
    assert TALLY.image_calls - before == told.image_calls - without.image_calls
    assert (told.image_calls > without.image_calls) == (way != "as the release")
    shards = sum(path.stat().st_size for path in Path("data/samples").rglob("*.safetensors"))
    assert told.num_bytes - without.num_bytes == pytest.approx(shards, abs=1500)


def test_direction_that_restores_the_residual_is_counted(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    found: list[Counts] = []
    for penalty in (0.0, 0.3):
        change(project, "edit", method="guided", compare=None, guided={"preserve_residual": penalty})
        found.append(count(Planned.of("avatars", load_params().dataset("avatars")), "ddpm"))
    without, with_it = found
    assert with_it.edits
    for edit, counted in with_it.edits.items():
        assert counted.directions == without.edits[edit].directions + counted.pullbacks
        assert counted.pullbacks == without.edits[edit].pullbacks > 0


@pytest.mark.usefixtures("measured_once")
def test_attribute_that_the_path_passes_by_is_counted_at_all_noise_levels(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change(project, "edit", method="guided", compare=None, guided={"stride": 1000})
    monkeypatch.chdir(project)
    whole = {stage.stage: stage.image_calls for stage in quick().stages}
    path = project / "data/boundary/avatars/hat.safetensors"
    hat = load_boundaries(path)
    save_boundaries(path, replace(hat, noised=hat.noised[:1]))  # the edit visits the noisiest alone
    assert {stage.stage: stage.image_calls for stage in quick().stages} == whole


def test_call_that_sizes_batches_is_not_counted_for_every_image(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    change(project, "edit", method="guided", compare=None, strengths=[1.0], guided={"num_iterations": 1, "stride": 1})
    monkeypatch.chdir(project)
    monkeypatch.setattr(frozen_model, "_counted", {})  # as in a new process
    planned = Planned.of("avatars", load_params().dataset("avatars"))
    of_edit = next(iter(count(planned, "ddpm").edits.values()))
    assert of_edit.image_calls == 2 * of_edit.pullbacks  # each with a Tweedie projection


@pytest.mark.usefixtures("measured_once")
def test_disk_is_what_the_shards_take(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(finished)
    for stage in quick().stages:
        if stage.stage in ("ingest", "invert", "observe", "edit"):
            shards = [path.stat().st_size for path in Path("data", stage.stage).rglob("*.safetensors")]
            headers = 1500 * len(shards)
            assert stage.num_bytes == pytest.approx(sum(shards), abs=headers), stage.stage
        if stage.stage == "boundary":
            files = list(Path("data/boundary/avatars").glob("*.safetensors"))
            least = sum(tensor.numel() * 4 for path in files for tensor in read_tensors(path)[0].values())
            assert stage.num_bytes >= least  # every noise level is counted, also those that do not separate images


@pytest.mark.usefixtures("measured_once")
def test_more_images_cost_more_where_all_of_them_are_worked_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(write_project(tmp_path))  # of which nothing has run
    few, many = ({s.stage: s for s in quick(num_images=num).stages} for num in (100, 10_000))
    assert many["invert"].image_calls == 100 * few["invert"].image_calls
    assert many["invert"].num_bytes == 100 * few["invert"].num_bytes
    assert many["observe"].num_images == 1500
    assert many["edit"].image_calls == few["edit"].image_calls  # edit.max_images of them
    assert few["report"].num_images == 10


def test_labelling_by_a_classifier_is_timed_and_its_outputs_take_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attributes = {"hat": {"column": "Reddish"}, "blue": {"column": "Bluish"}}
    write_project(tmp_path, label={
        "source": {"kind": "classifier", "weights": "data/pretrained/colours", "calibration": None},
        "attributes": attributes,
    }, edit__edits={"hat": {"hat": "flip"}})  # fmt: skip
    channel_means(tmp_path / "data/pretrained/colours")
    declare(tmp_path / "data/pretrained/colours", "colours", attributes={"Reddish": 0, "Bluish": 2}, activation="none")
    monkeypatch.chdir(tmp_path)
    few, many = ({s.stage: s for s in quick(num_images=num).stages} for num in (100, 1_000_000))
    assert many["label"].seconds - few["label"].seconds > 0.1
    assert few["label"].num_bytes == 100 * (8 + 4 * 2 + 4 * 2)


def folder_project(folder: Path) -> Path:
    """A project on a folder of pictures, of which there are none yet; returns that folder."""
    write_project(folder, ingest__source={"kind": "folder"}, label={
        "source": {"kind": "csv", "path": "labels.csv", "file_column": "file"}, "attributes": {"hat": {"column": None}},
    }, edit__edits={"hat": {"hat": "flip"}}, evaluate__counterfactuals=False)  # fmt: skip
    raw = folder / "data/raw/avatars"
    raw.mkdir(parents=True)
    (raw / "labels.csv").write_text("file,hat\na.png,1\n")
    return raw


def test_a_folder_without_images_cannot_be_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder_project(tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ManifestError, match="holds no images"):
        quick()


def test_a_folder_of_which_nothing_has_run_yet_is_counted_and_timed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = folder_project(tmp_path)
    for number in range(3):
        Image.new("RGB", (20, 20), (number, 0, 0)).save(raw / f"{number}.png")
    monkeypatch.chdir(tmp_path)
    told = quick()
    assert told.num_images == 3
    assert next(stage for stage in told.stages if stage.stage == "ingest").seconds > 0
