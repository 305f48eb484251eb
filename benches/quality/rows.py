"""The rows of the table: each edits pictures at its own strengths."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from benches.quality.guided import Guided
from benches.quality.pictures import Edit, Latents
from benches.quality.single_step import SDEDIT_TIMESTEPS, SingleStep
from boundaryflow.diffusion import EpsModel, timestep_path

OURS, CLEANED = "guided (default)", "paper, cleaned"


@dataclass(frozen=True)
class Row:
    """One row of the table.

    Attributes:
        name: What it is called there.
        what: One line about it.
        strengths: K, rising; units are the row's own.
        edit: (pictures, attributes) to [N,K,C,H,W] in model range.
        settings: What else the edits depend on.
        calls: Network calls per image and strength, gradients through the encoder counted as one.
        code: The files that make the edits.
        edits_pairs: Can it set two attributes at once?
        is_fitted: Does it depend on the pictures to fit on?
    """

    name: str
    what: str
    strengths: tuple[float, ...]
    edit: Edit
    settings: dict[str, Any]
    calls: int = 40
    code: tuple[str, ...] = ("benches/quality/single_step.py", "boundaryflow/editing/single_step.py")
    edits_pairs: bool = True
    is_fitted: bool = True


def all_rows(model: EpsModel, latents: Latents, num_train: int, t_mix: int, settings: dict[str, Any]) -> list[Row]:
    """Every row, fitted on `num_train` pictures.

    Args:
        model: The frozen model.
        latents: What it sees of the pictures to fit on.
        num_train: How many of them.
        t_mix: The mixing step of the rows that have one.
        settings: `edit.guided`, `observe` and what `boundary` says of noise levels in params.yaml.
    """
    single = SingleStep(model, latents, num_train, timestep_path(t_mix, 40))
    guided = Guided(model, latents, num_train, settings)
    gaps = (1.0, 2.0, 4.0, 8.0)
    mixing = {"t_mix": t_mix}
    return [
        Row("SDEdit", "noise added, then denoised: knows no attribute, the floor", SDEDIT_TIMESTEPS, single.sdedit,
            {}, calls=12, is_fitted=False),
        Row("paper, as released", "`paper_mode` with eta 1", single.paper_distances, single.paper, mixing,
            code=("benches.quality.single_step", "boundaryflow.editing.paper_mode"), edits_pairs=False),
        Row(CLEANED, "h at the same t, intercepts, unit normals, strengths in gaps between classes, eta 1",
            gaps, single.of("svm", {"eps": 1.0, "h": 1.0}, gaps, eta=1.0, residuals=False), mixing),
        Row("class means", "the line between the class means in ε-space, with DDIM residuals, eta 0", gaps,
            single.of("mean", {"eps": 1.0}, gaps), mixing),
        Row("single step", "`edit.method: single_step`: the SVM in ε-space, with DDIM residuals, eta 0", gaps,
            single.of("svm", {"eps": 2.0}, gaps), mixing),
        Row(OURS, "`edit.method: guided`", guided.strengths, guided.edit, settings, guided.calls,
            ("benches/quality/guided.py", "boundaryflow/editing/guided.py", "boundaryflow/editing/hyperplanes.py")),
    ]  # fmt: skip
