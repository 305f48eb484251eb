"""`boundaryflow inspect MODEL --try PICTURES`: which assumptions about a model fit the user's pictures."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from boundaryflow.errors import CheckpointError, ManifestError, PipelineError
from boundaryflow.files import RefusedFileError, read_bytes
from boundaryflow.models import build_network, load_model, open_checkpoint
from boundaryflow.models.betas import schedule_betas
from boundaryflow.models.checkpoints import Checkpoint, understand
from boundaryflow.models.custom import names_python_model
from boundaryflow.models.guesses import MAX_GUESSES, Search
from boundaryflow.models.noise_error import as_trained, relative_errors
from boundaryflow.models.prediction import Prediction
from boundaryflow.models.stated import Stated, sidecar_of
from boundaryflow.models.weights import check_finite, read_weights
from boundaryflow.runtime.device import device
from boundaryflow.runtime.process import Progress
from boundaryflow.sources.archives import MAX_BYTES, UnusableError
from boundaryflow.sources.decoding import choose
from boundaryflow.sources.images import decode_image, open_picture
from boundaryflow.sources.raw import RawFolder

MAX_PICTURES = 4
_CLEARLY = 0.9  # a stated prediction is doubted where another has less than this share of its error


def try_model(source: str, pictures: Sequence[Path]) -> dict[str, Any]:
    """Measure how well a model predicts noise on pictures, under all assumptions about what its files do not state.

    Args:
        source: What `model:` in params.yaml may name.
        pictures: Files, or folders from which a sample is taken.

    Returns:
        Facts by name, in the order in which they are printed.

    Raises:
        PipelineError: The model cannot be used, or none of the pictures can be read.
    """
    files = _read(pictures)
    if names_python_model(source):
        return _try_function(source, files)
    checkpoint = open_checkpoint(source)
    check_finite(checkpoint.file, checkpoint.architecture.state)
    shortest = min(_side(data) for data in files)
    with Progress("inspect", MAX_GUESSES, "guesses at most") as progress:
        trial = _Trial(checkpoint, files, progress)
        search = Search(checkpoint, trial.measure, shortest)
        search.run()
    return _facts(search, checkpoint, shortest, len(files))


class _Trial:
    """Measures guesses; the network and the pictures are kept from one guess to the next if it does not change them."""

    def __init__(self, checkpoint: Checkpoint, files: Sequence[bytes], progress: Progress) -> None:
        self._checkpoint, self._files, self._progress = checkpoint, files, progress
        path = Path(checkpoint.source)
        self._weights = read_weights(path, checkpoint.stated.ema) if path.is_file() else None
        self._network: tuple[Any, ...] = ()
        self._pictures: dict[int, Tensor] = {}

    def measure(self, guess: Stated) -> dict[Prediction, float]:
        """See `boundaryflow.models.guesses.Measure`."""
        self._progress.advance()
        try:
            found = self._understood(guess)
            unet = self._built(found, guess)
        except CheckpointError:
            if guess == self._checkpoint.stated:
                raise
            return {}
        channels = found.channels * guess.pixel_unshuffle**2

        def network(x_t: Tensor, timesteps: Tensor) -> Tensor:
            return unet(x_t.to(memory_format=torch.channels_last), timesteps).sample[:, :channels]

        size = found.image_size
        if size not in self._pictures:
            self._pictures[size] = _decoded(self._files, size, found.channels)
        betas = schedule_betas({**found.schedule, **guess.schedule}, found.source)
        called = as_trained(
            network, reverses_channels=guess.channel_order == "bgr", pixel_unshuffle=guess.pixel_unshuffle
        )
        with torch.inference_mode():
            return relative_errors(called, self._pictures[size], (1 - betas).cumprod(0), guess.value_range)

    def _understood(self, guess: Stated) -> Checkpoint:
        if self._weights is None:
            return self._checkpoint
        return understand(Path(self._checkpoint.source), self._weights, guess)

    def _built(self, found: Checkpoint, guess: Stated) -> Any:
        decides = (guess.num_heads, guess.head_channels, guess.qkv_order)
        if not self._network or self._network[0] != decides:
            unet: nn.Module = build_network(found)
            unet.eval().requires_grad_(False)
            self._network = (decides, unet.to(device=device(), memory_format=torch.channels_last))  # pyright: ignore[reportCallIssue]
        return self._network[1]


def _try_function(source: str, files: Sequence[bytes]) -> dict[str, Any]:
    model = load_model(source, device=device())
    pictures = _decoded(files, model.image_size, model.channels)
    errors = relative_errors(model.eps, pictures, model.schedule.alphas_cumprod, model.value_range)
    return {
        "what": "a trial of a model of your own",
        "pictures": len(pictures),
        "error": errors["epsilon"],
        "verdict": _verdict(errors["epsilon"]),
    }


def _facts(search: Search, checkpoint: Checkpoint, shortest: int, num_pictures: int) -> dict[str, Any]:
    tables: dict[str, dict[str, float]] = {}
    best, open_axes = search.best, search.axes()
    for name in open_axes:
        rows = {_label(search, checkpoint, name, guess): search.error(guess) for guess in search.variants(name)}
        rows[_label(search, checkpoint, name, best)] = search.least
        tables[name] = {k: v for k, v in sorted(rows.items(), key=lambda row: row[1]) if v < math.inf}
    start = search.error(search.start)
    labels = {g: {n: _label(search, checkpoint, n, guess) for n in open_axes} for g, guess in
              (("best", best), ("start", search.start))}  # fmt: skip
    changed = [name for name in open_axes if labels["best"][name] != labels["start"][name]]
    facts: dict[str, Any] = {
        "what": "a trial of a diffusion model: its error in predicting noise, as a multiple of a linear filter's",
        "pictures": num_pictures,
        "guesses": search.num_measured,
        "error as taken for granted": start,
        "error of the best guess": search.least,
        "verdict": _verdict(search.least),
        **{f"error by {name.replace('_', ' ')}": rows for name, rows in tables.items()},
        "fits best": {name.replace("_", " "): label for name, label in labels["best"].items()},
        "differs from what was taken for granted": [name.replace("_", " ") for name in changed],
    }
    if changed:
        facts["write"] = f"{json.dumps(best.facts())} into {sidecar_of(Path(checkpoint.source))}"
    return facts | _doubts(search, checkpoint, shortest)


def _doubts(search: Search, checkpoint: Checkpoint, shortest: int) -> dict[str, Any]:
    doubts: list[str] = []
    if "predicts" not in search.axes():
        said = search.prediction(search.best)
        for kind in ("epsilon", "v_prediction", "sample"):
            guess = replace(search.best, schedule={**search.best.schedule, "prediction_type": kind})
            if search.error(guess) < _CLEARLY * search.least:
                doubts.append(f"it is stated to predict {said}, but {kind} fits better: {search.error(guess):.3g}")
    if checkpoint.architecture.assumes_size and shortest < 2 * checkpoint.image_size:
        doubts.append(f"larger sizes were not tried: the smallest picture has {shortest} pixels a side")
    if search.num_measured >= MAX_GUESSES:
        doubts.append(f"the search ended after {MAX_GUESSES} guesses; state what this says, and try again")
    return {"note": doubts} if doubts else {}


def _label(search: Search, checkpoint: Checkpoint, axis: str, guess: Stated) -> str:
    """One property of a guess, in words."""
    if axis == "predicts":
        return search.prediction(guess)
    if axis == "schedule":
        schedule = {**checkpoint.schedule, **guess.schedule}
        return f"{schedule['beta_schedule']}, {schedule['num_train_timesteps']} timesteps"
    if axis == "value_range":
        return f"{guess.value_range[0]:g} to {guess.value_range[1]:g}"
    if axis == "image_size":
        size = guess.image_size or checkpoint.image_size
        types: list[str] = checkpoint.architecture.config["down_block_types"]
        first = next((level for level, kind in enumerate(types) if "Attn" in kind), None)
        attends = "" if first is None else f", attends from {size // 2**first}"
        return f"{size} x {size}{attends}"
    if axis == "heads":
        if guess.num_heads is None and guess.head_channels is None:
            return "as assumed"
        return f"{guess.num_heads} heads" if guess.num_heads else f"{guess.head_channels} channels a head"
    return str(getattr(guess, axis) or "legacy")


def _verdict(error: float) -> str:
    if error < 0.7:  # noqa: PLR2004 - networks of ours on pictures of their own kind have 0.2 to 0.5
        return "it predicts the noise of these pictures"
    if error < 1:
        return "hardly better than a linear filter: a guess is still wrong, or the pictures are unlike its own"
    return "no better than a linear filter: the pictures are unlike its own, or it is of another kind"


def _read(pictures: Sequence[Path]) -> list[bytes]:
    """Bytes of some pictures; from folders an evenly spread sample."""
    found: list[bytes] = []
    for path in pictures:
        if len(found) >= MAX_PICTURES:
            break
        if path.is_dir():
            found += _of_folder(path, MAX_PICTURES - len(found))
            continue
        try:
            data = read_bytes(path, MAX_BYTES)
            _side(data)
        except (FileNotFoundError, RefusedFileError, ManifestError) as error:
            reason = "no such file or folder" if isinstance(error, FileNotFoundError) else str(error)
            raise PipelineError(f"inspect --try {path}: {reason}") from None
        found.append(data)
    return found


def _of_folder(path: Path, num: int) -> list[bytes]:
    folder = RawFolder(path, 2**14)
    found: list[bytes] = []
    for name in choose(folder.names, 4 * num):
        try:
            data = folder.read(name)
            _side(data)
        except (UnusableError, ManifestError):
            continue  # the folder has others
        found.append(data)
        if len(found) == num:
            break
    if not found:
        raise PipelineError(f"inspect --try {path}: holds no picture that can be read")
    return found


def _side(data: bytes) -> int:
    with open_picture(data) as picture:
        return min(picture.size)


def _decoded(files: Sequence[bytes], size: int, channels: int) -> Tensor:
    """[B,C,S,S] in [0, 1], cut to a square in the middle."""
    pixels = [decode_image(data, size, channels, "crop", (255, 255, 255))[0] for data in files]
    return (torch.from_numpy(np.stack(pixels)).float() / 255).to(device())
