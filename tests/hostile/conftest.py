"""One process to fork from, and projects to attack."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.hostile.harness import Harness


@pytest.fixture(scope="session")
def harness() -> Iterator[Harness]:
    running = Harness()
    yield running
    running.close()
