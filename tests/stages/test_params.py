"""params.yaml: one line per mistake, with file, key, value, rule and the nearest valid name."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from boundaryflow.errors import ParamsError
from stages.params import activate_dataset, load_params
from tests.stages.small_project import ROOT, write_project


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_project(tmp_path_factory.mktemp("params"))


def with_change(project: Path, folder: Path, key: str, value: Any) -> Path:
    params = yaml.safe_load((project / "params.yaml").read_text())
    place: Any = params
    *path, last = key.split(".")
    for part in path:
        place = place[part]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    (folder / "data").symlink_to(project / "data")
    return folder


A = "data.avatars."
CASES = [
    ("datasets", ["avatar"], "datasets: 'avatar' has no entry under data, did you mean 'avatars'?"),
    ("dataset", 1, "dataset: unknown key, did you mean 'datasets'? (got 1)"),
    ("run_seed", -1, "run_seed: input should be greater than or equal to 0 (got -1)"),
    ("run_seed", ..., "run_seed: is missing; every value is stated in params.yaml"),
    (A + "edit.strenghts", [1], "data.avatars.edit.strenghts: unknown key, did you mean 'strengths'? (got [1])"),
    (A + "edit.eta", 1.5, "data.avatars.edit.eta: input should be less than or equal to 1 (got 1.5)"),
    (
        A + "edit.eta",
        "none",
        "data.avatars.edit.eta: input should be a valid number, unable to parse string as a number (got 'none')",
    ),
    (
        A + "edit.edits",
        {"x": {"hats": "flip"}},
        "data.avatars.edit.edits.x: attribute 'hats' is labelled by nobody, did you mean 'hat'?",
    ),
    (
        A + "edit.edits",
        {"x": {"hat": "on"}},
        "data.avatars.edit.edits.x.hat: input should be 'add', 'remove' or 'flip' (got 'on')",
    ),
    (
        A + "edit.h_window",
        [0.1, 0.9],
        "data.avatars.edit.h_window: must go from the noisy end down, such as [1.0, 0.3]",
    ),
    (A + "edit.h_scale", 2.0, "data.avatars.edit.h_scale: is 2.0, but boundary.spaces has no h; add it or set 0"),
    (
        A + "ingest.split",
        {"val": 0.5, "test": 0.5},
        "data.avatars.ingest.split: val and test leave nothing to train on",
    ),
    (
        A + "ingest.source.number",
        3,
        "data.avatars.ingest.source.number: unknown key; there are correlations, kind, num_images, rates, seed (got 3)",
    ),
    (A + "ingest.fit", "squash", "data.avatars.ingest.fit: input should be 'crop', 'pad' or 'stretch' (got 'squash')"),
    (
        A + "mixing.fixed_t",
        None,
        "data.avatars.mixing.fixed_t: is null, must be a timestep in [1, 999] with rule: fixed",
    ),
    (A + "mixing.min_t", 900, "data.avatars.mixing.min_t: is 900, must not be above max_t (800)"),
    (A + "mixing.fixed_t", 1200, "data.avatars.mixing.fixed_t: input should be less than or equal to 999 (got 1200)"),
    (
        A + "model",
        "data/pretrained/nothing",
        "data.avatars.model: data/pretrained/nothing does not exist; give an existing path",
    ),
    (
        A + "evaluate.judges",
        "data/none",
        "data.avatars.evaluate.judges: data/none does not exist; give an existing path",
    ),
    (A + "label.source", {"kind": "csv", "path": "l.csv", "file_column": "f"}, ""),
    (
        A + "label.source",
        {"kind": "clip", "weights": "ViT-B/32"},
        "data.avatars.label.attributes.dark_skin: does not fit source kind 'clip'",
    ),
]


@pytest.mark.parametrize(("key", "value", "message"), CASES, ids=[f"{k}={v}" for k, v, _ in CASES])
def test_mistakes(project: Path, tmp_path: Path, key: str, value: Any, message: str) -> None:
    folder = with_change(project, tmp_path, key, value)
    if key.endswith("h_scale"):
        params = yaml.safe_load((folder / "params.yaml").read_text())
        params["data"]["avatars"]["boundary"]["spaces"] = ["eps"]
        (folder / "params.yaml").write_text(yaml.safe_dump(params))
    if not message:
        load_params(folder)
        return
    with pytest.raises(ParamsError, match=re.escape(message)) as caught:
        load_params(folder)
    assert str(caught.value).startswith(str(folder / "params.yaml"))
    assert "\n" not in str(caught.value)


def test_all_mistakes_are_told_at_once(project: Path, tmp_path: Path) -> None:
    folder = with_change(project, tmp_path, A + "edit.eta", 2)
    params = yaml.safe_load((folder / "params.yaml").read_text())
    params["run_seed"] = "x"
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    with pytest.raises(ParamsError) as caught:
        load_params(folder)
    assert len(str(caught.value).splitlines()) == 2


def test_missing_or_broken_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match="no such file; run the command in the folder that has it"):
        load_params(tmp_path)
    (tmp_path / "params.yaml").write_text("a: [1,\nb: 2")
    with pytest.raises(ParamsError, match="line 2 is not YAML"):
        load_params(tmp_path)


def test_unknown_data_set_names_the_known_ones(project: Path) -> None:
    with pytest.raises(ParamsError, match="data has no entry 'avatar', did you mean 'avatars'"):
        load_params(project).dataset("avatar")


def test_shipped_file_is_valid_and_its_second_data_set_can_be_switched_on(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    text = (ROOT / "params.yaml").read_text()
    path.write_text(text)
    (tmp_path / "data").symlink_to(ROOT / "data")
    assert load_params(tmp_path).datasets == ["avatars"]
    activate_dataset(path, "digits")
    assert yaml.safe_load(path.read_text())["datasets"] == ["avatars", "digits"]
    assert path.read_text().replace("[avatars, digits]", "[avatars]") == text


def test_list_over_several_lines_is_not_guessed_at(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("datasets:\n  - avatars\n")
    with pytest.raises(ParamsError, match="must be written on one line"):
        activate_dataset(path, "digits")
