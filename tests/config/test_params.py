"""params.yaml: one line per mistake, with file, key, value, rule and the nearest valid name."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from click.testing import CliRunner

from boundaryflow.config import DatasetParams, RemoteSource, activate_dataset, copy_entry, load_params
from boundaryflow.config.resolved import resolved
from boundaryflow.errors import ManifestError, ParamsError
from boundaryflow.evaluation.judges import JudgeNet, SegmenterNet, save_judge
from boundaryflow.files import about_user
from boundaryflow.jobs.pictures import check_strengths
from boundaryflow.remote import open_remote
from flows.cli.running import params as params_command
from tests.foreign_judges import channel_means, declare
from tests.hostile.corpus_models import JUDGES as HOSTILE_JUDGES
from tests.layouts import ddpm_layout, random_state
from tests.small_project import ROOT, write_project

JUDGES = "data/pretrained/judges"


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
    ("run_seed", ..., "run_seed: is missing; state it there, or in defaults"),
    (A + "ingest.levels", [5, 5], "data.avatars.ingest.levels: the value of black must be below the value of white"),
    (A + "ingest.levels", [0], "data.avatars.ingest.levels"),
    (A + "ingest.levels", [0, float("inf")], "data.avatars.ingest.levels"),
    (A + "edit.guided.hold", 3.0, "data.avatars.edit.guided.hold: is called preserve now; rename it (got 3.0)"),
    (A + "edit.guided.num_passes", 2, "edit.guided.num_passes: is called num_iterations now; rename it (got 2)"),
    (A + "edit.correction", True, "data.avatars.edit.correction: is called residuals now; rename it (got True)"),
    (A + "edit.strenghts", [1], "data.avatars.edit.strenghts: unknown key, did you mean 'strengths'? (got [1])"),
    ("datasets", ["avatars", 7], "datasets.1: input should be a valid string; write it in quotes (got 7)"),
    ("datasets", ["x" * 65], "datasets.0: must be letters, digits, _ and -, at most 64 and no mark first (got 'xxxx"),
    (
        A + "label.attributes.item_id",
        {"column": None},
        "data.avatars.label.attributes.item_id: is a column of our own tables (file, item_id); choose another name",
    ),
    (
        A + "label.attributes.file",
        {"column": None},
        "data.avatars.label.attributes.file: is a column of our own tables (file, item_id); choose another name",
    ),
    (A + "edit.strengths", [float("nan")], "data.avatars.edit.strengths.0: input should be a finite number (got nan)"),
    (A + "ingest.source.rates", {"hat": float("inf")}, "ingest.source.rates.hat: input should be a finite number"),
    (
        A + "label.source",
        {"kind": "csv", "path": "../../etc/l.csv", "file_column": "f"},
        "data.avatars.label.source.path: must be relative to data/raw/NAME and stay in it, without .. (got '../../etc",
    ),
    (
        A + "label.source",
        {"kind": "csv", "path": "**x/*.csv", "file_column": "f"},
        "data.avatars.label.source.path: has ** beside other characters; it must stand alone between two slashes",
    ),
    (
        A + "ingest.split",
        {"path": "/etc/l.csv", "file_column": None, "split_column": None},
        "data.avatars.ingest.split.path: must be relative to data/raw/NAME and stay in it",
    ),
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
    (
        A + "observe.features",
        {"layer": "up blocks", "pool": 4},
        "data.avatars.observe.features.layer: must name a module of the network, such as up_blocks.1.resnets.1 (got",
    ),
    (
        A + "observe.features",
        {"layer": "mid_block", "pool": 0},
        "data.avatars.observe.features.pool: input should be greater than or equal to 1 (got 0)",
    ),
    (A + "observe.features", {"layer": "mid_block"}, "data.avatars.observe.features.pool: is missing; state it there"),
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
        "data.avatars.model: data/pretrained/nothing does not exist; give an existing path, or a hub id",
    ),
    (
        A + "evaluate.judges",
        "data/none",
        "data.avatars.evaluate.judges: data/none does not exist; give an existing path, or null",
    ),
    (
        A + "label.source",
        {"kind": "csv", "path": "l.csv", "file_column": "f"},
        "data.avatars.label.source.path: data/raw/avatars/l.csv does not exist; give a path within data/raw/avatars",
    ),
    (
        A + "label.source",
        {"kind": "csv", "path": "~/l.csv", "file_column": "f"},
        "data.avatars.label.source.path: ~/l.csv begins with ~, which is not expanded; write the path out",
    ),
    (A + "model", "~/tiny", "data.avatars.model: ~/tiny begins with ~, which is not expanded; write the path out"),
    (
        A + "model",
        "tiny",
        "data.avatars.model: tiny does not exist; give an existing path, or a hub id like owner/name",
    ),
    (
        A + "model",
        "data/pretrained",
        "data.avatars.model: data/pretrained has no config.json; give a diffusers folder",
    ),
    (
        A + "ingest.image_size",
        32,
        "data.avatars.ingest.image_size: is 32, but data/pretrained/tiny (model) is for 16; set it to 16",
    ),
    (A + "ingest.channels", 1, "data.avatars.ingest.channels: is 1, must be 3; avatars are RGB"),
    (A + "ingest.split.val", 0, "data.avatars.ingest.split.val: is 0, must be above; boundaries are calibrated on"),
    (A + "ingest.split.test", 0, "data.avatars.ingest.split.test: is 0, but edit.split is test; raise it, or edit"),
    (
        A + "ingest.source.rates",
        {"hats": 0.1},
        "data.avatars.ingest.source.rates: the renderer has no attribute 'hats', did you mean 'hat'?",
    ),
    (
        A + "ingest.source.correlations",
        {"hat": 0.1},
        "data.avatars.ingest.source.correlations: 'hat' must be two names joined by ~, such as hat~beard",
    ),
    (
        A + "ingest.source.correlations",
        {"hat~hat": 0.1},
        "data.avatars.ingest.source.correlations: 'hat~hat' must be two names joined by ~, such as hat~beard",
    ),
    (
        A + "ingest.source.correlations",
        {"hat~bear": 0.1},
        "data.avatars.ingest.source.correlations: 'hat~bear': the renderer has nothing named 'bear', did you mean "
        "'beard'?",
    ),
    (
        A + "ingest.source.correlations",
        {"hat~beard": 0.1, "beard~hat": 0.2},
        "data.avatars.ingest.source.correlations: 'hat~beard' is stated twice; keep one",
    ),
    (
        A + "ingest.source.correlations",
        {"hat~beard": 1, "hat~smiling": 1, "smiling~beard": -1},
        "data.avatars.ingest.source.correlations: contradict one another, no distribution has them all",
    ),
    (
        A + "label.attributes.wings",
        {"column": None},
        "data.avatars.label.attributes.wings: the renderer has no such attribute; there are beard, blond_hair",
    ),
    (A + "edit.strengths", [0.0, float("nan")], "data.avatars.edit.strengths.1: input should be a finite number"),
    (A + "edit.strengths", [float("inf")], "data.avatars.edit.strengths.0: input should be a finite number (got inf)"),
    (
        A + "edit.strengths",
        [1, 0, 1.0],
        "data.avatars.edit.strengths: 1 occurs twice (results are named by six digits",
    ),
    (A + "edit.strengths", [1, 1.0000001], "data.avatars.edit.strengths: 1 occurs twice (results are named by six"),
    (
        A + "edit.strengths",
        [-0.0, 0.0],
        "data.avatars.edit.strengths: 0 occurs twice (results are named by six digits",
    ),
    (A + "edit.strengths", [], "data.avatars.edit.strengths: list should have at least 1 item"),
    (
        A + "edit.edits.hat",
        {},
        "data.avatars.edit.edits.hat: changes nothing; say which attribute, such as {dark_skin: flip}, or remove it",
    ),
    (
        A + "mixing.fixed_t",
        2,
        "data.avatars.invert.num_steps: is 4, but from 0 to mixing.fixed_t (2) there are 3 timesteps; lower it",
    ),
    (A + "mixing.fixed_t", 0, "data.avatars.mixing.fixed_t: input should be greater than or equal to 1 (got 0)"),
    (A + "edit.num_steps", 4, "data.avatars.edit.num_steps: unknown key"),
]


@pytest.mark.parametrize(("key", "value", "message"), CASES, ids=[f"{k}={v}" for k, v, _ in CASES])
def test_mistakes(project: Path, tmp_path: Path, key: str, value: Any, message: str) -> None:
    folder = with_change(project, tmp_path, key, value)
    if key.endswith("h_scale"):
        params = yaml.safe_load((folder / "params.yaml").read_text())
        params["data"]["avatars"]["boundary"]["spaces"] = ["eps"]
        (folder / "params.yaml").write_text(yaml.safe_dump(params))
    with pytest.raises(ParamsError, match=re.escape(message)) as caught:
        load_params(folder)
    assert str(caught.value).startswith(str(folder / "params.yaml"))
    assert "\n" not in str(caught.value)


def lines_of(folder: Path, **changes: Any) -> list[str]:
    """What is wrong with a project made with changes, without the name of the file; see `write_project`."""
    write_project(folder, **changes)
    try:
        load_params(folder)
    except ParamsError as error:
        return [line.removeprefix(f"{folder}/params.yaml: data.avatars.") for line in str(error).splitlines()]
    return []


CLIP = {"kind": "clip", "weights": "ViT-B/32", "templates": ["{}"], "temperature": None, "calibration": None}
CSV = {"kind": "csv", "path": "l.csv", "file_column": "file"}
PROMPTS = {"positive": ["a hat"], "negative": ["no hat"]}
RULES = [
    (CLIP, {"positve": ["a"], "negative": ["b"]}, "positve: unknown key, did you mean 'positive'? (got ['a'])"),
    (CSV, {"column": "x", "positve": [1], "negative": [0]}, "positve: unknown key, did you mean 'positive'? (got [1])"),
    (CSV, {"colum": "x", "positive": [1], "negative": [0]}, "colum: unknown key, did you mean 'column'? (got 'x')"),
    (CSV, {"column": "x", "abov": 1, "below": 0}, "abov: unknown key, did you mean 'above'? (got 1)"),
    (CSV, {"column": "x", "above": 1}, "below: is missing; state it there, or in defaults"),
    (CSV, {"colum": "x"}, "colum: unknown key, did you mean 'column'? (got 'x')"),
    (CSV, {"positive": [1], "negative": [0]}, "column: is missing; state it there, or in defaults"),
    (CSV, {"column": "x", "positive": 1, "negative": [0]}, "positive: input should be a valid list (got 1)"),
    (CSV, "x", ": input should be a valid dictionary or instance of ColumnRule (got 'x')"),
]


@pytest.mark.parametrize(("source", "rule", "line"), RULES, ids=[line for _, _, line in RULES])
def test_mistake_in_a_rule_is_one_line(tmp_path: Path, source: dict[str, Any], rule: Any, line: str) -> None:
    label = {
        "source": source,
        "attributes": {"hat": rule, "dark_skin": PROMPTS if source is CLIP else {"column": None}},
    }
    key = f"label.attributes.hat{'' if line.startswith(':') else '.'}"
    assert lines_of(tmp_path, label=label) == [key + line]


def test_rule_that_is_not_for_the_source_says_what_is(tmp_path: Path) -> None:
    attributes = {"hat": {"column": None}, "dark_skin": PROMPTS}
    (line,) = lines_of(tmp_path, label={"source": CLIP, "attributes": attributes})
    needs = "which needs positive and negative prompts; or not, all or any of others"
    assert line == f"label.attributes.hat: does not fit source kind 'clip', {needs}"
    attributes = {"hat": {"column": "x", "above": 1.0, "below": 2.0}, "dark_skin": {"column": None}}
    (line,) = lines_of(tmp_path, label={"source": CSV, "attributes": attributes})
    rule = "so that no number is at both limits or beyond"
    assert line == f"label.attributes.hat.above: is 1.0, must be greater than below (2.0), {rule}"
    attributes["hat"] = {"column": "x", "above": 2.0, "below": 2.0}
    (line,) = lines_of(tmp_path, label={"source": CSV, "attributes": attributes})
    assert line == f"label.attributes.hat.above: is 2.0, must be greater than below (2.0), {rule}"


LONG = {"kind": "long", "path": "l.csv", "file_column": "f", "attribute_column": "a", "value_column": "v"}
CELEBA = {"kind": "celeba", "path": "list_attr_celeba.txt", "mapping": None}
FOLDERS = {"kind": "folders"}
PROBE = {"kind": "probe", "weights": "ViT-B/32", "annotations": CSV, "num_folds": 5}
COLUMN = {"column": None}
BY_FOLDER = {"column": "folder", "positive": ["cat"], "negative": ["dog"]}


@pytest.mark.parametrize(
    ("source", "rule", "needs"),
    [
        (CSV, PROMPTS | {"column": None}, None),
        (LONG, PROMPTS, "column: is missing; state it there, or in defaults"),
        (CELEBA, {"positive": [1], "negative": [-1]}, "column: is missing; state it there, or in defaults"),
        (FOLDERS, COLUMN, "source kind 'folders', which needs column: folder with positive and negative folder names"),
        (FOLDERS, {**BY_FOLDER, "column": "x"}, "column: is 'x', must be folder; folders have no other column"),
        ({**PROBE, "annotations": FOLDERS}, COLUMN, "source kind 'probe', which needs column: folder with positive"),
        (PROBE, PROMPTS, "column: is missing; state it there, or in defaults"),
        (
            CLIP,
            {"column": "x", "above": 1, "below": 0},
            "source kind 'clip', which needs positive and negative prompts",
        ),
        (CSV, {"column": "x", "positive": [1, 2], "negative": [2]}, "2 is positive and negative; keep one"),
        (
            CSV,
            {"column": "x", "positive": [1], "negative": ["1.0", 0]},
            "1 is positive and negative, written '1.0' there",
        ),
        (CSV, {"column": "x", "positive": [True], "negative": ["yes"]}, "True is positive and negative, written 'yes'"),
        (
            CSV,
            {"column": "x", "positive": ["A"], "negative": [" a"]},
            "'A' is positive and negative, written ' a' there",
        ),
        (
            CSV,
            {"column": "x", "positive": ["1e5"], "negative": [100000]},
            "'1e5' is positive and negative, written 100000",
        ),
        (CSV, {"column": "file"}, "column: 'file' is the column of file names; name the one with the values"),
        (CSV, {"column": "file", "above": 1, "below": 0}, "column: 'file' is the column of file names"),
        ({**CSV, "file_column": "hat"}, COLUMN, "column: 'hat' is the column of file names"),
        ({**PROBE, "annotations": CSV}, {"column": "file"}, "column: 'file' is the column of file names"),
        (LONG, {"column": "f"}, None),
        ({**LONG, "value_column": "f"}, COLUMN, "source: 'f' is two of file_column, attribute_column and value_column"),
        (
            {**CLIP, "calibration": {**CSV, "file_column": "hat"}},
            PROMPTS,
            "calibration.file_column: 'hat' is an attribute",
        ),
    ],
)
def test_rule_that_does_not_fit_is_told_what_does(
    tmp_path: Path, source: dict[str, Any], rule: Any, needs: str | None
) -> None:
    (tmp_path / "data/raw/avatars").mkdir(parents=True)
    for name in ("l.csv", "list_attr_celeba.txt"):
        (tmp_path / "data/raw/avatars" / name).touch()
    if needs is None:
        rule = COLUMN
    by_folder = FOLDERS in (source, source.get("annotations"))
    other = PROMPTS if source["kind"] == "clip" else BY_FOLDER if by_folder else COLUMN
    found = lines_of(tmp_path, label={"source": source, "attributes": {"hat": rule, "dark_skin": other}})
    if needs is None:
        assert found == []
    else:
        (line,) = found
        assert line.startswith(("label.attributes.hat", "label.source"))
        assert needs in line


@pytest.mark.parametrize(
    ("made", "lines"),
    [
        ({"old": {"not": "young"}, "either": {"any": ["old", "hat"]}, "x": {"all": ["either", "hat"]}}, []),
        ({"old": {"not": "yung"}}, ["label.attributes.old: there is no attribute 'yung', did you mean 'young'?"]),
        ({"old": {"not": "old"}}, ["label.attributes.old: is made of itself (old of old); say one of them otherwise"]),
        (
            {"a": {"any": ["hat", "b"]}, "b": {"not": "a"}},
            ["label.attributes.a: is made of itself (a of b of a); say one of them otherwise"],
        ),
        ({"old": {"not": "young", "any": ["hat"]}}, ["label.attributes.old: must have one of not, all and any"]),
        ({"old": {"all": []}}, ["label.attributes.old.all: list should have at least 1 item after validation, not 0"]),
    ],
    ids=str,
)
def test_attributes_made_of_others(tmp_path: Path, made: dict[str, Any], lines: list[str]) -> None:
    plain = {"hat": PROMPTS, "dark_skin": PROMPTS, "young": PROMPTS}
    assert lines_of(tmp_path, label={"source": CLIP, "attributes": {**made, **plain}}) == lines


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"templates": ["a photo"]}, "templates: 'a photo' must contain {} once, where the prompt goes"),
        ({"templates": ["{} and {}"]}, "templates: '{} and {}' must contain {} once, where the prompt goes"),
        ({"templates": []}, "templates: list should have at least 1 item after validation, not 0"),
        ({"temperature": 0}, "temperature: input should be greater than 0 (got 0)"),
        (
            {"calibration": FOLDERS},
            "calibration: kind folders has no column of each attribute's name; use csv, long or",
        ),
        ({"calibration": {**CSV, "pat": 1}}, "calibration.pat: unknown key, did you mean 'path'? (got 1)"),
        ({"calibration": {**CSV, "path": "none.csv"}}, "calibration.path: data/raw/avatars/none.csv does not exist"),
        ({"calibration": {**CELEBA, "mapping": "m.txt"}}, "calibration.mapping: data/raw/avatars/m.txt does not exist"),
    ],
)
def test_mistake_about_clip_is_one_line(tmp_path: Path, change: dict[str, Any], line: str) -> None:
    (tmp_path / "data/raw/avatars").mkdir(parents=True)
    for name in ("l.csv", "list_attr_celeba.txt"):
        (tmp_path / "data/raw/avatars" / name).touch()
    label = {"source": {**CLIP, **change}, "attributes": {"hat": PROMPTS, "dark_skin": PROMPTS}}
    (found,) = lines_of(tmp_path, label=label)
    assert found.startswith(f"label.source.{line}")


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ({**CSV, "path": "*/metadata.csv"}, None),
        ({**CSV, "path": "*/labels.csv"}, "path: no file fits data/raw/avatars/*/labels.csv; give a path or pattern"),
        ({**CSV, "path": "/*.csv"}, "path: must be relative to data/raw/NAME and stay in it"),
        ({**CSV, "path": "train"}, "path: data/raw/avatars/train is a folder; give the file in it within data/raw"),
        ({**LONG, "path": "l.csv"}, "path: data/raw/avatars/l.csv does not exist; give a path within data/raw/avatars"),
        (CELEBA, "path: data/raw/avatars/list_attr_celeba.txt does not exist"),
        ({**PROBE, "annotations": CSV}, "annotations.path: data/raw/avatars/l.csv does not exist"),
        (
            {**PROBE, "annotations": {**CSV, "path": "*/metadata.csv"}, "weights": "./none.pt"},
            "weights: ./none.pt does",
        ),
    ],
)
def test_annotations_must_be_there(tmp_path: Path, source: dict[str, Any], line: str | None) -> None:
    (tmp_path / "data/raw/avatars/train").mkdir(parents=True)
    (tmp_path / "data/raw/avatars/train/metadata.csv").touch()
    found = lines_of(tmp_path, label={"source": source, "attributes": {"hat": COLUMN, "dark_skin": COLUMN}})
    assert len(found) == (line is not None)
    assert all(f.startswith(f"label.source.{line}") for f in found)


NAMES = {"kind": "names", "pattern": r"(?P<hat>\d)_(?P<dark_skin>\d)"}
JSON = {"kind": "json", "path": "l.json", "file_column": None, "per_picture": False}
IN_PARQUET = {"kind": "parquet", "path": "l.parquet", "image_column": None}
ALONE = {"ingest__source": {"kind": "folder"}, "evaluate__counterfactuals": False}


@pytest.mark.parametrize(
    ("source", "line"),
    [
        (NAMES, None),
        ({**NAMES, "pattern": "("}, "source.pattern: invalid regular expression: missing ): (; it is written as RE2"),
        (
            {**NAMES, "pattern": r"(?P<hat>\d)(?=_)"},
            "source.pattern: invalid regular expression: invalid perl operator",
        ),
        (
            {**NAMES, "pattern": r"(?P<hat>\d)(_)"},
            "source.pattern: has a group without a name; write (?P<name>...), or",
        ),
        ({**NAMES, "pattern": r"\d"}, "source.pattern: names no group; write what is to be a column as (?P<name>...)"),
        ({**NAMES, "pattern": "(?P<hat>a)(?P<hat>b)"}, "source.pattern: has two groups named hat; rename one"),
        ({**NAMES, "pattern": "(?P<hats>a)(?P<dark_skin>b)"}, "attributes.hat.column: there is no 'hat', did you mean"),
        (JSON, None),
        ({**JSON, "per_picture": True, "file_column": "f"}, "source.file_column: must be null with per_picture: true"),
        ({**JSON, "path": "none.json"}, "source.path: data/raw/avatars/none.json does not exist"),
        ({"kind": "imagefolder"}, "source.kind: no file fits data/raw/avatars/**/metadata.*; give a path or pattern"),
        ({"kind": "pairs", "path": "l.json"}, "attributes.dark_skin.column: there is no 'dark_skin'; there are value"),
        ({"kind": "webdataset", "path": "*.tar"}, "source.path: no file fits data/raw/avatars/*.tar"),
        (
            IN_PARQUET,
            "source: kind parquet has the columns beside pictures in Parquet files; set ingest.source to kind",
        ),
        ({**PROBE, "annotations": IN_PARQUET}, "source.annotations: kind parquet has the columns beside pictures"),
        ({**PROBE, "annotations": NAMES}, None),
        ({"kind": "parquets"}, "source.kind: there is no kind 'parquets', did you mean 'parquet'?"),
    ],
)
def test_mistake_about_labels_in_other_forms_is_one_line(
    tmp_path: Path, source: dict[str, Any], line: str | None
) -> None:
    (tmp_path / "data/raw/avatars").mkdir(parents=True)
    for name in ("l.json", "l.parquet"):
        (tmp_path / "data/raw/avatars" / name).touch()
    found = lines_of(tmp_path, label={"source": source, "attributes": {"hat": COLUMN, "dark_skin": COLUMN}}, **ALONE)
    assert (line is None) == (found == [])
    assert line is None or found[0].startswith(f"label.{line}")


def test_column_of_pictures_is_the_same_for_images_and_labels(tmp_path: Path) -> None:
    (tmp_path / "data/raw/avatars").mkdir(parents=True)
    (tmp_path / "data/raw/avatars/l.parquet").touch()
    label = {"source": IN_PARQUET, "attributes": {"hat": COLUMN, "dark_skin": COLUMN}}
    assert lines_of(tmp_path, label=label, **{**ALONE, "ingest__source": IN_PARQUET}) == []
    (line,) = lines_of(tmp_path, label=label, **{**ALONE, "ingest__source": {**IN_PARQUET, "image_column": "photo"}})
    assert line == (
        "label.source.image_column: is None, but that of ingest.source is photo, and pictures are named by it; write "
        "the same"
    )


@pytest.mark.parametrize(
    ("groups", "line"),
    [
        ({"source": NAMES, "column": "hat"}, None),
        ({"source": {"kind": "folders"}, "column": "folder_2"}, None),
        (
            {"source": {"kind": "folders"}, "column": "folders"},
            ".column: is 'folders', must be folder, or folder_1 for",
        ),
        ({"source": NAMES, "column": "hut"}, ".column: there is no 'hut', did you mean 'hat'?"),
        ({"source": CSV, "column": "who"}, ".source.path: data/raw/avatars/l.csv does not exist"),
        (
            {"source": CSV, "column": "file"},
            ".column: 'file' is the column of file names; name the one with the values",
        ),
        ({"source": {**JSON, "per_picture": True, "file_column": "f"}, "column": "f"}, ".source.file_column: must be"),
        ({"source": IN_PARQUET, "column": "who"}, ".source: kind parquet has the columns beside pictures in Parquet"),
        ({"source": CELEBA, "column": "who"}, ".source.kind: there is no kind 'celeba'; there are csv, folders,"),
        ({"column": "who"}, ".source: is missing"),
    ],
)
def test_mistake_about_groups_is_one_line(tmp_path: Path, groups: dict[str, Any], line: str | None) -> None:
    (tmp_path / "data/raw/avatars").mkdir(parents=True)
    for name in ("l.json", "l.parquet"):
        (tmp_path / "data/raw/avatars" / name).touch()
    label = {"source": NAMES, "attributes": {"hat": COLUMN, "dark_skin": COLUMN}}
    split = {"val": 0.2, "test": 0.2, "groups": groups}
    found = lines_of(tmp_path, label=label, ingest__split=split, **ALONE)
    assert (line is None) == (found == [])
    assert line is None or found[0].startswith(f"ingest.split.groups{line}")


def test_groups_are_not_for_drawn_faces(tmp_path: Path) -> None:
    split = {"val": 0.2, "test": 0.2, "groups": {"source": NAMES, "column": "hat"}}
    assert lines_of(tmp_path, ingest__split=split) == ["ingest.split.groups: avatars have no files; leave it out"]


def test_what_stages_depend_on_stays_as_it_was_without_younger_keys(project: Path) -> None:
    values = resolved(load_params(project, check_files=False).dataset("avatars"), project)
    assert values["ingest"]["split"] == {"val": 0.3, "test": 0.3}
    remote = RemoteSource(kind="remote", url="s3://bucket/x")
    assert remote.model_dump(mode="json") == {"kind": "remote", "url": "s3://bucket/x"}


def test_limits_of_the_fit_are_checked(tmp_path: Path) -> None:
    assert lines_of(tmp_path, boundary__balance=True, boundary__max_per_class=2) == []
    (line,) = lines_of(tmp_path, boundary__max_per_class=1)
    assert line == "boundary.max_per_class: input should be greater than or equal to 2 (got 1)"


def test_paper_mode_wants_both_spaces_and_one_attribute_an_edit(tmp_path: Path) -> None:
    two = {"both": {"hat": "flip", "dark_skin": "add"}}
    assert lines_of(tmp_path, edit__edits=two, boundary__spaces=["eps"]) == []
    space, edit = lines_of(
        tmp_path, paper_mode=True, edit__method="single_step", edit__edits=two, boundary__spaces=["eps"]
    )
    assert space.startswith("boundary.spaces: has no h; paper_mode moves in both spaces")
    assert edit.startswith("edit.edits.both: has 2 attributes; paper_mode edits one at a time")


def test_longest_path_bounds_the_steps_where_the_mixing_step_is_searched(tmp_path: Path) -> None:
    changes = {"mixing__rule": "radius", "mixing__min_t": 10, "mixing__max_t": 20}
    assert lines_of(tmp_path, **changes, invert__num_steps=21) == []
    (line,) = lines_of(tmp_path, **changes, invert__num_steps=22)
    assert line.startswith("invert.num_steps: is 22, but from 0 to mixing.max_t (20) there are 21 timesteps")


def test_values_that_need_no_held_out_images_are_accepted(tmp_path: Path) -> None:
    assert lines_of(tmp_path, ingest__split={"val": 0.2, "test": 0}, edit__split="val") == []


def test_csv_needs_its_file_and_greyscale_folder_a_model_of_its_kind(tmp_path: Path) -> None:
    (tmp_path / "data/raw/avatars").mkdir(parents=True)
    (tmp_path / "data/raw/avatars/l.csv").write_text("file,hat,dark_skin\n")
    folder = {"ingest__source": {"kind": "folder"}, "evaluate__counterfactuals": False}
    label = {"source": CSV, "attributes": {"hat": {"column": None}, "dark_skin": {"column": None}}}
    assert lines_of(tmp_path, label=label, **folder) == []
    assert lines_of(tmp_path, label=label, **folder, ingest__channels=1) == [
        "ingest.channels: is 1, but data/pretrained/tiny (model) is for 3; set it to 3"
    ]
    (line,) = lines_of(tmp_path, **folder)
    assert line.startswith("label.source: kind is 'avatars', which knows faces of ingest.source kind avatars only")
    (line,) = lines_of(tmp_path, label=label, ingest__source={"kind": "folder"})
    assert line.startswith("evaluate.counterfactuals: is true, must be false unless ingest.source is of kind avatars")


@pytest.fixture
def judges(tmp_path: Path) -> Path:
    """A judge of 16 x 16 x 3 that knows hats."""
    config = {"channels": 3, "widths": [8], "image_size": 16, "num_outputs": 1}
    net = JudgeNet(3, [8], 16, 1, "classify")
    save_judge(tmp_path / JUDGES, "classify", net, config, ["hat"])
    return tmp_path


def test_judges_that_suit_the_edits_are_accepted(judges: Path) -> None:
    assert lines_of(judges, evaluate__judges=JUDGES) == []  # `dark` goes unjudged: evaluate leaves those metrics out
    both = {"both": {"hat": "flip", "dark_skin": "add"}}
    (line,) = lines_of(judges, evaluate__judges=JUDGES, edit__edits=both)
    assert line.startswith(f"edit.edits.both: {JUDGES} does not judge 'dark_skin', only the rest of the edit; split")
    (line,) = lines_of(judges, evaluate__judges=JUDGES, edit__edits={"dark": {"dark_skin": "add"}})
    assert line == f"evaluate.judges: {JUDGES} judges hat, and no edit changes any of these; give null"


def test_judges_of_another_size_are_refused(judges: Path) -> None:
    config = {"channels": 1, "widths": [8], "image_size": 32, "num_outputs": 2}
    save_judge(judges / JUDGES, "embed", JudgeNet(1, [8], 32, 2, "embed"), config, [])
    where = f"{JUDGES}/identity.safetensors (evaluate.judges)"
    assert lines_of(judges, evaluate__judges=JUDGES) == [
        f"ingest.image_size: is 16, but {where} is for 32; give others, or null",
        f"ingest.channels: is 3, but {where} is for 1; give others, or null",
    ]


def test_folder_without_judges_or_with_a_damaged_one_is_refused(judges: Path) -> None:
    (judges / JUDGES / "attributes.safetensors").write_bytes(b"x" * 100)
    (line,) = lines_of(judges, evaluate__judges=JUDGES)
    assert line.startswith(f"evaluate.judges: {JUDGES}/attributes.safetensors is damaged, or not a judge")
    (judges / JUDGES / "attributes.safetensors").unlink()
    (line,) = lines_of(judges, evaluate__judges=JUDGES)
    assert line.startswith(f"evaluate.judges: {JUDGES} has no attributes.safetensors")


def test_declared_judge_is_opened_and_held_against_the_edits_and_pictures(judges: Path) -> None:
    folder = judges / JUDGES
    channel_means(folder)
    declare(folder, "dark", attributes={"dark_skin": 0})
    both = {"both": {"hat": "flip", "dark_skin": "add"}}
    assert lines_of(judges, evaluate__judges=JUDGES, edit__edits=both) == []  # one judges hats, the other skin
    (folder / "attributes.safetensors").unlink()
    (line,) = lines_of(judges, evaluate__judges=JUDGES, edit__edits=both)
    assert line.startswith(f"edit.edits.both: {JUDGES} does not judge 'hat'")
    declare(folder, "dark", attributes={"dark_skin": 0}, image_size=64)
    (line,) = lines_of(judges, evaluate__judges=JUDGES)
    assert line.startswith("ingest.image_size: is 16, but ")
    assert line.endswith("dark.judge.json (evaluate.judges) is for 64; give others, or null")
    declare(folder, "dark", attributes={"dark_skin": 3})
    (line,) = lines_of(judges, evaluate__judges=JUDGES)
    assert line.startswith("evaluate.judges: ")
    assert line.endswith("attributes names output 3, but the network has 0 to 2")
    declare(folder, "dark", kind="embed", activation=None, attributes=None, distance="l2", threshold=1)
    (line,) = lines_of(judges, evaluate__judges=JUDGES)
    assert line.startswith(f"evaluate.judges: {JUDGES} has no attributes.safetensors, and declares no classifier")


@pytest.mark.parametrize("case", ["names_5", "names_fewer", "names_numbers"])
def test_judge_whose_names_are_not_those_of_its_outputs_is_refused(judges: Path, case: str) -> None:
    (judges / JUDGES / "attributes.safetensors").write_bytes(HOSTILE_JUDGES[case]())
    (line,) = lines_of(judges, evaluate__judges=JUDGES)
    assert line.startswith(f"evaluate.judges: {JUDGES}/attributes.safetensors is damaged, or not a judge")


def test_config_that_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / "net").mkdir()
    os.mkfifo(tmp_path / "net/config.json")
    (line,) = lines_of(tmp_path, model="net")
    assert line.startswith("model: net does not say its image size")


def test_mistyped_path_of_a_model_is_not_taken_for_a_hub_id(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (line,) = lines_of(tmp_path, model="models/nte")
    assert line == "model: models/nte does not exist; give an existing path, or a hub id like owner/name"


def test_mask_asks_for_a_segmenter_that_knows_the_parts(judges: Path) -> None:
    file = f"{JUDGES}/segmenter.safetensors"
    mask = {"segmenter": file, "parts": {"hat": ["hair", "hat"]}, "grow": 2}
    (line,) = lines_of(judges, edit__mask=mask)
    assert line == f"edit.mask.segmenter: {file} is not a file; give a segmenter, or set edit.mask to null"
    config = {"channels": 3, "widths": [8], "image_size": 16, "num_parts": 2}
    save_judge(judges / JUDGES, "segment", SegmenterNet(3, [8], 2), config, ["rest", "hair"])
    (line,) = lines_of(judges, edit__mask=mask)
    assert line.startswith(f"edit.mask.parts.hat: {file} knows no part 'hat'")
    assert lines_of(judges, edit__mask={**mask, "parts": {"hat": ["hair"]}}) == []
    (line,) = lines_of(judges, edit__mask={**mask, "parts": {"wig": ["hair"]}})
    assert line.startswith("edit.mask.parts: attribute 'wig' is labelled by nobody")
    (line,) = lines_of(judges, edit__mask={**mask, "parts": {"hat": []}})
    assert line == "edit.mask.parts.hat: names no part; name some, or remove it to change anything"
    (line,) = lines_of(judges, edit__mask={**mask, "parts": {"hat": ["hair"]}}, edit__method="single_step")
    assert line.startswith("edit.mask: is for edit.method guided only")
    wrong = {**mask, "parts": {"hat": ["hair"]}, "segmenter": f"{JUDGES}/attributes.safetensors"}
    (line,) = lines_of(judges, edit__mask=wrong)
    assert line.startswith(
        f"edit.mask.segmenter: {JUDGES}/attributes.safetensors judges (classify), must be a segmenter"
    )


def test_checking_the_shipped_files_does_not_load_torch() -> None:
    code = "import sys\nfrom boundaryflow.config import load_params\nload_params()\nassert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_all_mistakes_are_told_at_once(project: Path, tmp_path: Path) -> None:
    folder = with_change(project, tmp_path, A + "edit.eta", 2)
    params = yaml.safe_load((folder / "params.yaml").read_text())
    params["run_seed"] = "x"
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    with pytest.raises(ParamsError) as caught:
        load_params(folder)
    assert len(str(caught.value).splitlines()) == 2


@pytest.mark.parametrize(
    ("address", "is_good"),
    [
        ("s3://key:se/cret@bucket/x", False),
        ("s3://key:se#cret@bucket/x", False),
        ("s3://key:/secret@bucket/x", False),
        ("http://me:se?cret@host", False),
        ("http://me:se cret@host", False),
        ("http://m e:secret@host", False),
        ("zip://a.png::http://me:se/cret@host/x.zip", False),
        ("s3://key:se%2Fcret@bucket/x", True),
        ("s3://bucket/a@b/c", True),
        ("http://host:80/a@b", True),
        ("http://[::1]:80/a@b", True),
        ("zip://a.png::s3://key:secret@bucket/x.zip", True),
        ("zip://a.png::s3://bucket/a@b.zip", True),
    ],
)
def test_password_that_cuts_an_address_is_refused_and_not_shown(
    project: Path, tmp_path: Path, address: str, is_good: bool
) -> None:
    job = {"dataset": "avatars", "inbox": address, "outbox": "out/a", "edits": {"h": {"hat": "flip"}},
              "strengths": [1.0], "min_probability": None}  # fmt: skip
    folder = with_change(project, tmp_path, "bulk_edit", {"hats": job})
    assert bool(about_user(address)) is not is_good
    if is_good:
        load_params(folder)
        return
    with pytest.raises(
        ParamsError, match=r"bulk_edit\.hats\.inbox: its user part holds .* percent-encode it"
    ) as caught:
        load_params(folder)
    assert "cret" not in str(caught.value)
    with pytest.raises(ManifestError, match="percent-encode it") as refused:
        open_remote(address, "inbox")
    assert "cret" not in str(refused.value)
    (line,) = lines_of(tmp_path / "raw", ingest__source={"kind": "remote", "url": address})[:1]
    assert line.startswith("ingest.source.url: its user part holds /, #, ? or a blank")


def test_strengths_of_jobs_are_told_apart(project: Path, tmp_path: Path) -> None:
    job = {"dataset": "avatars", "inbox": "in", "outbox": "out/a", "edits": {"h": {"hat": "flip"}},
              "strengths": [1.0, 1.0000001], "min_probability": None}  # fmt: skip
    folder = with_change(project, tmp_path, "bulk_edit", {"hats": job})
    with pytest.raises(ParamsError, match=r"bulk_edit\.hats\.strengths: 1 occurs twice"):
        load_params(folder)
    with pytest.raises(ManifestError, match="edit: strength 1 is given twice .*; keep one"):
        check_strengths("edit", [1.0, 0.5, 1.0000001])


def test_missing_or_broken_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match="no such file; run the command in the folder that has it"):
        load_params(tmp_path)
    (tmp_path / "params.yaml").write_text("a: [1,\nb: 2")
    with pytest.raises(ParamsError, match="line 2: is not YAML"):
        load_params(tmp_path)


def test_unknown_data_set_names_the_known_ones(project: Path) -> None:
    with pytest.raises(ParamsError, match="data has no entry 'avatar', did you mean 'avatars'"):
        load_params(project).dataset("avatar")


def test_shipped_file_is_valid_and_its_second_data_set_can_be_switched_on(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    text = (ROOT / "params.yaml").read_text()
    path.write_text(text)
    (tmp_path / "data").symlink_to(ROOT / "data")
    assert load_params(tmp_path).datasets == ["faces"]
    activate_dataset(path, "digits")
    assert yaml.safe_load(path.read_text())["datasets"] == ["faces", "digits"]
    assert path.read_text().replace("[faces, digits]", "[faces]") == text


def test_list_over_several_lines_is_not_guessed_at(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("datasets:\n  - avatars\n")
    with pytest.raises(ParamsError, match="must be written on one line"):
        activate_dataset(path, "digits")


def checkpoint(folder: Path, name: str = "net.ckpt", **stated: int) -> str:
    """A DDPM checkpoint, by its tensors of 32 pixels."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(random_state(ddpm_layout(32, (1, 2), 1, (1,))), folder / name)
    if stated:
        (folder / f"{name}.json").write_text(json.dumps(stated))
    return name


