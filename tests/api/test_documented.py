"""The examples of the API give what they say, its names are stable, and importing it loads nothing."""

from __future__ import annotations

import doctest
import re
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import yaml

import boundaryflow
from boundaryflow.api.boundary import NUM_STEPS, T_MAX
from boundaryflow.api.editor import GUIDANCE
from boundaryflow.jobs import edit_images
from boundaryflow.jobs.bundle import write_bundle
from tests.conftest import ROOT


def test_examples_of_the_page_give_what_they_say(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    write_bundle("avatars", Path("out/bundle/avatars"), with_model=True)
    for name in ("avatars64", "avatars64_clip"):
        (project / "data/pretrained" / name).symlink_to(ROOT / "data/pretrained" / name)
    text = re.sub(r"^```.*$", "", (ROOT / "docs/api.md").read_text(), flags=re.MULTILINE)
    examples = doctest.DocTestParser().get_doctest(text, {}, "docs/api.md", None, 0)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    runner.run(examples)
    assert runner.failures == 0
    assert runner.tries > 25


def test_examples_in_docstrings_give_what_they_say() -> None:
    for module in (boundaryflow, edit_images):
        result = doctest.testmod(module)
        assert result.attempted > 0
        assert result.failed == 0


def test_stable_names_are_there_and_no_others() -> None:
    assert boundaryflow.__all__ == [
        "Boundary",
        "Editor",
        "Item",
        "PipelineError",
        "Run",
        "load",
        "load_model",
        "open",
    ]
    assert set(boundaryflow.__all__) == set(boundaryflow._HOMES)
    for name in boundaryflow.__all__:
        assert getattr(boundaryflow, name).__doc__
        assert f"bf.{name}" in (ROOT / "docs/api.md").read_text()
    assert set(boundaryflow.__all__) <= set(dir(boundaryflow))
    with pytest.raises(AttributeError, match=r"has no attribute 'edit'; there are Boundary, .*, open$"):
        boundaryflow.edit  # noqa: B018


def test_import_is_cheap() -> None:
    code = (
        "import sys, boundaryflow\n"
        "loaded = {name.partition('.')[0] for name in sys.modules} & {'torch', 'numpy', 'pydantic', 'yaml', 'PIL'}\n"
        "assert not loaded, loaded\n"
        "assert [name for name in sys.modules if name.startswith('boundaryflow')] == ['boundaryflow']"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_defaults_are_those_of_params_yaml() -> None:
    defaults = yaml.safe_load((ROOT / "params.yaml").read_text())["defaults"]
    assert defaults["edit"]["guided"] == asdict(GUIDANCE)
    assert (defaults["observe"]["t_max"], defaults["observe"]["num_steps"]) == (T_MAX, NUM_STEPS)
    fit = boundaryflow.Boundary.fit.__kwdefaults__
    assert {name: fit[name] for name in ("ridge", "neighbours", "min_auc")} == {
        name: defaults["boundary"][name] for name in ("ridge", "neighbours", "min_auc")
    }
