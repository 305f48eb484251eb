"""The catalog knows every folder of data/, and nothing else states its paths and schemas."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from boundaryflow.runtime.fingerprints import code_of
from boundaryflow.store.catalog import CATALOG

ROOT = Path(__file__).parents[2]
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
NOT_WRITTEN = {"raw", "pretrained", "inbox"}
IN_GIT = {"boundary_metrics"}
CODE = sorted(
    path
    for room in ("boundaryflow", "stages", "flows")
    for path in (ROOT / room).rglob("*.py")
    if "catalog" not in path.parts
)


def _outputs(name: str) -> list[str]:
    entries = [*STAGES[name].get("outs", ()), *STAGES[name].get("metrics", ()), *STAGES[name].get("plots", ())]
    return [next(iter(entry)) if isinstance(entry, dict) else entry for entry in entries]


@pytest.mark.parametrize("name", sorted(STAGES))
def test_outputs_of_a_stage_are_those_of_the_catalog(name: str) -> None:
    for path in _outputs(name):
        folder, rest = re.fullmatch(r"data/(\w+)/\$\{item\.ds\}(?:\.json|/(.+))?", path).groups()  # pyright: ignore[reportOptionalMemberAccess]
        assert folder in CATALOG, f"boundaryflow/store/catalog: lacks {folder}"
        assert CATALOG[folder].by == "stage"
        is_known = not rest or not Path(rest).suffix or re.fullmatch(CATALOG[folder].files, rest)
        assert is_known, f"boundaryflow/store/catalog/{folder}.py: files does not match {rest}"


def test_catalog_names_no_stage_that_is_not_there() -> None:
    written = {path.split("/")[1] for name in STAGES for path in _outputs(name)}
    assert {output.name for output in CATALOG.values() if output.by == "stage"} == written


def test_files_of_an_entry_match_its_own_pattern() -> None:
    for output in CATALOG.values():
        for file in filter(None, (output.facts, *output.counted[:1])):
            assert re.fullmatch(output.files, file), f"{output.name}: files does not match {file}"


def test_git_ignores_what_is_written_and_the_catalog_has_what_it_ignores() -> None:
    lines = (ROOT / "data/.gitignore").read_text().splitlines()
    ignored = {line.split("/")[1] for line in lines if line.startswith("/")}
    written = {output.name for output in CATALOG.values() if output.name not in NOT_WRITTEN | IN_GIT}
    assert written - ignored == set(), "data/.gitignore lacks these"
    assert ignored - written - NOT_WRITTEN == set(), "boundaryflow/store/catalog lacks these"


@pytest.mark.parametrize("path", CODE, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_only_the_catalog_states_paths_of_data_and_schemas(path: Path) -> None:
    found = re.findall(rf'Path\("data[/"]|"data/(?:{"|".join(CATALOG)})\b|schema="', path.read_text())
    assert not found, f"{path.relative_to(ROOT)}: take it from boundaryflow.store.catalog"


def test_stage_depends_on_the_entries_that_it_uses_alone() -> None:
    """Another stage's entry that changes makes no shard of this one stale."""
    ours = {module for module in code_of("stages.observe") if ".catalog" in module}
    assert ours == {f"boundaryflow.store.catalog.{name}" for name in ("ingest", "label", "observe", "output")}
