from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

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
    layers = next(contract["layers"] for contract in contracts if contract.get("containers"))
    ruled = {f"boundaryflow.{name.strip()}" for layer in layers for name in re.split("[|:]", layer)}
    assert rooms - ruled == set()


def test_checking_params_loads_nothing_heavy() -> None:
    done = _python(
        "import sys, boundaryflow.config\n"
        "found = {'torch', 'prefect', 'dvc'} & set(sys.modules); assert not found, found"
    )
    assert done.returncode == 0, done.stderr


def test_stages_load_with_prefect_uninstalled() -> None:
    names = sorted(f"stages.{path.stem}" for path in (ROOT / "stages").glob("[a-z]*.py"))
    code = f"import sys\nfrom importlib import import_module\nsys.modules['prefect'] = None\nfor name in {names!r}:\n"
    done = _python(f"{code}    import_module(name)")
    assert done.returncode == 0, done.stderr
