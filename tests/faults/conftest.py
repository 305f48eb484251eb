"""The finished small project of the stages' tests."""

from __future__ import annotations

from tests.stages.conftest import finished, project  # noqa: F401 - fixtures
