from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.conftest import ROOT


def _python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)


def test_import_contracts_are_kept() -> None:
    program = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([program, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert " 0 broken" in done.stdout


def test_import_contracts_name_every_room_of_the_library() -> None:
    """A new room has to be given its place in the contracts."""
    rooms = {f"boundaryflow.{path.parent.name}" for path in (ROOT / "boundaryflow").glob("*/__init__.py")}
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    ruled = {room for contract in contracts for key in ("source_modules", "modules") for room in contract.get(key, ())}
    assert rooms - ruled == set()


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        pytest.param("stages.params", ("torch", "prefect", "dvc", "pandas"), id="checking-params-is-quick"),
        pytest.param("boundaryflow.editing", ("prefect", "dvc", "yaml", "pydantic"), id="library-is-tensors-only"),
        pytest.param("stages.edit", ("prefect",), id="stages-work-without-prefect"),
    ],
)
def test_import_loads_nothing_it_should_not(module: str, unwanted: tuple[str, ...]) -> None:
    code = f"import sys, {module}\nfound = set({unwanted!r}) & set(sys.modules)\nassert not found, found"
    done = _python(code)
    assert done.returncode == 0, done.stderr


def test_stages_run_with_prefect_uninstalled() -> None:
    """`import prefect` fails, every stage file still loads."""
    names = sorted(f"stages.{path.stem}" for path in (ROOT / "stages").glob("[a-z]*.py"))
    code = f"import sys\nfrom importlib import import_module\nsys.modules['prefect'] = None\n[import_module(n) for n in {names!r}]"
    done = _python(code)
    assert done.returncode == 0, done.stderr
