"""What a job of bulk edits may expect, and ask of each picture, is checked when params.yaml is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from boundaryflow.config import load_params, quarantine_of
from boundaryflow.config.guard import condition_of
from boundaryflow.errors import ParamsError
from boundaryflow.evaluation.judges import JudgeNet, save_judge
from tests.small_project import write_project

_JOB = {
    "dataset": "avatars",
    "inbox": "in",
    "outbox": "out/a",
    "edits": {"h": {"hat": "flip"}},
    "strengths": [1.0],
    "min_probability": None,
}
_JUDGES = "data/pretrained/judges"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose judges know hats, and no faces."""
    folder = write_project(tmp_path_factory.mktemp("params"))
    config = {"channels": 3, "widths": [8], "image_size": 16, "num_outputs": 1}
    save_judge(folder / _JUDGES, "classify", JudgeNet(3, [8], 16, 1, "classify"), config, ["hat"])
    return folder


def lines_of(project: Path, judges: str | None = _JUDGES, **values: Any) -> list[str]:
    path = project / "params.yaml"
    params = yaml.safe_load(path.read_text())
    params["data"]["avatars"]["evaluate"]["judges"] = judges
    path.write_text(yaml.safe_dump({**params, "bulk_edit": {"some": {**_JOB, **values}}}))
    try:
        load_params(project)
    except ParamsError as error:
        return [line.removeprefix(f"{path}: bulk_edit.some.") for line in str(error).split("\n")]
    return []


def test_what_a_job_may_ask_for_is_accepted(project: Path) -> None:
    asked = {"alert_below": {"success": 0.6, "clean_success": 0.5, "ssim": 0.7}, "max_failed": 0.05}
    conditions = {"drift": "<0.1", "success": " >= 1", "ssim": ">.5", "probability": ">0.9"}
    assert lines_of(project, **asked, deliver_if=conditions, skip_duplicates=True) == []
    job = load_params(project).bulk_edit_job("some")
    assert job.expects
    assert job.measures == ["clean_success", "drift", "probability", "ssim", "success"]
    assert {name: str(of) for name, of in job.conditions.items()} == {
        "drift": "< 0.1",
        "success": ">= 1",
        "ssim": "> 0.5",
        "probability": "> 0.9",
    }


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"alert_below": {"sucess": 0.5}}, "alert_below.sucess: there is no measure 'sucess', did you mean 'success'?"),
        ({"deliver_if": {"lpips": "<1"}}, "deliver_if.lpips: there is no measure 'lpips'; there are clean_success, "),
        ({"alert_below": {"drift": 0.1}}, "alert_below.drift: is better the lower it is; use deliver_if, such as"),
        ({"alert_below": {"success": 60}}, "alert_below.success: is 60, must be in [-1, 1]"),
        ({"max_failed": 5}, "max_failed: input should be less than or equal to 1 (got 5)"),
        ({"deliver_if": {"drift": "0.1"}}, "deliver_if.drift: is '0.1', must be <, <=, > or >= and a number"),
        ({"deliver_if": {"drift": "<nan"}}, "deliver_if.drift: is '<nan', must be"),
        ({"deliver_if": {"drift": 0.1}}, "deliver_if.drift: input should be a valid string; write it in quotes"),
        ({"alert_bellow": {}}, "alert_bellow: unknown key, did you mean 'alert_below'?"),
        ({"max_failed": 0.1, "outbox": "s3://bucket"}, "outbox s3://bucket: has no place beside it for a quarantine"),
    ],
    ids=["measure", "unknown", "drift", "percent", "share", "no sign", "nan", "number", "key", "bucket"],
)
def test_mistake_is_one_line(project: Path, values: dict[str, Any], line: str) -> None:
    (told,) = lines_of(project, **values)
    assert told.startswith(line)


def test_measures_that_the_judges_cannot_take_are_refused(project: Path) -> None:
    (line,) = lines_of(project, None, alert_below={"success": 0.5, "identity": 0.5}, deliver_if={"ssim": ">0.5"})
    assert line.startswith(
        "alert_below.identity: is measured by judges, and data.avatars.evaluate.judges is null; name"
    )
    (line,) = lines_of(project, deliver_if={"identity": ">0.5"})
    assert (
        line
        == f"deliver_if.identity: the judges in {_JUDGES} have no face recognition; name others, or leave identity out"
    )
    (line,) = lines_of(project, deliver_if={"same_person": ">0.5"})
    assert "have no face recognition with a threshold" in line
    (line,) = lines_of(project, edits={"d": {"dark_skin": "add"}}, deliver_if={"drift": "<0.5"})
    assert f"the judges in {_JUDGES} do not know the edited 'dark_skin'" in line


def test_quarantine_is_apart_from_other_folders_of_jobs(project: Path) -> None:
    (line,) = lines_of(project, max_failed=0.1, inbox="out/a.quarantine")
    assert "the quarantine of bulk_edit.some.outbox: out/a.quarantine is, holds or lies in bulk_edit.some.inbox" in line
    assert lines_of(project, inbox="out/a.quarantine") == [], "a job that expects nothing has none"


@pytest.mark.parametrize(
    ("outbox", "folder"),
    [
        ("out/a/", "out/a.quarantine"),
        ("/srv/out", "/srv/out.quarantine"),
        ("s3://bucket/some/where/", "s3://bucket/some/where.quarantine"),
    ],
)
def test_quarantine_lies_beside_the_outbox(outbox: str, folder: str) -> None:
    assert quarantine_of(outbox) == folder


@pytest.mark.parametrize("outbox", ["/", ".", "..", "out/..", "s3://bucket/"])
def test_outbox_without_a_place_beside_it_is_refused(outbox: str) -> None:
    with pytest.raises(ParamsError, match="has no place beside it"):
        quarantine_of(outbox)


def test_condition_is_a_sign_and_a_number() -> None:
    assert str(condition_of(">0.60")) == "> 0.6"
    for text in ("", ">", "0.5", "=0.5", "> 1 2", ">1e999", "><1", ">0.5 or <0.2"):
        assert condition_of(text) is None
