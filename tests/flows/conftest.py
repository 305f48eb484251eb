"""A toy checkout to copy, and one Prefect test server for all flow tests."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows import environment, processes, progress
from tests.flows.toy import make_checkout


@pytest.fixture(scope="session")
def toy_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkout(tmp_path_factory.mktemp("toy") / "checkout")


@pytest.fixture
def toy(toy_template: Path, tmp_path: Path) -> Path:
    """A checkout in which no stage has run."""
    return Path(shutil.copytree(toy_template, tmp_path / "checkout"))


@pytest.fixture(scope="session")
def half_done_template(toy_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = Path(shutil.copytree(toy_template, tmp_path_factory.mktemp("toy") / "checkout"))
    subprocess.run([sys.executable, "-m", "dvc", "repro", "-q", "third@toy"], cwd=root, check=True)
    return root


@pytest.fixture
def half_done(half_done_template: Path, tmp_path: Path) -> Path:
    """A checkout in which first, second and third have run, and then a parameter of second was changed."""
    root = Path(shutil.copytree(half_done_template, tmp_path / "checkout"))
    (root / "params.yaml").write_text("length: 2\n")
    return root


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a test server; flows of this process use it."""
    before = dict(os.environ)
    environment.prepare(tmp_path_factory.mktemp("prefect"))
    os.environ.pop("PREFECT_API_URL", None)
    os.environ["BOUNDARYFLOW_RETRY_DELAY_S"] = "0.1"
    from prefect.settings import PREFECT_API_URL
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=600):
        yield str(PREFECT_API_URL.value())
    for name in set(os.environ) - set(before):
        del os.environ[name]
    os.environ.update(before)


@pytest.fixture(autouse=True)
def _fresh_run_state() -> Iterator[None]:
    processes.reset()
    progress.forget()
    yield
    processes.stop_all()
    processes.reset()
