"""Bundles that were made to do harm: each is refused in one line, and nothing is written, run or connected to."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image
from safetensors.torch import load, save

from boundaryflow.jobs.bundle import write_bundle
from tests.hostile.corpus_models import BOUNDARIES, MARK, SAFETENSORS, boundary, with_header
from tests.hostile.harness import Harness, assert_held


def _listed(folder: Path, name: str, data: bytes) -> None:
    """Write a file, and have bundle.json vouch for it."""
    (folder / name).write_bytes(data)
    facts = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    _manifest(folder, lambda content: content["files"].update({name: facts}))


def _manifest(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads((folder / "bundle.json").read_text())
    change(content)
    (folder / "bundle.json").write_text(json.dumps(content))


def _params(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = yaml.safe_load((folder / "params.yaml").read_text())
    change(content)
    _listed(folder, "params.yaml", yaml.safe_dump(content).encode())


def _linked(folder: Path, name: str, target: str) -> None:
    (folder / name).unlink()
    (folder / name).symlink_to(target)


def _moved_out(folder: Path, name: str) -> None:
    (folder / name).rename(folder.parent / "elsewhere")
    (folder / name).symlink_to(folder.parent / "elsewhere")


def _fifo(folder: Path, name: str) -> None:
    (folder / name).unlink()
    os.mkfifo(folder / name)


def _code(folder: Path) -> None:
    """A model reference that is code, beside which the file of that very name lies."""
    shutil.rmtree(folder / "model")
    (folder.parent / "evil.py").write_text(f"open('{MARK}', 'w')\n")
    (folder.parent / "evil.py:make").write_text("")
    _manifest(folder, lambda c: c.update(files={k: v for k, v in c["files"].items() if not k.startswith("model/")}))
    _manifest(folder, lambda c: c["model"].update(path="evil.py:make"))


def _cut(folder: Path, name: str) -> None:
    (folder / name).write_bytes((folder / name).read_bytes()[:-1])


def _attribute(folder: Path) -> None:
    data = (folder / "boundaries/hat.safetensors").read_bytes()
    _listed(folder, "boundaries/dark_skin.safetensors", data)


def _shorter(folder: Path) -> None:
    """Normals with fewer dimensions, unit vectors still."""
    path = folder / "boundaries/hat.safetensors"
    about = json.loads(path.read_bytes()[8 : 8 + int.from_bytes(path.read_bytes()[:8], "little")])["__metadata__"]
    short = {name: normal[:7] / normal[:7].norm() for name, normal in load(path.read_bytes()).items()}
    _listed(folder, "boundaries/hat.safetensors", save(short, about))


_HAT = "boundaries/hat.safetensors"
CASES: dict[str, Callable[[Path], object]] = {
    "no_manifest": lambda f: (f / "bundle.json").unlink(),
    "manifest_nothing": lambda f: (f / "bundle.json").write_bytes(b""),
    "manifest_list": lambda f: (f / "bundle.json").write_text("[]"),
    "manifest_deep": lambda f: (f / "bundle.json").write_bytes(b'{"a":' + b"[" * 50_000 + b"]" * 50_000 + b"}"),
    "manifest_nan": lambda f: (f / "bundle.json").write_text('{"run_seed": NaN}'),
    "manifest_digits": lambda f: (f / "bundle.json").write_text(f'{{"run_seed": {"9" * 5000}}}'),
    "manifest_fifo": lambda f: _fifo(f, "bundle.json"),
    "manifest_zeros": lambda f: _linked(f, "bundle.json", "/dev/zero"),
    "manifest_of_1_GB": lambda f: os.truncate(f / "bundle.json", 2**30),
    "other_format": lambda f: _manifest(f, lambda c: c.update(format="bundle/\x1b[31m")),
    "leads_up": lambda f: _manifest(f, lambda c: c["files"].update({"../evil": {"size": 0, "sha256": "0" * 64}})),
    "absolute": lambda f: _manifest(f, lambda c: c["files"].update({"/etc/passwd": {"size": 0, "sha256": "0" * 64}})),
    "control": lambda f: _manifest(f, lambda c: c["files"].update({"\x1b[2J": {"size": 0, "sha256": "0" * 64}})),
    "attribute_is_a_path": lambda f: _manifest(f, lambda c: c.update(attributes={"../../evil": "run"})),
    "no_attributes": lambda f: _manifest(f, lambda c: c.update(attributes={})),
    "not_listed": lambda f: _manifest(f, lambda c: c["files"].pop(_HAT)),
    "params_not_listed": lambda f: _manifest(f, lambda c: c["files"].pop("params.yaml")),
    "missing": lambda f: (f / _HAT).unlink(),
    "cut": lambda f: _cut(f, _HAT),
    "model_cut": lambda f: _cut(f, "model/diffusion_pytorch_model.safetensors"),
    "linked_out": lambda f: _moved_out(f, _HAT),
    "folder_linked_out": lambda f: _moved_out(f, "boundaries"),
    "model_linked_out": lambda f: _moved_out(f, "model"),
    "link_to_itself": lambda f: _linked(f, _HAT, "hat.safetensors"),
    "fifo": lambda f: _fifo(f, _HAT),
    "zeros": lambda f: _linked(f, _HAT, "/dev/zero"),
    "sparse": lambda f: os.truncate(f / _HAT, 2**40),
    "other_attribute": _attribute,
    "other_sizes": _shorter,
    "other_model": lambda f: _manifest(f, lambda c: c["model"].update(sha256="0" * 64)),
    "boundary_of_another_model": lambda f: _listed(f, _HAT, boundary()),
    "header_of_1e18": lambda f: _listed(f, _HAT, SAFETENSORS["header_of_1e18"]()),
    "header_of_20_MB": lambda f: _listed(f, _HAT, with_header(b"{" + b" " * (20 * 2**20) + b"}")),
    **{f"boundary_{name}": lambda f, made=made: _listed(f, _HAT, made()) for name, made in BOUNDARIES.items()},
    "timesteps_fall": lambda f: _manifest(f, lambda c: c["observed"].update(timesteps=[5, 3])),
    "timestep_1e5": lambda f: _manifest(f, lambda c: c["observed"]["timesteps"].append(10**5)),
    "timesteps_none": lambda f: _manifest(f, lambda c: c["observed"].update(timesteps=[])),
    "layer_unknown": lambda f: _manifest(f, lambda c: c["observed"].update(features={"layer": "evil", "pool": None})),
    "pool_without_layer": lambda f: _manifest(f, lambda c: c["observed"].update(features={"layer": None, "pool": 4})),
    "path_is_code": _code,
    "path_leads_up": lambda f: _manifest(f, lambda c: c["model"].update(path="../../evil")),
    "params_nothing": lambda f: _listed(f, "params.yaml", b""),
    "params_tag": lambda f: _listed(f, "params.yaml", b"!!python/object/apply:os.system ['touch pwned']"),
    "params_aliases": lambda f: _listed(f, "params.yaml", b"a: &a [x, x]\nb: &b [*a, *a]\n" * 3),
    "params_infinite": lambda f: _params(f, lambda c: c["edit"]["guided"].update(preserve=float("inf"))),
    "params_1e9_iterations": lambda f: _params(f, lambda c: c["edit"]["guided"].update(num_iterations=10**9)),
    "params_other_size": lambda f: _params(f, lambda c: c["ingest"].update(image_size=32)),
    "params_mask_without_segmenter": lambda f: _params(
        f, lambda c: c["edit"].update(mask={"segmenter": "/etc/passwd", "parts": {"hat": ["hat"]}, "grow": 0})
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def sound(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with its model."""
    out = tmp_path_factory.mktemp("bundles") / "sound"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(finished)
        write_bundle("avatars", out, with_model=True)
    return out


def _edit(harness: Harness, folder: Path) -> Any:
    Image.new("RGB", (16, 16), "red").save(folder / "photo.png")
    return harness.run(["boundaryflow", "edit", "photo.png", "--bundle", "bundle", "--attribute", "hat"], folder)


def test_sound_bundle_is_edited_with(harness: Harness, sound: Path, tmp_path: Path) -> None:
    shutil.copytree(sound, tmp_path / "bundle")
    outcome = _edit(harness, tmp_path)
    assert_held(outcome, ["out/"])
    assert outcome.status == 0, outcome.said


@pytest.mark.parametrize("case", list(CASES.values()), ids=list(CASES))
def test_edit_with_a_hostile_bundle(
    harness: Harness, sound: Path, tmp_path: Path, case: Callable[[Path], object]
) -> None:
    shutil.copytree(sound, tmp_path / "bundle")
    case(tmp_path / "bundle")
    outcome = _edit(harness, tmp_path)
    assert_held(outcome)
    assert outcome.status == 2, outcome.said
    assert len(outcome.stderr.splitlines()) == 1, outcome.said