def test_checkpoint_of_the_right_size_is_taken(tmp_path: Path) -> None:
    assert lines_of(tmp_path, model=checkpoint(tmp_path, image_size=16)) == []


def test_checkpoint_of_another_size_is_refused_before_a_run(tmp_path: Path) -> None:
    (line,) = lines_of(tmp_path, model=checkpoint(tmp_path, image_size=64))
    assert line == "ingest.image_size: is 16, but net.ckpt (model) is for 64; set it to 64"


def test_assumption_about_a_checkpoint_is_no_reason_to_contradict_what_is_stated(tmp_path: Path) -> None:
    """A guided-diffusion network that attends from 32 x 32 on is taken for half its size."""
    (line,) = lines_of(tmp_path, model=checkpoint(tmp_path))
    assert line == (
        "ingest.image_size: is 16, but nothing in net.ckpt (model) says the size of its images, and 32 was taken for "
        'granted; write the true one into net.ckpt.json, such as {"image_size": 16}; '
        "`boundaryflow inspect net.ckpt --try PICTURES` measures which fits"
    )


def test_checkpoint_that_cannot_be_used_is_refused_before_a_run(tmp_path: Path) -> None:
    (tmp_path / "net.ckpt").write_bytes(b"")
    (line,) = lines_of(tmp_path, model="net.ckpt")
    assert line.startswith("model: ")
    assert line.endswith("net.ckpt: the file is empty; fetch it again")


