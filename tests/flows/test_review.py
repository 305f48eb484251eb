"""`boundaryflow review` as a process: what it serves, to whom, and how it ends."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from boundaryflow.errors import ManifestError, ParamsError, PipelineError
from flows.review import check_reviewable, serve_review
from tests.small_project import environment, write_project
from tests.unit.review.conftest import write_run


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with the data set `avatars` and jobs of it, and a finished run of `toy`."""
    write_project(tmp_path)
    with (tmp_path / "params.yaml").open("a") as file:
        file.write(
            "bulk_edit: {glasses: {dataset: avatars, inbox: in, outbox: out/x, edits: {hat: {hat: flip}}, "
            "strengths: [1.0], min_probability: null}}\n"
        )
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    write_run(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_page_is_served_at_the_printed_address_until_it_is_stopped(checkout: Path) -> None:
    code = (
        "from pathlib import Path; from flows.review import say, serve_review; "
        "raise SystemExit(serve_review(Path(), 'toy', 0, say))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stderr=subprocess.PIPE, text=True, env=environment()
    ) as process:
        assert process.stderr is not None
        try:
            address = process.stderr.readline().split()[-1]
            host, token = address.rsplit("/", 2)[:2]
            assert httpx.get(f"{address}api/facts").json()["dataset"] == "toy"
            assert httpx.get(f"{host}/guess/api/facts").status_code == 404
            assert httpx.get(f"{address}api/facts", headers={"Host": "evil.example"}).status_code == 403
            assert host.startswith("http://127.0.0.1:")
            assert len(token) >= 32
        finally:
            process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
        assert process.stderr.read() == ""  # no access log, which would hold the secret


def test_what_cannot_be_reviewed_is_one_line(checkout: Path) -> None:
    check_reviewable(checkout, "avatars")
    with pytest.raises(ParamsError, match=r"review glasses: is a job of bulk_edit, .*: boundaryflow review avatars"):
        check_reviewable(checkout, "glasses")
    with pytest.raises(ParamsError, match="no entry 'avatar'"):
        check_reviewable(checkout, "avatar")
    with pytest.raises(ManifestError, match="nothing was edited yet; run `boundaryflow run --dataset avatars` first"):
        serve_review(checkout, "avatars", 0, print)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(PipelineError, match="is in use by another program; choose another with --port$"):
            serve_review(checkout, "toy", taken.getsockname()[1], print)
