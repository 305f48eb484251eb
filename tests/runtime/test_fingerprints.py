"""What a shard's fingerprint knows of the code."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from boundaryflow.boundary import Boundaries, Boundary, Calibration
from boundaryflow.runtime import fingerprints


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A stage that imports a room, which takes a name from one of its two modules."""
    monkeypatch.setattr(fingerprints, "_ROOT", tmp_path)
    files = {
        "stages/blur.py": "from boundaryflow.room import f\n\ndef run() -> int:\n    from boundaryflow import late\n"
        "    return f() + late.g()\n",
        "boundaryflow/__init__.py": "",
        "boundaryflow/errors.py": "x = 1\n",
        "boundaryflow/late.py": "def g() -> int:\n    return 2\n",
        "boundaryflow/room/__init__.py": "from boundaryflow.room.one import f\nfrom boundaryflow.room.two import h\n",
        "boundaryflow/room/one.py": "import boundaryflow.errors\n\ndef f() -> int:\n    return 1\n",
        "boundaryflow/room/two.py": "def h() -> int:\n    return 3\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    _forget()
    yield tmp_path
    _forget()


def _forget() -> None:
    for name in ("_tree", "_meaning", "_imports", "_is_ours"):
        getattr(fingerprints, name).cache_clear()


def _hash(code: Path, file: str, text: str) -> str:
    (code / file).write_text(text)
    _forget()
    return fingerprints.code_hash("stages.blur")


def test_code_of_a_stage_is_what_it_imports(code: Path) -> None:
    assert fingerprints.code_of("stages.blur") == ("boundaryflow.late", "boundaryflow.room.one", "stages.blur")


def test_code_hash_sees_code_and_not_comments(code: Path) -> None:
    first = fingerprints.code_hash("stages.blur")
    same = '"""Words."""\nimport boundaryflow.errors\n\n\ndef f() -> int:\n    """Words."""\n    # here\n    return 1\n'
    assert _hash(code, "boundaryflow/room/one.py", same) == first
    assert _hash(code, "boundaryflow/room/two.py", "def h() -> int:\n    return 4\n") == first
    assert _hash(code, "boundaryflow/errors.py", "x = 2\n") == first
    assert _hash(code, "boundaryflow/late.py", "def g() -> int:\n    return 3\n") != first


def test_code_hash_is_the_same_where_python_knows_more_syntax(code: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Python 3.12 has `type_params`, empty for every function that is written for 3.11."""
    first = fingerprints.code_hash("stages.blur")
    monkeypatch.setattr(ast.FunctionDef, "_fields", (*ast.FunctionDef._fields, "of_a_later_python"))
    monkeypatch.setattr(ast.FunctionDef, "of_a_later_python", [], raising=False)
    _forget()
    assert fingerprints.code_hash("stages.blur") == first


def test_code_hash_tells_lists_and_values_apart(code: Path) -> None:
    """None as a value is no missing field, and no two of these are the same code."""
    lines = ["return None", "return", "return 'None'", "return []", "return [[]]", "return {**f()}", "return {1: f()}"]
    texts = [f"def g():\n    {line}\n" for line in lines]
    assert len({_hash(code, "boundaryflow/late.py", text) for text in texts}) == len(lines)


@pytest.mark.parametrize(
    "module", ["rng", "seeds", "pixels", "boundary.hyperplane", "labelling.clip_labels", "avatars.renderer"]
)
def test_modules_that_decide_results_are_in_the_code_of_some_stage(module: str) -> None:
    """The noise of an item, rounding to 8 bit, `Calibration.reach`, CLIP's resizing: each was missing once."""
    expected = {
        "rng": {"mixing", "invert", "observe", "boundary", "edit"},
        "seeds": {"mixing", "invert", "observe", "boundary", "edit", "report"},
        "pixels": {"label", "mixing", "invert", "observe", "edit", "evaluate"},
        "boundary.hyperplane": {"mixing", "boundary", "edit"},
        "labelling.clip_labels": {"label", "evaluate"},
        "avatars.renderer": {"ingest", "evaluate", "report"},
    }
    stages = [path.stem for path in Path("stages").glob("[a-z]*.py")]
    found = {stage for stage in stages if f"boundaryflow.{module}" in fingerprints.code_of(f"stages.{stage}")}
    assert found == expected[module]


def test_code_is_what_python_loads() -> None:
    """Our reading of the imports against grimp's, which follows whole packages and so finds more."""
    import grimp

    graph = grimp.build_graph("boundaryflow", "stages")
    for stage in ("stages.edit", "stages.ingest", "boundaryflow.jobs.bulk_edit"):
        assert set(fingerprints.code_of(stage)) <= {stage, *graph.find_upstream_modules(stage)}


def test_edits_depend_on_normals_patterns_and_calibrations() -> None:
    calibration = Calibration(1.0, -1.0, 0.5, 0.9, 20)
    plane = Boundary(torch.tensor([1.0, 0.0]), 0.0, "h", 40, "smiling", "f" * 64, calibration)
    others = [
        plane,
        replace(plane, normal=torch.tensor([0.0, 1.0])),
        replace(plane, pattern=torch.tensor([1.0, 0.5])),
        replace(plane, pattern=torch.tensor([1.0, 0.6])),
        replace(plane, calibration=replace(calibration, sd=0.6)),
        replace(plane, t=50),
    ]
    found = [tuple(fingerprints.describe(Boundaries("smiling", {}, (other,)), guided=True)) for other in others]
    assert len(set(found)) == len(others)