def test_function_of_the_users_own_must_be_there(tmp_path: Path) -> None:
    (line,) = lines_of(tmp_path, model="mine/net.py:make")
    assert line == "model: mine/net.py does not exist; give FILE.py:FUNCTION"


def test_params_file_that_is_changed_stays_a_link_with_its_mode_and_line_endings(tmp_path: Path) -> None:
    real, link = tmp_path / "shared.yaml", tmp_path / "params.yaml"
    real.write_bytes(b"datasets: [avatars]\r\ndata:\r\n  avatars: {}\r\n")
    real.chmod(0o640)
    link.symlink_to(real)
    (tmp_path / "digits.yaml").write_bytes(b"model: x\r\n")
    copy_entry(link, "digits", tmp_path / "digits.yaml")
    activate_dataset(link, "digits")
    assert link.is_symlink()
    assert real.stat().st_mode & 0o777 == 0o640
    assert real.read_bytes() == (
        b"datasets: [avatars, digits]\r\ndata:\r\n  avatars: {}\r\n\r\n  digits:\r\n    model: x\r\n"
    )


def test_folders_of_jobs_are_apart(project: Path, tmp_path: Path) -> None:
    one = {"dataset": "avatars", "inbox": "in", "outbox": "out/a", "edits": {"h": {"hat": "flip"}},
           "strengths": [1.0], "min_probability": None}  # fmt: skip
    params = yaml.safe_load((project / "params.yaml").read_text())
    (tmp_path / "data").symlink_to(project / "data")
    (tmp_path / "out").mkdir()
    (tmp_path / "way").symlink_to("out")
    for other, told in (
        ({"outbox": "out/a"}, r"bulk_edit\.two\.outbox: out/a is, holds or lies in bulk_edit\.one\.outbox"),
        ({"outbox": "way/a/deep"}, r"bulk_edit\.two\.outbox: .* bulk_edit\.one\.outbox"),
        ({"outbox": "in/x", "inbox": "in2"}, r"bulk_edit\.two\.outbox: in/x is, holds .* bulk_edit\.one\.inbox"),
    ):
        jobs = {"one": one, "two": {**one, **other}}
        (tmp_path / "params.yaml").write_text(yaml.safe_dump({**params, "bulk_edit": jobs}))
        with pytest.raises(ParamsError, match=told):
            load_params(tmp_path)
    jobs = {"one": one, "two": {**one, "outbox": "out/ab"}}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump({**params, "bulk_edit": jobs}))
    load_params(tmp_path)


