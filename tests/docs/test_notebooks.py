"""The notebooks run in a kernel, somewhere else than the checkout, and are committed without what they print."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from tests.conftest import ROOT

_NOTEBOOKS = sorted((ROOT / "examples/notebooks").glob("*.ipynb"))
_IDS = [path.stem for path in _NOTEBOOKS]


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    """What the cells of each notebook gave: all in one kernel, as its imports take longer, with all names forgotten."""
    folder = tmp_path_factory.mktemp("notebooks")
    whole, owners = nbformat.v4.new_notebook(), []
    for path in _NOTEBOOKS:
        (folder / path.stem).mkdir()
        fresh = nbformat.v4.new_code_cell(f"%reset -f\n%cd -q {folder / path.stem}")
        cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
        whole.cells += [fresh, *cells]
        owners += [path.stem] * (1 + len(cells))
    own = {name: str(folder / name) for name in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR")}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**own, "PYTHONPATH": str(ROOT)}.items():
            patch.setenv(name, value)
        NotebookClient(whole, timeout=None, allow_errors=True, resources={"metadata": {"path": str(folder)}}).execute()
    found: dict[str, list[Any]] = {name: [] for name in _IDS}
    for name, cell in zip(owners, whole.cells, strict=True):
        found[name] += cell.outputs
    return found


@pytest.mark.timeout(1200)  # seconds where the machine has nothing else to do
@pytest.mark.parametrize("name", _IDS)
def test_notebook_runs(outputs: dict[str, list[Any]], name: str) -> None:
    errors = ["\n".join(out.traceback) for out in outputs[name] if out.output_type == "error"]
    assert not errors, errors[0]
    assert [out for out in outputs[name] if "image/png" in out.get("data", {})]


@pytest.mark.parametrize("path", _NOTEBOOKS, ids=_IDS)
def test_notebook_is_committed_without_results(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [(cell.outputs, cell.execution_count) for cell in cells] == [([], None)] * len(cells)
