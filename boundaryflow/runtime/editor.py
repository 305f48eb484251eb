"""An editor as this machine runs it: batches that fit, networks on its device."""

from __future__ import annotations

from pathlib import Path

from boundaryflow.diffusion import EpsModel
from boundaryflow.editing.editor import Editor, EditSettings, make_editor
from boundaryflow.evaluation import load_segmenter
from boundaryflow.runtime.device import device
from boundaryflow.runtime.memory import chunk_size


def open_editor(model: EpsModel, settings: EditSettings, run_seed: int) -> Editor:
    """The editor that the settings ask for; see `make_editor`.

    Raises:
        PipelineError: The segmenter of `settings.mask` cannot be opened.
    """
    mask = settings.mask if settings.is_guided else None
    segmenter = load_segmenter(Path(mask["segmenter"]), device()) if mask else None
    return make_editor(model, settings, run_seed, segmenter=segmenter, images_per_call=chunk_size)