def test_unknown_kind_is_told_with_the_one_that_was_meant(project: Path, tmp_path: Path) -> None:
    with_change(project, tmp_path, A + "label.source.kind", "clipp")
    with pytest.raises(ParamsError, match=r"label\.source\.kind: there is no kind 'clipp', did you mean 'clip'\?$"):
        load_params(tmp_path)


def test_source_without_a_kind_says_so(project: Path, tmp_path: Path) -> None:
    with_change(project, tmp_path, A + "ingest.source", {"url": "s3://bucket/x"})
    with pytest.raises(ParamsError, match=r"ingest\.source: must be a mapping with the key kind; docs/parameters\.md"):
        load_params(tmp_path)


def test_bad_default_is_told_though_every_data_set_overrides_it(project: Path, tmp_path: Path) -> None:
    with_change(project, tmp_path, "defaults", {"ingest": {"max_failed_items": -1, "shards": 2}})
    with pytest.raises(ParamsError) as refused:
        load_params(tmp_path, check_files=False)
    number, key = sorted(str(refused.value).splitlines())
    assert number.endswith("defaults.ingest.max_failed_items: input should be greater than or equal to 0 (got -1)")
    assert "defaults.ingest.shards: unknown key" in key


def test_mistyped_section_is_told_once_and_not_as_missing(project: Path, tmp_path: Path) -> None:
    folder = with_change(project, tmp_path, "defaults", {"edit": {"eta": 0.0}})
    params = yaml.safe_load((folder / "params.yaml").read_text())
    entry = params["data"]["avatars"]
    entry["edits"] = entry.pop("edit")
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    with pytest.raises(ParamsError) as refused:
        load_params(tmp_path, check_files=False)
    assert "data.avatars.edits: unknown key, did you mean 'edit'?" in str(refused.value).partition("\n")[0]
    assert "\n" not in str(refused.value)


