"""The folder of a training run's state: its path, its lock, and checks of what is in it."""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from boundaryflow.config.places import check_output
from boundaryflow.errors import CheckpointError, PipelineError
from boundaryflow.files import RefusedFileError, leftovers, read_bytes, remove_leftovers, try_lock
from boundaryflow.text import visible

CARD, CHECKPOINT, _LOCK = "training.json", "checkpoint.safetensors", "lock"
MADE_BY = "boundaryflow train-denoiser"
"""What `made_by` of the card says."""
_MEASURED = {"images_seen", "wall_time_s", "held_out_loss", "trained_on_loss", "round_trip_psnr_db"}
_MAX_STEPS = 2**40


@dataclass
class Run:
    """State of a run apart from its tensors."""

    elapsed_s: float = 0.0
    hardware: list[str] = field(default_factory=list[str])
    measured: list[dict[str, float]] = field(default_factory=list[dict[str, float]])


def state_folder(out: Path) -> Path:
    """Folder of a run's state: outside the model's folder, which DVC hashes as a whole.

    Raises:
        CheckpointError: `out` is a whole disk, or a folder that is named by where it lies, such as `.` or `..`.
    """
    if out.name in ("", ".."):
        raise CheckpointError(
            f"train-denoiser {out}: must end in a name, as the model gets a folder of its own; give one, such as "
            f"{out / 'mine64'}"
        )
    return out.with_name(f"{out.name}.training")


@contextmanager
def locked_state(out: Path) -> Generator[Path]:
    """The folder of a run's state, locked against other processes.

    Raises:
        PipelineError: Another process uses it; `out` or the folder holds foreign files, or is a link or a file.
    """
    check_output(out, "OUT", may_be="data/pretrained")
    out = out.absolute()
    if not out.name:
        raise CheckpointError(f"train-denoiser {out}: is not a separate folder; name another OUT")
    folder = state_folder(out)
    for path in (out, folder):
        if path.is_symlink() or (path.exists() and not path.is_dir()):
            raise CheckpointError(f"train-denoiser {path}: is a link or not a folder; move it, or name another OUT")
    _check_ours(out, folder)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / _LOCK).open("a") as lock:
        if not try_lock(lock):
            raise PipelineError(f"train-denoiser {out}: another process is training it; wait for it to end")
        remove_leftovers(folder)
        try:
            yield folder
        finally:
            if not (folder / CHECKPOINT).exists():  # the run ended before its first checkpoint
                (folder / _LOCK).unlink()
                with suppress(OSError):  # another program added a file
                    folder.rmdir()


def _check_ours(out: Path, folder: Path) -> None:
    """Refuse a model's folder or a state folder that `train-denoiser` did not write.

    Raises:
        CheckpointError: One of them holds foreign files.
    """
    has_state = (folder / CHECKPOINT).is_file() and not (folder / CHECKPOINT).is_symlink()
    lock = folder / _LOCK
    if lock.is_symlink() or (lock.exists() and not lock.is_file()):
        raise CheckpointError(f"train-denoiser {lock}: is a link or not a regular file; move it, or name another OUT")
    if folder.exists() and not has_state:
        half_written = set(leftovers(folder))
        for path in folder.iterdir():
            if path not in half_written and (path != lock or lock.stat().st_size):
                raise CheckpointError(
                    f"train-denoiser {folder}: has {visible(path.name)}, which train-denoiser did not write; move it, "
                    "or name another OUT"
                )
    if not out.exists() or not any(out.iterdir()):
        return
    try:
        made_by = json.loads(read_bytes(out / CARD, 2**24)).get("made_by")
    except (OSError, ValueError, AttributeError, RecursionError, RefusedFileError):
        made_by = None
    if made_by != MADE_BY or not has_state:
        raise CheckpointError(
            f"train-denoiser {out}: already exists, and {folder} has no checkpoint to continue from; name a new folder"
        )


def run_of(facts: Any, step: Any) -> Run:
    """The state of a run from a checkpoint's header.

    Raises:
        TypeError, ValueError: It is damaged.
    """
    run = Run(**facts)
    numbers: list[Any] = [run.elapsed_s, step, *(value for found in run.measured for value in found.values())]
    is_sound = all(type(value) in (int, float) for value in numbers) and type(step) is int and 0 <= step < _MAX_STEPS
    hardware: list[Any] = run.hardware
    if not is_sound or not all(isinstance(name, str) for name in hardware):
        raise ValueError("its facts about the run are damaged")
    if any(found.keys() != _MEASURED for found in run.measured):
        raise ValueError("its measurements are damaged")
    return run


def check_shapes(found: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]]) -> None:
    """Refuse a checkpoint of other tensors.

    Raises:
        ValueError: It lacks a tensor, or has another one.
    """
    for name in sorted({*found, *expected}):
        if found.get(name) != expected.get(name):
            shapes = [list(of[name]) if name in of else "none" for of in (found, expected)]
            raise ValueError(f"the shape of tensor {name[:80]} is {shapes[0]}, must be {shapes[1]}")
