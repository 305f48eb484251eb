from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pandas as pd
import pytest

from boundaryflow.store.catalog.ingest import INGEST, MANIFEST
from boundaryflow.store.catalog.label import LABEL, LABELS
from tests.conftest import ROOT
from tests.small_project import write_project

HEAVY = {"torch", "torchvision", "torchmetrics", "diffusers", "sklearn", "scipy", "prefect"}


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


@pytest.mark.parametrize("name", ["stages.params", "stages.listing", "stages.label", "stages.report",
                                  "boundaryflow.review.app", "flows.status", "flows.gc"])  # fmt: skip
def test_what_only_reads_tables_and_pictures_loads_no_torch(name: str) -> None:
    """Each is waited for, and torch takes some three seconds to import; stages that run networks need it."""
    done = _python(f"import sys, {name}; found = {HEAVY!r} & set(sys.modules); assert not found, found")
    assert done.returncode == 0, done.stderr


def test_labels_from_a_table_load_no_torch(tmp_path: Path) -> None:
    """The stage run to its end: nothing that it imports on the way loads torch either."""
    write_project(
        tmp_path,
        ingest__source={"kind": "folder"},
        label={
            "source": {"kind": "csv", "path": "labels.csv", "file_column": "file"},
            "attributes": {"bright": {"column": None}},
        },
        edit__edits={"bright": {"bright": "flip"}},
        evaluate__counterfactuals=False,
    )
    items = [f"{number:016x}" for number in range(8)]
    splits = ["train"] * 4 + ["val"] * 4
    ok = {"status": "ok", "reason": "", "duplicates_of": ""}
    MANIFEST.write(
        INGEST.folder("avatars", tmp_path),
        pd.DataFrame({"item_id": items, "source": [f"{item}.png" for item in items], "split": splits, **ok}),
    )
    raw = tmp_path / "data/raw/avatars"
    raw.mkdir(parents=True)
    rows = [f"{item}.png,{number % 2}" for number, item in enumerate(items)]
    (raw / "labels.csv").write_text("\n".join(["file,bright", *rows]) + "\n")
    code = (
        f"import os, sys; os.chdir({str(tmp_path)!r}); sys.argv = ['label', 'avatars']; import stages.label\n"
        f"stages.label.main(); found = {HEAVY!r} & set(sys.modules); assert not found, found"
    )
    done = _python(code)
    assert done.returncode == 0, done.stderr
    assert LABELS.read(LABEL.folder("avatars", tmp_path))["bright"].tolist() == [0.0, 1.0] * 4
