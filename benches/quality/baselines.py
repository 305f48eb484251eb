"""The rows of the table that are other methods: no network is trained but a classifier, on the same faces as ours."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from benches.quality.ace import Ace
from benches.quality.calls import Counted
from benches.quality.classifier import FittedClassifier
from benches.quality.counterfactuals import Loops, at_scales
from benches.quality.guided import Guided
from benches.quality.latent_directions import LatentDirections
from benches.quality.pictures import Latents
from benches.quality.rows import Row
from boundaryflow.diffusion import EpsModel, Features, timestep_path

START, NUM_STEPS, NUM_DIME_STEPS = 299, 60, 20  # alpha_bar 0.40; steps from there
ACE_PATH = timestep_path(83, 6)[1:]  # alpha_bar 0.925
DIRECTIONS_END, NUM_DIRECTION_STEPS = 520, 40
DIME_FACES = 2


def baseline_rows(model: EpsModel, latents: Latents, num_train: int, settings: dict[str, Any]) -> list[Row]:
    """Every such row, fitted on `num_train` pictures.

    Args:
        model: The frozen model.
        latents: What it sees of the pictures to fit on.
        num_train: How many of them.
        settings: See `rows.all_rows`.
    """
    counter = Counted(model)
    classifier = FittedClassifier(model, latents, num_train, START)
    loops = Loops(counter, classifier, timestep_path(START, NUM_STEPS))
    few = Loops(counter, classifier, timestep_path(START, NUM_DIME_STEPS))
    ace = Ace(counter, classifier, ACE_PATH)
    ours = Guided(counter, latents, num_train, settings)
    observed = timestep_path(settings["t_max"], settings["num_steps"], 1.5)[5::3]
    directions = LatentDirections(
        counter, Latents(model, latents.train, latents.held_out), num_train, observed,
        timestep_path(DIRECTIONS_END, NUM_DIRECTION_STEPS),
    )  # fmt: skip
    pullback_at = observed[-2]
    scales, plane_scales, steps = (15.0, 30.0, 60.0, 120.0), (1.0, 3.0, 10.0, 30.0), (2.0, 4.0, 8.0)
    gaps, lengths = (2.0, 4.0, 8.0, 16.0), (4.0, 8.0, 16.0, 32.0)
    code = ("benches.quality.counterfactuals",)
    direction_code = ("benches.quality.latent_directions",)
    classified = {"start": START, "num_steps": NUM_STEPS}
    along = {"observed": observed, "end": DIRECTIONS_END, "num_steps": NUM_DIRECTION_STEPS}
    rows = [
        Row("FastDiME", "gradients of a small CNN on the predicted image, unchanged parts pasted", scales,
            at_scales(loops.fast_dime, scales), counter, classified, code),
        Row("MaskDiME", "the same, only where the gradient is largest", scales,
            at_scales(loops.mask_dime, scales), counter, classified, code),
        Row("DiME", "the CNN sees a sample drawn to the end at every step; 20 steps, few faces", scales[1:],
            at_scales(few.dime, scales[1:]), counter, {"start": START, "num_steps": NUM_DIME_STEPS}, code,
            most_faces=DIME_FACES),
        Row("ACE", "the CNN attacked through five steps of the denoiser, L1; strengths are grey levels a step", steps,
            at_scales(ace.edit, steps), counter, {"path": ACE_PATH}, ("benches.quality.ace",)),
        Row("FastDiME, our hyperplanes", "its loop with the log-odds of our hyperplanes", plane_scales,
            at_scales(loops.fast_dime_with(lambda: ours.hyperplanes, Features(**(settings["features"] or {}))),
                      plane_scales), counter, {**settings, "loop": classified}, (*code, "benches.quality.guided")),
        Row("edit-friendly, our hyperplanes", "DDPM inversion with the noise kept, h moved by class gaps", gaps,
            directions.edit_friendly(gaps), counter, along, direction_code),
        Row("pullback directions", "a singular vector of the Jacobian of h, chosen and signed by labels", lengths,
            directions.pullback(lengths, pullback_at), counter, {**along, "at": pullback_at}, direction_code),
    ]  # fmt: skip
    return [replace(row, edits_pairs=False, is_baseline=True) for row in rows]
