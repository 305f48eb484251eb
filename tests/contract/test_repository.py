from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.conftest import ROOT

_PICKLES = {".pkl", ".pickle", ".joblib", ".pth", ".ckpt", ".npy", ".npz", ".bin"}
_TEXTS = {"", ".css", ".csv", ".j2", ".js", ".json", ".lock", ".md", ".py", ".toml", ".txt", ".yaml"}
_MACHINE_PATH = re.compile(r"(?<![\w.}/~-])/(?:home|Users|root|work|mnt|scratch|data)/\w")
_ADDRESS = re.compile(r"https?://(?!127\.0\.0\.1|localhost)[^\s)\"'>`]+")


@pytest.fixture(scope="module")
def tracked() -> list[Path]:
    """Files that git has, or would add."""
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        pytest.skip("this is no git checkout")
    listed = subprocess.run(
        [git, "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    return [path for path in (ROOT / name for name in sorted(listed.split("\0")) if name) if path.is_file()]


def _texts(tracked: list[Path]) -> list[tuple[Path, str]]:
    return [(path, path.read_text(encoding="utf-8")) for path in tracked if path.suffix in _TEXTS]


def test_no_pickles_are_tracked(tracked: list[Path]) -> None:
    assert [path for path in tracked if path.suffix in _PICKLES] == []


def test_no_file_is_over_20_mb(tracked: list[Path]) -> None:
    assert [path for path in tracked if path.stat().st_size > 20e6] == []


def test_pretrained_weights_are_under_40_mb_together(tracked: list[Path]) -> None:
    weights = [path for path in tracked if (ROOT / "data/pretrained") in path.parents]
    assert sum(path.stat().st_size for path in weights) < 40e6


def test_no_data_but_weights_drawn_faces_and_readmes_is_tracked(tracked: list[Path]) -> None:
    """Results belong to DVC. What it leaves to git are metrics, plots' points and its own .gitignore files."""
    drawn = ROOT / "data/raw/faces/drawn.tar"
    allowed = {".gitignore", ".json", ".csv", ".md"}
    data = [path for path in tracked if (ROOT / "data") in path.parents and path != drawn]
    stray = [p for p in data if (ROOT / "data/pretrained") not in p.parents and (p.suffix or p.name) not in allowed]
    assert stray == []


def test_no_path_of_one_machine_is_in_a_file(tracked: list[Path]) -> None:
    found = {
        f"{path.relative_to(ROOT)}: {match[0]}"
        for path, text in _texts(tracked)
        if path != Path(__file__)
        for match in _MACHINE_PATH.finditer(text)
    }
    assert found == set()


def test_constraints_are_names_and_versions_only() -> None:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert [line for line in lines if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9._+!]+", line)] == []


def test_constraints_pin_every_dependency_within_its_range() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = {_canonical(name): version for name, _, version in (line.partition("==") for line in lines) if version}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    for text in [*project["dependencies"], *extras["dev"], *extras["docs"]]:
        wanted = Requirement(text)
        assert _canonical(wanted.name) in pins, f"{wanted.name} is not in constraints.txt"
        assert wanted.specifier.contains(pins[_canonical(wanted.name)]), text


def test_no_package_index_is_named(tracked: list[Path]) -> None:
    """Where packages come from is the machine's business."""
    infrastructure = {ROOT / name for name in ("Makefile", "constraints.txt", "pyproject.toml", ".ci/run")}
    found = [f"{p.name}: {m[0]}" for p in tracked if p in infrastructure for m in _ADDRESS.finditer(p.read_text())]
    assert found == []


def test_ci_script_is_executable_and_runs_the_tests() -> None:
    script = ROOT / ".ci/run"
    assert script.stat().st_mode & 0o111
    assert "make test" in script.read_text()


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_text_files_are_read_and_written_as_utf8_whatever_the_locale(tracked: list[Path]) -> None:
    rooms = [ROOT / room for room in ("boundaryflow", "stages", "flows")]
    sources = [path for path in tracked if path.suffix == ".py" and any(room in path.parents for room in rooms)]
    loose = re.compile(r"(?<!/proc/cpuinfo\"\))\.read_text\(\)|\.write_text\((?![^\n]*encoding=)")
    found = [f"{path.relative_to(ROOT)}: {match[0]}" for path in sources for match in loose.finditer(path.read_text())]
    assert found == []
