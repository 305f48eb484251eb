"""The examples in docstrings of public metrics give the numbers that they state."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil

import pytest

from boundaryflow import evaluation

MODULES = [f"boundaryflow.evaluation.{found.name}" for found in pkgutil.iter_modules(evaluation.__path__)]


@pytest.mark.parametrize("name", MODULES)
def test_examples_give_the_numbers_that_they_state(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name)).failed == 0


@pytest.mark.parametrize("name", [name for name in evaluation.__all__ if inspect.isfunction(getattr(evaluation, name))])
def test_every_metric_has_an_example(name: str) -> None:
    if not name.startswith("load_"):
        assert ">>> " in (getattr(evaluation, name).__doc__ or "")
