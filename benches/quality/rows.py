"""The rows of the table that are ours and the paper's: each edits pictures at its own strengths."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from benches.quality.calls import Counted
from benches.quality.guided import Guided
from benches.quality.pictures import Edit, Latents
from benches.quality.single_step import SDEDIT_TIMESTEPS, SingleStep
from boundaryflow.diffusion import EpsModel, timestep_path

OURS, CHEAP, CHEAPEST, CLEANED = "guided (default)", "guided, few calls", "guided, fewest calls", "paper, cleaned"
FAMILY = OURS, CHEAP, CHEAPEST


@dataclass(frozen=True)
class Row:
    """One row of the table.

    Attributes:
        name: What it is called there.
        what: One line about it.
        strengths: K, rising; units are the row's own.
        edit: (pictures, attributes) to [N,K,C,H,W] in model range.
        counter: The model that `edit` calls.
        settings: What else the edits depend on.
        code: The modules that make the edits.
        edits_pairs: Can it set two attributes at once?
        is_fitted: Does it depend on the pictures to fit on?
        is_baseline: Is it a method of others that the default is held against?
        most_faces: Edit only so many faces of each attribute, with the first seed; None is all.
    """

    name: str
    what: str
    strengths: tuple[float, ...]
    edit: Edit
    counter: Counted
    settings: dict[str, Any]
    code: tuple[str, ...] = ("benches.quality.single_step",)
    edits_pairs: bool = True
    is_fitted: bool = True
    is_baseline: bool = False
    most_faces: int | None = None


def all_rows(
    model: EpsModel, latents: Latents, num_train: int, t_mix: int, settings: dict[str, Any], mix_steps: int = 40
) -> list[Row]:
    """Every such row, fitted on `num_train` pictures.

    Args:
        model: The frozen model.
        latents: What it sees of the pictures to fit on.
        num_train: How many of them.
        t_mix: The mixing step of the rows that have one.
        settings: `edit.guided`, `observe` and what `boundary` says of noise levels in params.yaml.
        mix_steps: Timesteps up to the mixing step.
    """
    counter = Counted(model)
    single = SingleStep(counter, latents, num_train, timestep_path(t_mix, mix_steps))
    guided = Guided(counter, latents, num_train, settings)
    cheap_settings = {**settings, "guided": {**settings["guided"], "num_iterations": 1}}
    cheapest_settings = {**settings, "guided": {**settings["guided"], "num_iterations": 1, "stride": 2}}
    cheap, cheapest = (Guided(counter, latents, num_train, some) for some in (cheap_settings, cheapest_settings))
    gaps = (1.0, 2.0, 4.0, 8.0)
    mixing = {"t_mix": t_mix, "mix_steps": mix_steps}
    guided_code = ("benches.quality.guided",)
    return [
        Row("SDEdit", "noise added, then denoised: knows no attribute, the floor", SDEDIT_TIMESTEPS, single.sdedit,
            counter, {}, is_fitted=False),
        Row("paper, as released", "`paper_mode` with eta 1", single.paper_distances, single.paper, counter, mixing,
            edits_pairs=False),
        Row(CLEANED, "h at the same t, intercepts, unit normals, strengths in gaps between classes, eta 1", gaps,
            single.of("svm", {"eps": 1.0, "h": 1.0}, gaps, eta=1.0, residuals=False), counter, mixing),
        Row("class means", "the line between the class means in ε-space, with DDIM residuals, eta 0", gaps,
            single.of("mean", {"eps": 1.0}, gaps), counter, mixing),
        Row("single step", "`edit.method: single_step`: the SVM in ε-space, with DDIM residuals, eta 0", gaps,
            single.of("svm", {"eps": 2.0}, gaps), counter, mixing),
        Row(OURS, "`edit.method: guided`", guided.strengths, guided.edit, counter, settings, guided_code),
        Row(CHEAP, "the same, in one iteration", cheap.strengths, cheap.edit, counter, cheap_settings, guided_code),
        Row(CHEAPEST, "the same, at every other noise level", cheapest.strengths, cheapest.edit, counter,
            cheapest_settings, guided_code),
    ]  # fmt: skip
