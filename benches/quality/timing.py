"""What a network call takes within the loop of each row, all rows one after another in one process."""

from __future__ import annotations

import time
from collections.abc import Collection
from typing import Any

from benches.quality.baselines import baseline_rows
from benches.quality.pictures import Faces, Latents
from benches.quality.rows import all_rows
from boundaryflow.diffusion import EpsModel

NUM_FACES, NUM_TRAIN, ATTRIBUTE = 8, 64, "hat"


def seconds_per_call(
    model: EpsModel, test: Faces, settings: dict[str, Any], t_mix: int, mix_steps: int, names: Collection[str]
) -> dict[str, float]:
    """Row to seconds for one network call of one image, with all that the row does beside it.

    What a row fits is fitted before, on few faces: how many they are changes how many calls an edit takes (noise levels
    that separate nothing are left out), and not what a call takes. Edits may have been made on another machine, or
    beside other work; these are timed here and now, in turns of some seconds.

    Args:
        model: The frozen model.
        test: Faces to edit, at least `NUM_FACES`.
        settings: See `all_rows`.
        t_mix: See `all_rows`.
        mix_steps: See `all_rows`.
        names: The rows to time.
    """
    latents = Latents(model, Faces.draw(0, NUM_TRAIN), Faces.draw(1, NUM_TRAIN), settings["features"])
    lenient = {**settings, "boundary": {**settings["boundary"], "min_auc": 0.5}}
    rows = all_rows(model, latents, NUM_TRAIN, t_mix, lenient, mix_steps)
    found: dict[str, float] = {}
    for row in [*rows, *baseline_rows(model, latents, NUM_TRAIN, lenient)]:
        if row.name not in names:
            continue
        row.edit(test.take([0]), [ATTRIBUTE])
        row.counter.reset()
        started = time.perf_counter()
        row.edit(test.take(range(row.most_faces or NUM_FACES)), [ATTRIBUTE])
        found[row.name] = (time.perf_counter() - started) / row.counter.calls
        print(f"{row.name}: {1 / found[row.name]:.0f} calls/s", flush=True)
    return found
