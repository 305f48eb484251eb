"""Trains a denoiser on the user's images, measures it regularly, and stores it as a diffusers folder.

The folder is written again at every checkpoint, so it can be used at any time. The state of the run is beside it, in
`OUT.training/`, which may be deleted when training is finished.
"""

from __future__ import annotations

import json
import math
import platform
import signal
import threading
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError

from boundaryflow.config.places import meet
from boundaryflow.diffusion import NoiseSchedule
from boundaryflow.errors import CheckpointError, ParamsError, PipelineError
from boundaryflow.files import is_remote
from boundaryflow.formats.tensor_files import read_tensors, write_tensors
from boundaryflow.formats.tensor_headers import read_header
from boundaryflow.jobs.training_folder import beta_schedule, measure, write_folder
from boundaryflow.jobs.training_pictures import TrainingPictures, open_pictures
from boundaryflow.jobs.training_start import Start, read_start
from boundaryflow.jobs.training_state import CHECKPOINT, MADE_BY, Run, check_shapes, locked_state, run_of, state_folder
from boundaryflow.models.betas import schedule_betas
from boundaryflow.runtime.device import device, resolve_dtype
from boundaryflow.text import visible
from boundaryflow.training import DenoiserTraining, NetworkSettings, TrainSettings

_KEEP_EVERY_S, _TELL_EVERY_S = 300.0, 10.0
_MEASURE_SHARE = 0.05  # limit of the share of time for measuring


@dataclass(frozen=True)
class Budget:
    """Length of the training: either minutes of wall time, or images seen; the other is None."""

    minutes: float | None = None
    images: int | None = None

    def share(self, elapsed_s: float, num_images: int) -> float:
        """Share of the budget that is used; 1 is all of it."""
        return elapsed_s / (60 * self.minutes) if self.minutes is not None else num_images / (self.images or 1)


def train_denoiser(
    pictures: TrainingPictures,
    out: Path,
    network: NetworkSettings,
    settings: TrainSettings,
    budget: Budget,
    *,
    start_from: Path | None = None,
    licence: str = "",
    dtype: str = "auto",
    tell: Callable[[str], None] = lambda _: None,
    keep_every_s: float = _KEEP_EVERY_S,
) -> dict[str, Any]:
    """Train, or go on training, until the budget is used up.

    With a budget of images on a CPU, a run that was interrupted and started again gives weights identical to those of
    an uninterrupted one (docs/reliability.md). A first Ctrl-C finishes the current step, saves the state and raises
    KeyboardInterrupt.

    Args:
        pictures: Pictures to train on and to measure with.
        out: Folder of the model.
        network: Its architecture.
        settings: Settings of the training.
        budget: Length of the training.
        start_from: Folder of a model that `train-denoiser` made, of the same architecture, whose weights a new run
            starts from. The optimisers start anew.
        licence: Licence of the pictures, as stated by the user.
        dtype: `auto` is bfloat16 where the hardware multiplies it, else float32.
        tell: Called with a line of progress every ten seconds and after each measurement.
        keep_every_s: Seconds between two checkpoints.

    Returns:
        Content of `training.json`.

    Raises:
        PipelineError: `out` holds other files, was begun with other settings or is being trained already; the model
            to start from is of another architecture or damaged; the loss is not finite; or memory runs out.
    """
    start = read_start(start_from, out, asdict(network)) if start_from is not None else None
    with locked_state(out) as folder:
        trainer = _Trainer(pictures, out, folder, network, settings, start, licence, dtype, tell)
        return trainer.run(budget, keep_every_s)


def train_from(
    source: str, out: Path, budget: Budget, *, tell: Callable[[str], None], dtype: str, licence: str, **options: Any
) -> None:
    """Train on a source of pictures; see `boundaryflow train-denoiser --help` for the options.

    Raises:
        PipelineError: See `open_pictures`, `NetworkSettings`, `read_start` and `train_denoiser`.
    """
    if not is_remote(source) and any(meet(source, str(path)) for path in (out, state_folder(out))):
        raise CheckpointError(
            f"train-denoiser {out}: lies in {visible(source)}, or contains it, so that its samples would be "
            "trained on; name another OUT"
        )
    asked = {
        "image_size": options["size"], "channels": options["channels"] and int(options["channels"]),
        "pixel_unshuffle": options["unshuffle"], "widths": options["widths"], "layers": options["layers"],
        "attention": options["attention"],
        "schedule": options["schedule"] and {"linear": "linear", "cosine": "squaredcos_cap_v2"}[options["schedule"]],
    }  # fmt: skip
    start = read_start(options["start_from"], out, asked) if options["start_from"] else None
    usual = start.network if start is not None else NetworkSettings()
    is_ingested = (Path(source) / "manifest.parquet").is_file()
    size = asked["image_size"] or (None if is_ingested else usual.image_size)
    channels = asked["channels"] or (None if is_ingested else usual.channels)
    fit = options["fit"] or (None if is_ingested else "crop")
    geometry = {"size": size, "channels": channels, "fit": fit, "crop": options["crop"], "background": (0, 0, 0)}
    with locked_state(out) as scratch, open_pictures(source, scratch, geometry) as pictures:
        network = start.network if start is not None else _network_for(pictures, asked)
        settings = TrainSettings(
            batch_size=options["batch_size"] or (128 if device().type == "cuda" else 32),
            learning_rate=options["learning_rate"],
            ema_gamma=options["ema_gamma"],
            mirror=options["mirror"],
            seed=options["seed"],
        )
        trainer = _Trainer(pictures, out, scratch, network, settings, start, licence, dtype, tell)
        trainer.run(budget, _KEEP_EVERY_S)


