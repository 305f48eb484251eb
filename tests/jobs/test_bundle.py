"""A bundle is opened elsewhere as what it was; what is not it, or not its model, is refused in a line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from boundaryflow.avatars import render, sample_avatars
from boundaryflow.errors import BoundaryError, CheckpointError, ManifestError, PipelineError
from boundaryflow.evaluation.judges import SegmenterNet, save_judge
from boundaryflow.jobs.bundle import open_bundle, write_bundle
from boundaryflow.jobs.inspection import as_text, inspect
from boundaryflow.jobs.pictures import edit_photos
from boundaryflow.models import load_model
from boundaryflow.models.portable import model_files, stated_licence
from boundaryflow.runtime import frozen_model
from tests.conftest import ROOT
from tests.small_project import content


@pytest.fixture(autouse=True)
def _reopened_models() -> Iterator[None]:
    """Tests change the files of a model, which a process opens once for each path."""
    frozen_model._open_model.cache_clear()
    yield
    frozen_model._open_model.cache_clear()


@pytest.fixture
def photo(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A picture; the project is where we are."""

    monkeypatch.chdir(finished)
    path = tmp_path / "me.png"
    render(sample_avatars(1, np.random.default_rng(0))[0], 16).save(path)
    return path


@pytest.fixture
def bundle(photo: Path, tmp_path: Path) -> Path:
    """A bundle with its model."""
    out = tmp_path / "bundle"
    assert write_bundle("avatars", out, with_model=True) == ["dark_skin", "hat"]
    return out


