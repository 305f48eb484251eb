"""Guesses about what the tensors of a checkpoint do not say, and a bounded search for the one that fits pictures best.

The search changes one thing at a time and keeps a change that lowers the error by more than `MARGIN`, until a round
changes nothing. Two wrong guesses can hide one another, so it is done twice, with the things in the opposite order, and
the better end counts. What is stated about a checkpoint is never changed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from boundaryflow.models.checkpoints import Checkpoint
from boundaryflow.models.noise_error import usable_sizes
from boundaryflow.models.prediction import Prediction, prediction_of
from boundaryflow.models.stated import Stated

MAX_GUESSES = 80
MARGIN = 0.02
"""By which share of the error a guess has to be better than what is taken for granted."""
_ROUNDS = 3
_RANGES = ((-1.0, 1.0), (0.0, 1.0), (-0.5, 0.5))
_NUM_HEADS, _HEAD_CHANNELS = (1, 2, 4, 8), (32, 64, 128)
_SCHEDULES: tuple[dict[str, Any], ...] = (
    *({"beta_schedule": "linear", "num_train_timesteps": num} for num in (1000, 500, 300)),
    *({"beta_schedule": "squaredcos_cap_v2", "num_train_timesteps": num} for num in (1000, 500, 300)),
    *({"beta_schedule": "scaled_linear", "num_train_timesteps": num, "beta_start": 0.00085, "beta_end": 0.012}
      for num in (1000, 500, 300)),
)  # fmt: skip
"""The betas of scaled_linear are those of latent diffusion, the one family that has it."""
_IDDPM_SCHEDULES: tuple[dict[str, Any], ...] = tuple(
    {"beta_schedule": name, "num_train_timesteps": 4000} for name in ("linear", "squaredcos_cap_v2")
)
"""improved-diffusion trains with 4000 timesteps, too."""
Measure = Callable[[Stated], Mapping[Prediction, float]]
"""Error of a guess, by what the network may predict; empty for a guess that no such network can have."""


class Search:
    """Finds the guess of the least error.

    Args:
        checkpoint: As it is understood without a guess.
        measure: See `Measure`; called at most `MAX_GUESSES` times.
        largest: Side of the largest images that may be tried.

    Attributes:
        start: What is stated and taken for granted.
        best: The best guess so far.
        least: Its error.
        num_measured: Guesses that were measured.
    """

    def __init__(self, checkpoint: Checkpoint, measure: Measure, largest: int) -> None:
        self._checkpoint, self._measure, self._largest = checkpoint, measure, largest
        self._known: dict[str, Mapping[Prediction, float]] = {}
        self._stated = checkpoint.stated
        self.num_measured = 0
        self.start = self.best = checkpoint.stated
        self.least = self.error(self.start)

    def run(self) -> None:
        """Search."""
        ends: list[tuple[float, Stated]] = []
        for axes in (self.axes(), self.axes()[::-1]):
            self.best, self.least = self.start, self.error(self.start)
            self._descend(axes)
            ends.append((self.least, self.best))
        self.least, self.best = min(ends, key=lambda end: end[0])

    def _descend(self, axes: Sequence[str]) -> None:
        for _round in range(_ROUNDS):
            before = self.best
            for name in axes:
                for guess in self.variants(name):
                    error = self.error(guess)
                    if error < self.least * (1 - MARGIN):
                        self.best, self.least = guess, error
            if self.best == before:
                return

    def error(self, guess: Stated) -> float:
        """Error of a guess; infinite where no network can be of it, or too many were measured."""
        schedule = {k: v for k, v in guess.schedule.items() if k != "prediction_type"}
        key = repr(replace(guess, schedule=dict(sorted(schedule.items()))))
        if key not in self._known and self.num_measured < MAX_GUESSES:
            self.num_measured += 1
            self._known[key] = self._measure(guess)
        return self._known.get(key, {}).get(self.prediction(guess), math.inf)

    def prediction(self, guess: Stated) -> Prediction:
        """What the network predicts, by a guess."""
        return prediction_of({**self._checkpoint.schedule, **guess.schedule}, self._checkpoint.source)

    def axes(self) -> list[str]:
        """What is open, in the order in which it is tried."""
        stated, found = self._stated, self._checkpoint
        is_file = Path(found.source).is_file()
        is_iddpm = is_file and found.architecture.family == "iddpm"
        says_schedule = {"beta_schedule", "num_train_timesteps"} <= stated.schedule.keys()
        is_open = {
            "predicts": "prediction_type" not in (stated.schedule if is_file else found.schedule),
            "schedule": is_file and not says_schedule and "trained_betas" not in stated.schedule,
            "value_range": "value_range" not in stated.facts(),
            "image_size": found.architecture.assumes_size,
            "heads": is_iddpm and stated.num_heads is None and stated.head_channels is None,
            "qkv_order": is_iddpm and stated.qkv_order is None,
            "channel_order": "channel_order" not in stated.facts() and found.channels > 1,
        }
        return [name for name in is_open if is_open[name]]

    def variants(self, axis: str) -> Iterator[Stated]:
        """The best guess so far with one thing changed."""
        best, found = self.best, self._checkpoint
        if axis == "predicts":
            yield from (replace(best, schedule={**best.schedule, "prediction_type": p}) for p in get_args(Prediction))
        elif axis == "schedule":
            kept = {k: v for k, v in best.schedule.items() if k == "prediction_type"} | dict(self._stated.schedule)
            more = _IDDPM_SCHEDULES if found.architecture.family == "iddpm" else ()
            yield from (replace(best, schedule={**schedule, **kept}) for schedule in (*_SCHEDULES, *more))
        elif axis == "value_range":
            yield from (replace(best, value_range=span) for span in _RANGES)
        elif axis == "image_size":
            levels = len(found.architecture.config["block_out_channels"])
            sizes = usable_sizes(found.image_size, levels, self._largest)
            yield from (replace(best, image_size=size) for size in (found.image_size, *sizes))
        elif axis == "heads":
            yield from (replace(best, num_heads=num, head_channels=None) for num in _NUM_HEADS)
            yield from (replace(best, num_heads=None, head_channels=num) for num in _HEAD_CHANNELS)
        else:
            values = {"qkv_order": ("legacy", "new"), "channel_order": ("rgb", "bgr")}[axis]
            yield from (replace(best, **{axis: value}) for value in values)
