"""Copies of a project whose stages have run."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.stages.s3 import s3, s3_server  # noqa: F401 - fixtures
from tests.stages.small_project import copy_project


@pytest.fixture
def project(finished: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return copy_project(finished, tmp_path / "project")
