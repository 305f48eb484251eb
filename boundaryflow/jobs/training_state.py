"""The folder of a training run's state: its path, its lock, and the check that it holds no foreign files."""

from __future__ import annotations

import json
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from boundaryflow.config.places import check_output
from boundaryflow.errors import CheckpointError, PipelineError
from boundaryflow.files import RefusedFileError, leftovers, read_bytes, remove_leftovers, try_lock
from boundaryflow.text import visible

CARD, CHECKPOINT, _LOCK = "training.json", "checkpoint.safetensors", "lock"
MADE_BY = "boundaryflow train-denoiser"
"""What `made_by` of the card says."""


def state_folder(out: Path) -> Path:
    """Folder of a run's state: outside the model's folder, which DVC hashes as a whole."""
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
        raise CheckpointError(f"train-denoiser {out}: is no folder of its own; name another OUT")
    folder = state_folder(out)
    for path in (out, folder):
        if path.is_symlink() or (path.exists() and not path.is_dir()):
            raise CheckpointError(f"train-denoiser {path}: is a link or no folder; move it away, or name another OUT")
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
    if folder.exists() and not has_state:
        half_written = set(leftovers(folder))
        for path in folder.iterdir():
            if path not in half_written and (path.name != _LOCK or path.is_symlink() or path.stat().st_size):
                raise CheckpointError(
                    f"train-denoiser {folder}: holds {visible(path.name)}, which is of no run; move it away, or name "
                    "another OUT"
                )
    if not out.exists() or not any(out.iterdir()):
        return
    try:
        made_by = json.loads(read_bytes(out / CARD, 2**24)).get("made_by")
    except (OSError, ValueError, AttributeError, RecursionError, RefusedFileError):
        made_by = None
    if made_by != MADE_BY or not has_state:
        raise CheckpointError(
            f"train-denoiser {out}: there is something already, and nothing in {folder} to go on from; name a folder "
            "that is not there yet"
        )
