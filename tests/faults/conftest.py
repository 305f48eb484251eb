"""The finished small project of the stages' tests, and the tally of what was tried on it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.tally import Tally


@pytest.fixture(scope="session")
def tally() -> Iterator[Tally]:
    """Counts per fault; written to the file that FAULTS_RESULT names."""
    kept = Tally()
    yield kept
    path = os.environ.get("FAULTS_RESULT")
    if path:
        Path(path).write_text(json.dumps(kept.rows, indent=2) + "\n")
