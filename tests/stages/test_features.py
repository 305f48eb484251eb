"""Hyperplanes in the features of a decoder layer, from observe to the edits; other layers are refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from boundaryflow.boundary import load_boundaries
from boundaryflow.boundary.hyperplane import most_telling
from boundaryflow.config import load_params
from boundaryflow.diffusion import Features
from boundaryflow.diffusion.observation import noised_features
from boundaryflow.errors import BoundaryError, ManifestError, ParamsError
from boundaryflow.jobs.fitted import model_and_settings
from boundaryflow.jobs.pictures import edit_photos
from boundaryflow.models import load_model
from boundaryflow.pixels import to_model_range
from boundaryflow.sources.encoding import encode_png
from boundaryflow.store.shards import load_items, read_shard
from boundaryflow.store.tables import read_table
from tests.small_project import copy_project, run_here, write_project
from tests.stages.test_pipeline import change

LAYER = {"layer": "up_blocks.1.resnets.0", "pool": 4}
FEATURES = Features(**LAYER)
DIMENSIONS = 8 * 4 * 4


@pytest.fixture(scope="module")
def in_decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_project(
        tmp_path_factory.mktemp("decoder"),
        observe__features=LAYER,
        edit__compare=None,
        edit__strengths=[0.0, 1.0],
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BOUNDARYFLOW_PROGRESS", "off")
        run_here(folder, patch, "ingest", "label", "mixing", "invert", "observe", "boundary", "edit")
    return folder


def test_shards_and_boundaries_name_the_layer(in_decoder: Path) -> None:
    observed = in_decoder / "data/observe/avatars"
    facts = json.loads((observed / "observe.json").read_text())
    assert facts["features"] == LAYER
    shard = read_shard(next(observed.glob("shard-*")))
    assert {tuple(tensor.shape[1:]) for tensor in shard.tensors.values()} == {(DIMENSIONS,)}
    assert set(shard.tensors) == {f"up_blocks.1.resnets.0:4_{t:04d}" for t in facts["timesteps"]}
    planes = load_boundaries(in_decoder / "data/boundary/avatars/dark_skin.safetensors").noised
    assert {(plane.space, plane.normal.numel()) for plane in planes} == {(FEATURES.space, DIMENSIONS)}
    assert json.loads((in_decoder / "data/edit/avatars/edit.json").read_text())["features"] == LAYER


def test_edit_reaches_the_attribute(in_decoder: Path) -> None:
    model = load_model(in_decoder / "data/pretrained/tiny")
    plane = most_telling(load_boundaries(in_decoder / "data/boundary/avatars/dark_skin.safetensors").noised)
    manifest = read_table(in_decoder / "data/edit/avatars/manifest.parquet", schema="edits/2")
    items = sorted(set(manifest.loc[manifest["edit"] == "dark", "item_id"]))
    assert items
    before = load_items(in_decoder / "data/ingest/avatars", items, ["pixels"])["pixels"]
    after = load_items(in_decoder / "data/edit/avatars/dark", items, ["edited"])["edited"]
    torch.testing.assert_close(after[:, 0], before)

    def beyond(pixels: torch.Tensor) -> torch.Tensor:
        """Signed distances from the middle between the classes, in gaps."""
        seen = noised_features(model, to_model_range(pixels, (-1.0, 1.0)), items, plane.t, 0, FEATURES)
        return (plane.signed_distance(seen) - plane.calibration.middle) / plane.calibration.gap

    assert (beyond(before) < 0).float().mean() > 0.7
    assert (beyond(after[:, 1]) > 0).float().mean() > 0.7


def test_jobs_follow_and_refuse_boundaries_of_another_space(
    in_decoder: Path, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copy_project(in_decoder, tmp_path / "project")
    monkeypatch.chdir(folder)
    picture = folder / "face.png"
    picture.write_bytes(encode_png(torch.full((3, 16, 16), 200, dtype=torch.uint8), {}))
    (edited,) = edit_photos([picture], "avatars", "dark_skin", [1.0], folder / "out")
    assert edited.is_file()
    assert model_and_settings("avatars", load_params().dataset("avatars"))[1].features == FEATURES
    path = folder / "data/boundary/avatars/dark_skin.safetensors"
    path.write_bytes((finished / "data/boundary/avatars/dark_skin.safetensors").read_bytes())
    with pytest.raises(BoundaryError, match=r"in the space h of .* the features used are in up_blocks.1.resnets.0:4"):
        edit_photos([picture], "avatars", "dark_skin", [1.0], folder / "out")


def test_shards_of_another_layer_are_computed_anew_and_never_misread(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run in h, then one in a layer."""
    observed = project / "data/observe/avatars"
    facts = (observed / "observe.json").read_text()
    before = {path.name for path in observed.glob("shard-*")}
    change(project, "observe", features=LAYER)
    run_here(project, monkeypatch, "observe")
    assert before.isdisjoint(path.name for path in observed.glob("shard-*"))
    (observed / "observe.json").write_text(facts)  # as if the stage had been killed before it wrote it
    with pytest.raises(ManifestError, match="has no tensor 'h_"):
        run_here(project, monkeypatch, "boundary")


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ({"layer": "up_blocks.1.resnet.0", "pool": 4}, "no layer 'up_blocks.1.resnet.0', did you mean up_blocks.1."),
        ({"layer": "mid_block", "pool": 64}, "cannot be averaged to a side of 64"),
    ],
)
def test_layer_that_is_not_there_is_one_line_that_says_where_to_look(
    project: Path, monkeypatch: pytest.MonkeyPatch, layer: dict[str, object], message: str
) -> None:
    change(project, "observe", features=layer)
    with pytest.raises(ParamsError, match=rf"^observe.features: .*{message}") as caught:
        run_here(project, monkeypatch, "observe")
    assert str(caught.value).endswith("; `boundaryflow inspect data/pretrained/tiny` lists layers")
    assert "\n" not in str(caught.value)
