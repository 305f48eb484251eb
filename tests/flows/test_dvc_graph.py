from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from boundaryflow.errors import PipelineError
from flows.cli import cli
from flows.dvc_graph import has_remote, plan
from tests.flows.toy import QUIET_DVC
from tests.hostile.corpus_serve import CASES

pytestmark = pytest.mark.filterwarnings(QUIET_DVC)


def test_plan_fresh_checkout_lists_stages_in_an_order_that_runs(toy: Path) -> None:
    steps = plan(toy)
    names = [step.name for step in steps]
    assert sorted(names) == ["first@toy", "second@toy", "side@toy", "third@toy"]
    for step in steps:
        assert all(names.index(name) < names.index(step.name) for name in step.upstream)
    assert {step.reason for step in steps} == {"never run"}
    assert steps[0].outs == ("data/first/toy",)
    assert (steps[0].kind, steps[0].dataset) == ("first", "toy")


def test_plan_stage_target_keeps_what_it_reads_from(toy: Path) -> None:
    assert [step.name for step in plan(toy, stages=["second"])] == ["first@toy", "second@toy"]
    assert [step.name for step in plan(toy, datasets=["toy"], stages=["side@toy"])] == ["first@toy", "side@toy"]


def test_plan_after_a_change_gives_dvcs_reason_and_marks_what_follows(half_done: Path) -> None:
    reasons = {step.name: step.reason for step in plan(half_done)}
    assert reasons == {
        "first@toy": "",
        "second@toy": "changed deps: params.yaml length",
        "side@toy": "never run",
        "third@toy": "second@toy will run",
    }


@pytest.mark.parametrize(
    ("datasets", "stages", "text"),
    [((), ("secnd",), "did you mean 'second'"), (("faces",), (), "no stage for data set 'faces'")],
    ids=["stage", "dataset"],
)
def test_plan_unknown_name_is_refused(toy: Path, datasets: tuple[str, ...], stages: tuple[str, ...], text: str) -> None:
    with pytest.raises(PipelineError, match=text):
        plan(toy, datasets, stages)


def test_plan_without_dvc_says_how_to_begin(tmp_path: Path) -> None:
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    with pytest.raises(PipelineError, match="dvc init"):
        plan(tmp_path)


def test_plan_broken_dvc_yaml_is_one_line(toy: Path) -> None:
    (toy / "dvc.yaml").write_text("stages:\n  a:\n    cmd: echo ${nothing}\n")
    with pytest.raises(PipelineError, match="nothing") as caught:
        plan(toy)
    assert "\n" not in str(caught.value)


def test_has_remote_only_after_one_was_added(toy: Path, tmp_path: Path) -> None:
    assert not has_remote(toy)
    subprocess.run(
        [sys.executable, "-m", "dvc", "remote", "add", "-q", "-d", "s", str(tmp_path / "s")], cwd=toy, check=True
    )
    assert has_remote(toy)


def test_params_keys_that_dvcs_run_cache_overlooks_are_not_used() -> None:
    """DVC leaves every key `size` and `nfiles` out of the run-cache's hash, also a parameter of that name."""
    path = Path(__file__).parents[2] / "params.yaml"

    def keys(content: object) -> set[str]:
        if isinstance(content, dict):
            return {str(key) for key in content} | {key for value in content.values() for key in keys(value)}
        return set()

    assert not keys(yaml.safe_load(path.read_text())) & {"size", "nfiles"}


@pytest.mark.parametrize("name", ["params.yaml", "dvc.yaml", "dvc.lock"])
def test_merge_conflict_is_told_with_its_line(half_done: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = half_done / name
    path.write_text("a: 1\n<<<<<<< HEAD\nb: 1\n=======\nb: 2\n>>>>>>> theirs\n")
    with pytest.raises(PipelineError, match=rf"{name}: merge conflict in line 2; .*, then `boundaryflow run`"):
        plan(half_done)
    monkeypatch.chdir(half_done)
    result = CliRunner().invoke(cli, ["doctor"])
    assert result.exit_code == 2
    assert result.stderr.startswith(f"PipelineError: {path}: merge conflict in line 2; ")


def test_lock_that_is_no_file_is_refused_and_not_waited_for(toy: Path) -> None:
    CASES["fifo_lock"](toy)
    with pytest.raises(PipelineError, match=r"dvc\.lock: a FIFO, not a regular file"):
        plan(toy)


def test_checkout_without_git_is_told_the_way_out_and_works_by_it(toy: Path) -> None:
    shutil.rmtree(toy / ".git")
    with pytest.raises(
        PipelineError, match=r"not a git repository \(an unpacked archive .*`git init && .*core\.no_scm"
    ):
        plan(toy)
    (toy / ".dvc/config.local").write_text("[core]\n    no_scm = true\n")
    assert len(plan(toy)) == 4


def test_braces_in_the_path_which_dvc_cannot_do_are_refused(toy: Path) -> None:
    root = toy.rename(toy.with_name("%s{0}"))
    with pytest.raises(
        PipelineError, match=r"%s\{0\}: DVC fails where the path of a checkout has \{ or \} in it; move"
    ):
        plan(root)