def test_file_without_defaults_is_told_before_dvc_tells_it(project: Path, tmp_path: Path) -> None:
    with_change(project, tmp_path, "defaults", ...)
    with pytest.raises(ParamsError, match=r"defaults: is missing, and DVC needs it; write `defaults: \{\}`"):
        load_params(tmp_path)


def test_params_command_says_that_files_of_an_inactive_data_set_were_not_checked(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = yaml.safe_load((project / "params.yaml").read_text())["data"]["avatars"]
    with_change(project, tmp_path, "data.other", {**entry, "model": "data/pretrained/not_there"})
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dvc.yaml").write_text("stages: {}")
    other, active = (CliRunner().invoke(params_command, [name]) for name in ("other", "avatars"))
    assert "model: data/pretrained/not_there" in other.stdout
    assert "other is not in datasets: the files that it names were not checked" in other.stderr
    assert active.exit_code == 0
    assert not active.stderr


@pytest.mark.parametrize(
    ("method", "compare", "methods", "needed"),
    [
        ("guided", {"method": "single_step", "strengths": [2.0]}, {"guided": [1.0], "single_step": [2.0]}, True),
        ("guided", None, {"guided": [1.0]}, False),
        ("single_step", {"method": "single_step", "strengths": [2.0]}, {"single_step": [1.0]}, True),
        ("single_step", None, {"single_step": [1.0]}, True),
    ],
)
def test_single_step_is_needed_where_an_edit_is_one_or_is_compared_with_one(
    method: str, compare: dict[str, Any] | None, methods: dict[str, list[float]], needed: bool
) -> None:
    shipped = load_params(ROOT).dataset("avatars")
    edit = {**shipped.edit.model_dump(), "method": method, "compare": compare, "strengths": [1.0]}
    dataset = DatasetParams.model_validate({**shipped.model_dump(by_alias=True), "edit": edit})
    assert dataset.edit.methods == methods
    assert dataset.needs_single_step is needed
    assert resolved(dataset, ROOT)["needs"] == {"single_step": needed}
