"""Opens an editor with this machine's batch size, its networks on this machine's device."""

from __future__ import annotations

from pathlib import Path

from boundaryflow.diffusion import EpsModel
from boundaryflow.editing.editor import Editor, EditSettings
from boundaryflow.editing.guided_editor import GuidedEditor
from boundaryflow.editing.mixing_step_editors import PaperEditor, SingleStepEditor
from boundaryflow.evaluation.judges import load_segmenter
from boundaryflow.runtime.device import device
from boundaryflow.runtime.memory import chunk_size


def open_editor(model: EpsModel, settings: EditSettings, run_seed: int) -> Editor:
    """The editor of the chosen method: guided, single step, or paper mode.

    Raises:
        PipelineError: The segmenter of `settings.mask` cannot be opened.
    """
    if not settings.is_guided:
        method = PaperEditor if settings.paper_mode else SingleStepEditor
        return method(model, settings, run_seed, chunk_size)
    segmenter = load_segmenter(Path(settings.mask.segmenter), device()) if settings.mask else None
    return GuidedEditor(model, settings, run_seed, chunk_size, segmenter)
