"""dvc.yaml, params.yaml and the stage files say the same."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from boundaryflow.config import DatasetParams, load_params
from boundaryflow.config.resolved import resolved
from boundaryflow.runtime.fingerprints import code_of, path_of

ROOT = Path(__file__).parents[2]
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
RESOLVED = "data/params/${item.ds}/params.yaml"
PARAMS = yaml.safe_load((ROOT / "params.yaml").read_text())


@pytest.mark.parametrize("name", sorted(STAGES))
def test_stage_runs_its_own_file_and_depends_on_it(name: str) -> None:
    stage = STAGES[name]
    assert stage["cmd"] == f"python -m stages.{name} ${{item.ds}}"
    assert f"stages/{name}.py" in stage["deps"]
    assert stage["desc"]
    assert stage["matrix"] == {"ds": "${datasets}"}


@pytest.mark.parametrize("name", sorted(STAGES))
def test_code_that_a_stage_depends_on_exists(name: str) -> None:
    for dep in STAGES[name]["deps"]:
        if not dep.startswith("data/"):
            assert (ROOT / dep).exists(), dep


@pytest.mark.parametrize("name", sorted(STAGES))
def test_stage_depends_on_all_code_that_it_runs_and_on_no_other(name: str) -> None:
    """Paste what this says into dvc.yaml. Modules that decide no result: `fingerprints.DECIDES_NOTHING`."""
    needed = {path_of(module) for module in code_of(f"stages.{name}")}
    listed = {Path(dep) for dep in STAGES[name]["deps"] if not dep.startswith("data/")}
    missing = sorted(str(file) for file in needed if not any(file == dep or dep in file.parents for dep in listed))
    idle = sorted(str(dep) for dep in listed if not any(file == dep or dep in file.parents for file in needed))
    assert not missing, "\n".join([f"dvc.yaml: {name}: deps lack", *(f"      - {file}" for file in missing)])
    assert not idle, f"dvc.yaml: {name}: deps are not used: {', '.join(idle)}"


@pytest.mark.parametrize("dataset", sorted(PARAMS["data"]))
@pytest.mark.parametrize("name", sorted(STAGES))
def test_params_of_a_stage_exist_for_every_data_set(name: str, dataset: str) -> None:
    values = resolved(load_params(ROOT, check_files=False).data[dataset], ROOT)
    for file, keys in _params(name).items():
        for key in keys:
            value = values if file == RESOLVED else PARAMS
            for part in key.replace("${item.ds}", dataset).split("."):
                assert part in value, key
                value = value[part]


def _params(name: str) -> dict[str, list[str]]:
    """Keys of the params files that a stage reads."""
    found: dict[str, list[str]] = {}
    for entry in STAGES[name].get("params", ()):
        for file, keys in entry.items() if isinstance(entry, dict) else (("params.yaml", [entry]),):
            found.setdefault(file, []).extend(keys)
    return found


def test_only_the_stage_params_reads_what_is_written_in_params_yaml() -> None:
    """All others read values with the defaults filled in, so that a default is seen by those that it concerns."""
    direct = {name: _params(name).get("params.yaml", []) for name in STAGES}
    assert direct.pop("params") == ["defaults", "data.${item.ds}"]
    assert {key for keys in direct.values() for key in keys} == {"run_seed"}


def test_no_stage_has_dvc_look_into_a_folder_of_the_users() -> None:
    """DVC hangs on a FIFO and fails on a dangling link; the stage listing does not (ADR 15)."""
    deps = {dep for stage in STAGES.values() for dep in stage["deps"]}
    assert not [dep for dep in deps if dep.startswith(("data/raw", "data/inbox"))]
    assert STAGES["listing"]["always_changed"]
    assert not [name for name in STAGES if name != "listing" and "always_changed" in STAGES[name]]


def test_listing_imports_no_torch() -> None:
    """It is started by every `dvc repro`."""
    code = "import sys, stages.listing; sys.exit(bool({'torch', 'fsspec', 'pandas'} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_every_section_of_a_data_set_belongs_to_a_stage() -> None:
    used = {key.split(".")[0] for name in STAGES for key in _params(name).get(RESOLVED, ())}
    assert RESOLVED in STAGES["report"]["deps"]  # it shows them all, its own section among them
    assert {*DatasetParams.model_fields, "weights", "needs"} == used | {"report"}


def test_resumable_stages_persist_their_output() -> None:
    for name in ("ingest", "label", "invert", "observe", "edit"):
        assert all(next(iter(out.values())).get("persist") for out in STAGES[name]["outs"]), name
