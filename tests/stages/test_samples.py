"""Images drawn from noise by the stage edit: each attribute off and on, drawn once, and shown in the report."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor

from boundaryflow.boundary import load_boundaries, save_boundaries
from boundaryflow.config import load_params
from boundaryflow.diffusion.observation import noised_features
from boundaryflow.jobs.fitted import model_and_settings
from boundaryflow.jobs.sampling import sample_images
from boundaryflow.pixels import to_model_range
from boundaryflow.runtime.metering import TALLY
from boundaryflow.store.shards import load_items
from tests.small_project import content, run_here

NAMES = ("drawn", "has", "changed")
SAMPLES = Path("data/samples/avatars")


def change(project: Path, **values: Any) -> None:
    params = yaml.safe_load((project / "params.yaml").read_text())
    params["data"]["avatars"]["edit"].update(values)
    (project / "params.yaml").write_text(yaml.safe_dump(params))


def facts() -> dict[str, list[str]]:
    return json.loads((SAMPLES / "samples.json").read_text())


def samples() -> dict[str, Tensor]:
    return load_items(SAMPLES, facts()["items"], NAMES)


@pytest.fixture
def drawn(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with guided edits and six samples."""
    change(project, num_samples=6, compare=None)
    run_here(project, monkeypatch, "edit")
    return project


@pytest.mark.parametrize("method", ["guided", "single_step"])
def test_second_run_draws_nothing_and_a_run_from_scratch_draws_the_same(
    project: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    change(project, num_samples=4, method=method)
    run_here(project, monkeypatch, "edit")
    first, made = content(SAMPLES), samples()
    assert facts()["attributes"] == ["dark_skin", "hat"]
    assert {name: tuple(tensor.shape) for name, tensor in made.items()} == {
        "drawn": (4, 3, 16, 16), "has": (4, 2), "changed": (4, 2, 3, 16, 16),
    }  # fmt: skip
    before = TALLY.image_calls
    run_here(project, monkeypatch, "edit")
    assert (TALLY.image_calls, content(SAMPLES)) == (before, first)
    shutil.rmtree("data/samples")
    run_here(project, monkeypatch, "edit")
    assert TALLY.image_calls > before
    assert content(SAMPLES) == first


def test_more_samples_keep_those_that_are_there(drawn: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few, before = samples(), TALLY.image_calls
    change(drawn, num_samples=8)
    run_here(drawn, monkeypatch, "edit")
    many, calls = samples(), TALLY.image_calls - before
    assert all(torch.equal(many[name][:6], few[name]) for name in NAMES)
    assert not torch.equal(many["drawn"][6], many["drawn"][7])
    shutil.rmtree("data/samples")
    before = TALLY.image_calls
    run_here(drawn, monkeypatch, "edit")
    assert TALLY.image_calls - before == 4 * calls


def test_images_are_those_of_the_command_sample(drawn: Path, tmp_path: Path) -> None:
    from PIL import Image

    sample_images("avatars", 2, {}, 0, tmp_path)
    for index in range(2):
        with Image.open(tmp_path / f"sample-0-{index:05d}.png") as picture:
            shown = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8).reshape(16, 16, 3)
        assert torch.equal(shown.permute(2, 0, 1), samples()["drawn"][index])


def test_hyperplane_says_on_more_of_those_with_the_attribute_on(drawn: Path) -> None:
    params = load_params().dataset("avatars")
    model, settings = model_and_settings("avatars", params)
    made, ids = samples(), facts()["items"]
    for column, attribute in enumerate(facts()["attributes"]):
        off, on = (
            torch.where(
                (made["has"][:, column] == is_on)[:, None, None, None], made["drawn"], made["changed"][:, column]
            )
            for is_on in (False, True)
        )
        followed = load_boundaries(Path(f"data/boundary/avatars/{attribute}.safetensors")).noised
        best = max(followed, key=lambda hyperplane: hyperplane.calibration.auc)
        distances = [
            best.signed_distance(noised_features(model, to_model_range(x), ids, best.t, 0, settings.features))
            for x in (off, on)
        ]
        assert (distances[1] > distances[0]).all()
        middle = best.calibration.middle
        assert (distances[1] > middle).sum() > (distances[0] > middle).sum()


def test_changed_boundary_or_setting_draws_anew_and_another_strength_does_not(
    drawn: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, before = content(SAMPLES), samples()
    change(drawn, strengths=[0.0, 0.5], max_images=2)
    run_here(drawn, monkeypatch, "edit")
    assert content(SAMPLES) == first
    path = Path("data/boundary/avatars/hat.safetensors")
    hat = load_boundaries(path)
    moved = [
        replace(of, calibration=replace(of.calibration, mean_positive=of.calibration.mean_positive + 1.0))
        for of in hat.noised
    ]
    save_boundaries(path, replace(hat, noised=tuple(moved)))
    run_here(drawn, monkeypatch, "edit")
    after = samples()
    assert torch.equal(after["drawn"], before["drawn"])
    assert not torch.equal(after["changed"][:, 1], before["changed"][:, 1])
    again = content(SAMPLES)
    change(drawn, guided={**yaml.safe_load(Path("params.yaml").read_text())["data"]["avatars"]["edit"]["guided"],
                          "certainty": 0.7})  # fmt: skip
    run_here(drawn, monkeypatch, "edit")
    assert content(SAMPLES) != again


def test_edit_of_two_attributes_is_no_strip_and_one_attribute_is_changed_once(
    drawn: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change(drawn, edits={"both": {"hat": "add", "dark_skin": "flip"}, "hat": {"hat": "flip"}, "on": {"hat": "add"}})
    run_here(drawn, monkeypatch, "edit")
    assert facts()["attributes"] == ["hat"]
    assert samples()["changed"].shape[1] == 1
    change(drawn, edits={"both": {"hat": "add", "dark_skin": "flip"}})
    run_here(drawn, monkeypatch, "edit")
    assert facts() == {"attributes": [], "items": []}
    assert [path.name for path in SAMPLES.iterdir()] == ["samples.json"]


def test_none_are_drawn_in_paper_mode_or_when_none_are_asked_for(drawn: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    edited = content(drawn / "data/edit")
    change(drawn, num_samples=0)
    run_here(drawn, monkeypatch, "edit")
    assert [path.name for path in SAMPLES.iterdir()] == ["samples.json"]
    assert content(drawn / "data/edit") == edited
    change(drawn, num_samples=2, method="single_step", compare={"method": "single_step", "strengths": [1.0]})
    params = yaml.safe_load(Path("params.yaml").read_text())
    params["data"]["avatars"]["paper_mode"] = True
    Path("params.yaml").write_text(yaml.safe_dump(params))
    run_here(drawn, monkeypatch, "edit")
    assert facts() == {"attributes": [], "items": []}


def test_report_shows_a_strip_for_each_attribute_and_none_without_samples(
    drawn: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_here(drawn, monkeypatch, "params", "evaluate", "report")
    page = Path("data/report/avatars/index.html").read_text()
    assert '<section id="samples">' in page
    made = samples()
    assert page.count('<figure class="drawn">') == 12
    num_on = int(made["has"][:, 1].sum())
    assert f'<h3>hat</h3><span class="what">{num_on} of 6 drawn with it</span>' in page
    pictures = Path("data/report/avatars/images/from.noise")
    assert len(list(pictures.iterdir())) == 6 + 12
    change(drawn, num_samples=0)
    run_here(drawn, monkeypatch, "params", "edit", "evaluate", "report")
    page = Path("data/report/avatars/index.html").read_text()
    assert 'id="samples"' not in page
    assert 'href="#samples"' not in page
    assert not pictures.exists()