def _network_for(pictures: TrainingPictures, asked: Mapping[str, Any]) -> NetworkSettings:
    _, channels, size, _ = pictures.pixels.shape
    is_small = size <= NetworkSettings().image_size
    usual = {"pixel_unshuffle": 2 if is_small else 4, "widths": (32, 96, 192) if is_small else (128, 192, 256)}
    given = {name: value for name, value in asked.items() if value is not None}
    values: dict[str, Any] = {**usual, **given, "image_size": size, "channels": channels}
    return NetworkSettings(**values)


class _Trainer:
    def __init__(
        self,
        pictures: TrainingPictures,
        out: Path,
        folder: Path,
        network: NetworkSettings,
        settings: TrainSettings,
        start: Start | None,
        licence: str,
        dtype: str,
        tell: Callable[[str], None],
    ) -> None:
        self._pictures, self._out, self._report, self._licence = pictures, out, tell, licence
        self._network, self._settings, self._start = network, settings, start
        pictures.check_shape(network.channels, network.image_size)
        self._checkpoint = folder / CHECKPOINT
        origin = {"pictures": pictures.facts["sha256"], "start_from": start.facts["sha256"] if start else None}
        self._identity = json.loads(json.dumps({**asdict(network), **asdict(settings), **origin}))
        where, resolved = device(), resolve_dtype(dtype)
        schedule = NoiseSchedule.from_betas(schedule_betas(beta_schedule(network), str(out)))
        self._training = DenoiserTraining(network, settings, schedule, where, resolved)
        if start is not None:
            self._training.start_from(start.weights)
        self._pixels = _resident(pictures.pixels, where)
        self._run = Run()
        self._go_on()
        here = f"{_hardware(where)}, {str(resolved).removeprefix('torch.')}"
        self._run.hardware = sorted({*self._run.hardware, here})
        num = sum(p.numel() for p in self._training.network.parameters())
        tell(f"{num:,} parameters, {pictures.facts['pictures']:,} pictures, on {here}")
        if self._training.step:
            tell(f"going on after {self._num_images:,} images ({self._run.elapsed_s / 60:.0f} min)")
        elif start is not None:
            tell(f"starting from {start.facts['name']}, which has seen {start.facts['images_seen']:,} images")

    @property
    def _num_images(self) -> int:
        return self._training.step * self._settings.batch_size

    def run(self, budget: Budget, keep_every_s: float) -> dict[str, Any]:
        """Train until the budget is used up; returns the content of `training.json`."""
        with _stop_requested() as stopped:
            try:
                self._train(budget, stopped, keep_every_s)
            except torch.OutOfMemoryError:
                raise PipelineError(
                    f"train-denoiser {self._out}: out of memory with batches of {self._settings.batch_size}; lower "
                    "--batch-size"
                ) from None
        return self.card()

    def _train(self, budget: Budget, stopped: threading.Event, keep_every_s: float) -> None:
        started, before_s, first_step = time.monotonic(), self._run.elapsed_s, self._training.step
        reported_at, keep_at, measure_at, training_s = started, started + keep_every_s, started, 0.0
        while (share := budget.share(self._run.elapsed_s, self._num_images)) < 1 and not stopped.is_set():
            since = time.monotonic()
            self._training.advance(self._pixels, self._pictures.rows, share)
            now = time.monotonic()
            training_s += now - since
            self._run.elapsed_s = before_s + now - started
            if now - reported_at >= _TELL_EVERY_S:
                rate = (self._training.step - first_step) * self._settings.batch_size / training_s
                self._report(self._progress(budget, rate))
                reported_at = now
            if now >= keep_at:
                self._keep()
                keep_at = now + keep_every_s
                if now >= measure_at:
                    self._measure()
                    measure_at = now + (time.monotonic() - now) / _MEASURE_SHARE
        self._keep()
        if stopped.is_set():
            self._report(f"{self._out}: usable as it is; the same command goes on from here")
            raise KeyboardInterrupt
        self._measure()

    def card(self) -> dict[str, Any]:
        """Content of `training.json`."""
        return {
            "made_by": MADE_BY,
            "data": {**self._pictures.facts, "licence": self._licence or "not stated"},
            "started_from": dict(self._start.facts) if self._start is not None else None,
            "network": asdict(self._network),
            "parameters": sum(p.numel() for p in self._training.network.parameters()),
            "settings": asdict(self._settings),
            "steps": self._training.step,
            "images_seen": self._num_images,
            "wall_time_s": round(self._run.elapsed_s),
            "hardware": self._run.hardware,
            "training_loss": round(self._checked_loss(), 5) if self._training.step else None,
            "measured": self._run.measured,
        }

    def _progress(self, budget: Budget, rate: float) -> str:
        loss, seen = self._checked_loss(), self._num_images
        left_s = 60 * budget.minutes - self._run.elapsed_s if budget.minutes else ((budget.images or 0) - seen) / rate
        return (
            f"step {self._training.step:,}: {seen:,} images, {rate:.1f} images/s, loss {loss:.4f}, "
            f"{max(0.0, left_s) / 60:.0f} min left"
        )

    def _checked_loss(self) -> float:
        loss = float(self._training.loss)
        if not math.isfinite(loss):
            raise CheckpointError(
                f"train-denoiser {self._out}: the loss is {loss} at step {self._training.step}; start over with a "
                f"--learning-rate below {self._settings.learning_rate:g}, or with --dtype float32"
            )
        return loss

    def _keep(self) -> None:
        """Write the state of the run, and the model's folder."""
        self._checked_loss()
        about = {"identity": self._identity, "step": self._training.step, "run": asdict(self._run)}
        write_tensors(self._checkpoint, self._training.state(), about)
        write_folder(self._out, self._training, self._network, self.card())

    def _go_on(self) -> None:
        if not self._checkpoint.exists():
            return
        start_over = f"name another OUT, or delete {self._checkpoint.parent} and {self._out} to start over"
        try:
            header = read_header(self._checkpoint)
            before, step = header.about["identity"], header.about["step"]
            other = [name for name, value in self._identity.items() if before.get(name) != value]
            if not other:
                self._run = run_of(header.about["run"], step)
                check_shapes(header.shapes, self._training.state_shapes(step))
                self._training.go_on_from(read_tensors(self._checkpoint)[0], step)
        except (SafetensorError, OSError, KeyError, ValueError, TypeError, AttributeError) as error:
            reason = visible(f"has no {error}" if isinstance(error, KeyError) else str(error))[:200]
            raise CheckpointError(
                f"train-denoiser {self._checkpoint}: training cannot continue from it ({reason}); {start_over}"
            ) from None
        if other:
            changes = ", ".join(
                f"{name} was {visible(str(before.get(name)))[:60]} and is {self._identity[name]}" for name in other
            )
            raise ParamsError(f"train-denoiser {self._out}: was begun with other settings ({changes}); {start_over}")

    def _measure(self) -> None:
        """Measure the model of the folder, and report the result."""
        found = measure(self._out, self._pictures, self._settings.seed)
        self._run.measured = [m for m in self._run.measured if m["images_seen"] < self._num_images]
        self._run.measured.append({"images_seen": self._num_images, "wall_time_s": round(self._run.elapsed_s), **found})
        self._keep()
        self._report(
            f"after {self._num_images:,} images: held-out loss {found['held_out_loss']:.4f} ("
            f"{found['trained_on_loss']:.4f} on pictures trained on), round trip {found['round_trip_psnr_db']:.1f} dB, "
            f"{self._out / 'samples.png'}"
        )


@contextmanager
def _stop_requested() -> Generator[threading.Event]:
    """Set by a first SIGINT or SIGTERM; a second one has its usual effect."""
    stopped = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stopped
        return
    signals = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.getsignal(number) for number in signals}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def stop(_number: int, _frame: object) -> None:
        stopped.set()
        restore()

    for number in signals:
        signal.signal(number, stop)
    try:
        yield stopped
    finally:
        restore()


def _resident(pixels: NDArray[np.uint8], where: torch.device) -> NDArray[np.uint8] | torch.Tensor:
    """The pictures on the GPU if they take at most a quarter of its free memory, else unchanged."""
    if where.type != "cuda" or pixels.nbytes > torch.cuda.mem_get_info(where)[0] / 4:
        return pixels
    return torch.from_numpy(np.array(pixels)).to(where)


def _hardware(where: torch.device) -> str:
    if where.type == "cuda":
        return torch.cuda.get_device_name(where)
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
    num = torch.get_num_threads()
    return f"{name}, {num} thread{'s' * (num > 1)}"
