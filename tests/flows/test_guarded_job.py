"""A run that falls short fails in Prefect, in one line, and a command delivers it all the same."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from flows import jobs, progress
from flows.cli import cli
from flows.progress import Board
from tests.conftest import ROOT
from tests.jobs.test_bulk_edit import arrive, ledger, set_job

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:prefect"),
    pytest.mark.usefixtures("prefect_server"),
    pytest.mark.timeout(300, func_only=True),
]


def test_run_that_falls_short_is_a_failed_flow_run_and_is_released_by_a_command(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect.client.orchestration import get_client

    arrive(project, 3)
    (project / "data/inbox/some/broken.jpg").write_text("no picture")
    set_job(project, strengths=[1.0], max_failed=0.1)
    (project / "dvc.yaml").write_text("stages: {}\n")
    monkeypatch.chdir(project)
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    monkeypatch.setattr(jobs.pipeline, "bring_up_to_date", lambda *_words: ([], []))
    progress.use(board := Board(project))
    jobs.call("bulk_edit", "some", project)
    (outcome,) = board.outcomes.values()
    assert (outcome.state, outcome.exit_code) == ("failed", 2)
    (folder,) = (project / "out/some.quarantine").iterdir()
    line = "bulk_edit some: share of failed files is 0.25 over 4 new files, must be at most 0.1; 3 pictures are in quar"
    assert outcome.error.startswith(line)
    with get_client(sync_client=True) as client:
        (run,) = [each for each in client.read_flow_runs(limit=20) if each.parameters == {"job": "some"}][:1]
    assert run.state is not None
    assert run.state.is_failed()
    assert line in str(run.state.message)
    command = ["bulk-edit", "some", "--release"]
    told = CliRunner().invoke(cli, [*command, "20200101-000000-000"])
    assert told.exit_code == 2
    assert f"is not in quarantine; there are {folder.name}" in told.stderr
    told = CliRunner().invoke(cli, [*command, folder.name])
    assert (told.exit_code, told.output) == (
        0,
        f"some: run {folder.name}: 3 pictures of 3 files delivered to out/some\n",
    )
    assert ledger(project)["face-0-0.png"] == ("delivered", "")
    for words in (["--again"], ["--inbox", "in"], ["--discard", "x"]):
        assert "goes with --outbox only" in CliRunner().invoke(cli, [*command, "x", *words]).stderr


def test_discard_of_an_unknown_job_is_one_line(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_job(project)
    (project / "dvc.yaml").write_text("stages: {}\n")
    monkeypatch.chdir(project)
    told = CliRunner().invoke(cli, ["bulk-edit", "sone", "--discard", "x"])
    assert told.exit_code == 2
    assert "bulk_edit has no job 'sone', did you mean 'some'?" in told.stderr
