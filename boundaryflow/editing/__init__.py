"""The search for the mixing step, the guided edit, the single-step edit, and the authors' release as it is."""

from boundaryflow.editing.guidance import Guidance
from boundaryflow.editing.guided import NoisedSource, guided_edit, observe_noised
from boundaryflow.editing.mask import parts_mask
from boundaryflow.editing.mixing_step import Curves, choose_mixing_step, measure_curves, separability
from boundaryflow.editing.paper_mode import paper_edit, paper_invert
from boundaryflow.editing.single_step import Move, edit
from boundaryflow.editing.sweep import edit_at_strengths

__all__ = [
    "Curves",
    "Guidance",
    "Move",
    "NoisedSource",
    "choose_mixing_step",
    "edit",
    "edit_at_strengths",
    "guided_edit",
    "measure_curves",
    "observe_noised",
    "paper_edit",
    "paper_invert",
    "parts_mask",
    "separability",
]
