"""A project whose stages have run, made once for all tests of the stages."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.stages.s3 import s3, s3_server  # noqa: F401 - fixtures
from tests.stages.small_project import STAGES, copy_project, run_here, write_project


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose stages have run, up to the evaluation. Not to be changed: copy it."""
    folder = write_project(tmp_path_factory.mktemp("project"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BOUNDARYFLOW_PROGRESS", "off")
        run_here(folder, patch, *STAGES, "evaluate")
    return folder


@pytest.fixture
def project(finished: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return copy_project(finished, tmp_path / "project")