def test_bundle_edits_elsewhere_as_the_project_does(
    bundle: Path, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    amounts = {"hat": 1.0, "dark_skin": -0.5}
    (here,) = edit_photos([photo], "avatars", amounts, [1.5], tmp_path / "here")
    moved = bundle.rename(tmp_path / "moved")
    shutil.rmtree(moved / ".boundaryflow")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    (there,) = edit_photos([photo], open_bundle(moved), amounts, [1.5], tmp_path / "there")
    assert here.read_bytes() == there.read_bytes()


def test_bundle_says_what_it_is_and_whether_it_is_whole(bundle: Path) -> None:
    facts = inspect(str(bundle))
    assert (facts["what"], facts["data set"]) == ("a bundle: boundaries and settings for a model", "avatars")
    assert facts["attributes"] == ["dark_skin", "hat"]
    assert (facts["from words"], facts["model"]) == ([], "in the bundle")
    assert facts["files as listed"] == "all, by size and SHA-256"
    assert "dark_skin, hat" in as_text(facts)
    (bundle / "boundaries/hat.safetensors").unlink()
    with (bundle / "README.md").open("a") as card:
        card.write("more")
    assert inspect(str(bundle))["files as listed"] == [
        "README.md is not the file that bundle.json lists; fetch it again",
        "boundaries/hat.safetensors is missing; fetch it again",
    ]
    (bundle / "bundle.json").write_text("{")
    with pytest.raises(ManifestError, match=r"bundle\.json"):
        inspect(str(bundle))


def test_bundle_holds_data_only_and_a_card(bundle: Path) -> None:
    files = {name for name in content(bundle) if not name.startswith(".boundaryflow/")}
    boundaries = {"boundaries/hat.safetensors", "boundaries/dark_skin.safetensors"}
    model = {f"model/{n}" for n in ("config.json", "scheduler_config.json", "boundaryflow.json")}
    model.add("model/diffusion_pytorch_model.safetensors")
    assert files == {"bundle.json", "params.yaml", "README.md", *boundaries, *model}
    card = (bundle / "README.md").read_text()
    assert "| data set | avatars (avatars): 40 images of 3 x 16 x 16 |" in card
    assert "| licence of the model, as its card states it | its card states none, or is not here |" in card
    assert card.count("| labels |") == 2
    assert '{"dark_skin": +1}' in card


def test_same_bundle_again_has_the_same_bytes_and_loses_what_is_gone(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    out = tmp_path / "bundle"
    write_bundle("avatars", out)
    first = content(out)
    write_bundle("avatars", out)
    again = content(out)
    assert {k: v for k, v in first.items() if "written" not in k} == {
        k: v for k, v in again.items() if "written" not in k
    }
    Path("data/boundary/avatars/hat.safetensors").unlink()
    assert write_bundle("avatars", out) == ["dark_skin"]
    assert not (out / "boundaries/hat.safetensors").exists()
    open_bundle(out).opened  # noqa: B018


@pytest.mark.usefixtures("photo")
def test_nothing_of_others_is_overwritten(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/README.md").write_text("mine")
    with pytest.raises(ManifestError, match="holds files that no bundle has; name a folder that is not there yet"):
        write_bundle("avatars", tmp_path / "full")
    assert content(tmp_path / "full") == {"README.md": b"mine"}
    (bundle / "README.md").write_text("changed by hand")
    with pytest.raises(ManifestError, match=r"README\.md exists, and is not as a run wrote it"):
        write_bundle("avatars", bundle)
    assert (bundle / "README.md").read_text() == "changed by hand"
    with pytest.raises(ManifestError, match="lies in data/ of the checkout"):
        write_bundle("avatars", Path("data/bundle"))


def test_without_its_model_it_is_looked_for_and_another_is_refused(
    photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "bundle"
    write_bundle("avatars", out)
    model = Path("data/pretrained/tiny").resolve()
    open_bundle(out).opened  # noqa: B018 - it is at the same place as seen from here
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match=r"is not in it, and data/pretrained/tiny is not here; name the model"):
        open_bundle(out).opened  # noqa: B018
    open_bundle(out, str(model)).opened  # noqa: B018
    shutil.copytree(model, tmp_path / "other")
    (tmp_path / "other/scheduler_config.json").write_text(
        (model / "scheduler_config.json").read_text().replace("0.02", "0.03")
    )
    with pytest.raises(CheckpointError, match=r"was fitted for the model \w{12}, and .*other is \w{12}; name") as told:
        open_bundle(out, str(tmp_path / "other")).opened  # noqa: B018
    assert "\n" not in str(told.value)
    with pytest.raises(BoundaryError, match=r"boundary 'hst' of bundle .* did you mean 'hat'\?"):
        edit_photos([photo], open_bundle(out), "hst", [1.0], tmp_path / "edited")


def test_boundaries_of_another_model_are_not_bundled(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    path = Path("data/pretrained/tiny/scheduler_config.json")
    path.write_text(path.read_text().replace("0.02", "0.03"))
    with pytest.raises(BoundaryError, match="was fitted on model .*; run `boundaryflow run` to fit it for this model"):
        write_bundle("avatars", tmp_path / "bundle")
    shutil.rmtree("data/boundary/avatars")
    with pytest.raises(BoundaryError, match="there are no boundaries yet"):
        write_bundle("avatars", tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


def test_segmenter_of_a_mask_travels_along(
    project: Path, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    torch.manual_seed(0)
    config = {"channels": 3, "widths": [8, 8], "num_parts": 2, "image_size": 16}
    save_judge(Path("data"), "segment", SegmenterNet(3, [8, 8], 2), config, ["face", "hat"])
    params = yaml.safe_load(Path("params.yaml").read_text())
    mask = {"segmenter": "data/segmenter.safetensors", "parts": {"hat": ["hat"]}, "grow": 0}
    params["data"]["avatars"]["edit"]["mask"] = mask
    Path("params.yaml").write_text(yaml.safe_dump(params))
    (here,) = edit_photos([photo], "avatars", "hat", [1.5], tmp_path / "here")
    out = tmp_path / "bundle"
    write_bundle("avatars", out, with_model=True)
    monkeypatch.chdir(tmp_path)
    (there,) = edit_photos([photo], open_bundle(out), "hat", [1.5], tmp_path / "there")
    assert here.read_bytes() == there.read_bytes()


@pytest.mark.parametrize("name", ["faces64", "avatars64", "digits32"])
def test_files_of_a_model_are_the_same_model(name: str, tmp_path: Path) -> None:
    source = ROOT / "data/pretrained" / name
    for file, data in model_files(str(source)).items():
        (tmp_path / file).write_bytes(data)
    assert load_model(tmp_path).sha256 == load_model(source).sha256


def test_model_that_is_code_or_a_torch_file_does_not_travel(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is code, and a bundle holds data only"):
        model_files("mine.py:make")
    source = ROOT / "data/pretrained/digits32"
    shutil.copytree(source, tmp_path / "model")
    weights = tmp_path / "model/diffusion_pytorch_model.safetensors"
    from safetensors.torch import load_file

    torch.save(load_file(weights), weights.with_suffix(".bin"))
    weights.unlink()
    with pytest.raises(CheckpointError, match="is a torch file, and a bundle holds safetensors only"):
        model_files(str(tmp_path / "model"))


def test_licence_is_what_the_card_states(tmp_path: Path) -> None:
    (said,) = stated_licence(str(ROOT / "data/pretrained/faces64"))
    assert said.startswith("licence of the pictures: CelebA: non-commercial research only")
    (tmp_path / "README.md").write_text("---\nlicense: apache-2.0\n---\n# License\n")
    assert stated_licence(str(tmp_path)) == ["license: apache-2.0"]
    assert stated_licence("owner/name") == []


def test_bundle_of_a_later_version_says_which_wrote_it(bundle: Path) -> None:
    stated = json.loads((bundle / "bundle.json").read_text())
    (bundle / "bundle.json").write_text(json.dumps({**stated, "version": "9.9", "more": 1}))
    with pytest.raises(PipelineError, match=r"bundle\.json: more: unknown key.* \(written by boundaryflow 9\.9\)"):
        open_bundle(bundle)
