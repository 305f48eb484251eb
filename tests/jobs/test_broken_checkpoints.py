"""`boundaryflow train-denoiser` continues from nothing that is broken or foreign, and leaves it as it is."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor

from boundaryflow.errors import PipelineError
from boundaryflow.formats.tensor_headers import ABOUT
from boundaryflow.jobs import train_denoiser as job
from tests.jobs.test_train_denoiser import trained


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model `m` after two steps, and the state of its run."""
    folder = tmp_path_factory.mktemp("begun")
    with pytest.MonkeyPatch.context() as patch:
        numbers = dict.fromkeys(("held_out_loss", "trained_on_loss", "round_trip_psnr_db"), 0.5)
        patch.setattr(job, "measure", lambda *_: numbers)
        trained(folder / "m", 8)
    return folder


@pytest.fixture
def model(begun: Path, tmp_path: Path) -> Path:
    shutil.copytree(begun, tmp_path / "copy")
    return tmp_path / "copy/m"


def changed(change: Callable[[dict[str, Tensor], dict[str, Any]], Any]) -> Callable[[Path], None]:
    """A checkpoint whose tensors or facts are changed."""

    def write(path: Path) -> None:
        data = path.read_bytes()
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        tensors, about = load(data), json.loads(header["__metadata__"][ABOUT])
        change(tensors, about)
        path.write_bytes(save(tensors, {ABOUT: json.dumps(about)}))

    return write


class Trap:
    """Touches a file where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self._path}",)


def put(name: str, value: Tensor) -> Callable[[Path], None]:
    return changed(lambda tensors, _about: tensors.update({name: value}))


def fact(**values: Any) -> Callable[[Path], None]:
    return changed(lambda _tensors, about: about.update(values))


RUN = {"elapsed_s": 1.0, "hardware": [], "measured": []}
BROKEN: dict[str, tuple[Callable[[Path], None], str]] = {
    "truncated": (lambda path: path.write_bytes(path.read_bytes()[:-9]), "(cut off)"),
    "empty": (lambda path: path.write_bytes(b""), "("),
    "text": (lambda path: path.write_text("no tensors here, but text"), "("),
    "pickle": (lambda path: path.write_bytes(pickle.dumps(Trap(path.parent / "ran"))), "("),
    "torch file": (lambda path: torch.save({"w": Trap(path.parent / "ran")}, path), "("),
    "of somebody else": (lambda path: path.write_bytes(save({"w": torch.zeros(2)})), "(has no 'identity')"),
    "other shape": (put("network.conv_in.weight", torch.zeros(1)), "conv_in.weight is [1], must be [16, 4, 3, 3]"),
    "other momentum": (put("0.0.momentum", torch.zeros(3)), "0.0.momentum is [3], must be ["),
    "tensor too many": (put("2.0.momentum", torch.zeros(3)), "2.0.momentum is [3], must be none"),
    "tensor too few": (changed(lambda tensors, _: tensors.pop("1.0.exp_avg")), "1.0.exp_avg is none, must be ["),
    "NaN": (put("loss", torch.tensor(torch.nan)), "tensor loss is not of finite float32 numbers"),
    "whole numbers": (put("loss", torch.tensor(1)), "tensor loss is not of finite float32 numbers"),
    "no step": (changed(lambda _, about: about.pop("step")), "(has no 'step')"),
    "half a step": (fact(step=1.5), "its facts about the run are damaged"),
    "1e30 steps": (fact(step=10**30), "its facts about the run are damaged"),
    "identity a list": (fact(identity=[1]), "("),
    "time in words": (fact(run={**RUN, "elapsed_s": "long"}), "its facts about the run are damaged"),
    "run unknown": (fact(run={**RUN, "more": 1}), "("),
    "measured less": (fact(run={**RUN, "measured": [{"images_seen": 4}]}), "its measurements are damaged"),
    "measured a word": (fact(run={**RUN, "measured": "none"}), "("),
    "other settings": (
        changed(lambda _, about: about["identity"].update(batch_size="9\n" * 99)),
        "was begun with other settings (batch_size was 9",
    ),
}  # fmt: skip


def files_of(folder: Path) -> dict[str, bytes]:
    """Every file but the lock, and where each link leads."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else os.fsencode(os.readlink(path))
        for path in folder.rglob("*")
        if path.name != "lock" and (path.is_file() or path.is_symlink())
    }


@pytest.mark.parametrize("kind", sorted(BROKEN))
def test_broken_checkpoint_is_one_line_and_stays_as_it_is(kind: str, model: Path) -> None:
    damage, message = BROKEN[kind]
    damage(model.with_name("m.training") / "checkpoint.safetensors")
    before = files_of(model.parent)
    with pytest.raises(PipelineError) as caught:
        trained(model)
    line = str(caught.value)
    assert message in line
    assert line.startswith(f"train-denoiser {model}")
    assert line.endswith(f"name another OUT, or delete {model}.training and {model} to start over")
    assert line.isprintable()
    assert files_of(model.parent) == before


@pytest.mark.parametrize("kind", ["checkpoint is a link", "checkpoint is a FIFO", "lock is a link", "lock is a FIFO"])
def test_links_and_special_files_among_the_state_are_refused(kind: str, model: Path) -> None:
    name, _, what = kind.partition(" is a ")
    path = model.with_name("m.training") / {"checkpoint": "checkpoint.safetensors", "lock": "lock"}[name]
    path.rename(model.with_name("elsewhere"))
    if what == "link":
        path.symlink_to(model.with_name("elsewhere"))
    else:
        os.mkfifo(path)
    before = files_of(model.parent)
    with pytest.raises(PipelineError, match=r"m\.training.*(move it, or name another OUT)"):
        trained(model)
    assert files_of(model.parent) == before


def test_files_of_others_beside_a_checkpoint_stay(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = dict.fromkeys(("held_out_loss", "trained_on_loss", "round_trip_psnr_db"), 0.5)
    monkeypatch.setattr(job, "measure", lambda *_: numbers)
    (model.with_name("m.training") / "notes.txt").write_text("mine")
    (model / "notes.txt").write_text("mine")
    (model.parent / "target").write_text("mine")
    (model / "config.json").unlink()
    (model / "config.json").symlink_to("../target")
    assert trained(model, 12)["steps"] == 3
    for path in (model.with_name("m.training") / "notes.txt", model / "notes.txt", model.parent / "target"):
        assert path.read_text() == "mine"
