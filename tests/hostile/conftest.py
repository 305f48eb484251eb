"""One process to fork from, and projects to attack."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hostile.harness import Harness


@pytest.fixture(scope="session")
def harness() -> Iterator[Harness]:
    running = Harness()
    yield running
    running.close()


@pytest.fixture
def project(finished: Path, tmp_path: Path) -> Path:
    """A project whose stages have run."""
    from tests.stages.small_project import copy_project

    return copy_project(finished, tmp_path / "project")
