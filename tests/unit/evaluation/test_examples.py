"""The examples in docstrings of public metrics give the numbers that they state."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil

import pytest

from boundaryflow import evaluation

MODULES = [f"boundaryflow.evaluation.{found.name}" for found in pkgutil.iter_modules(evaluation.__path__)]
METRICS = ("attributes", "counterfactual", "directional", "distribution", "intervals", "structure")


@pytest.mark.parametrize("name", MODULES)
def test_examples_give_the_numbers_that_they_state(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name)).failed == 0


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_has_an_example(name: str) -> None:
    module = importlib.import_module(f"boundaryflow.evaluation.{name}")
    functions = inspect.getmembers(module, inspect.isfunction)
    public = {at: f for at, f in functions if f.__module__ == module.__name__ and not at.startswith("_")}
    assert public
    assert not [at for at, function in public.items() if ">>> " not in (function.__doc__ or "")]
