"""Results of a run that jobs use: boundaries, model, and settings of edits."""

from __future__ import annotations

from boundaryflow.boundary import Boundaries, load_boundaries
from boundaryflow.config import DatasetParams, is_name
from boundaryflow.config.edit_settings import edit_settings
from boundaryflow.diffusion import EpsModel
from boundaryflow.editing.editor import NOT_INVERTED, EditSettings
from boundaryflow.errors import BoundaryError
from boundaryflow.runtime.device import resolve_dtype
from boundaryflow.runtime.frozen_model import open_model
from boundaryflow.store.catalog.boundary import BOUNDARY
from boundaryflow.store.catalog.invert import INVERT
from boundaryflow.store.catalog.jobs import TEXT
from boundaryflow.store.catalog.observe import OBSERVE
from boundaryflow.text import visible


def open_boundary(dataset: str, attribute: str) -> Boundaries:
    """The boundaries of an attribute, from a run or from words.

    Raises:
        BoundaryError: There are none.
    """
    folders = [BOUNDARY.folder(dataset), TEXT.folder(dataset)]
    for folder in folders if is_name(attribute) else ():
        if (folder / f"{attribute}.safetensors").exists():
            return load_boundaries(folder / f"{attribute}.safetensors")
    found = sorted(p.stem for folder in folders for p in folder.glob("*.safetensors"))
    known = f"there are {', '.join(found)}" if found else "there are none yet; run `boundaryflow run` first"
    raise BoundaryError(f"boundary {visible(attribute)!r} of data set {dataset!r} does not exist: {known}")


def fitted_boundaries(dataset: str) -> list[Boundaries]:
    """Boundaries of all attributes that a run has fitted."""
    return [load_boundaries(path) for path in sorted(BOUNDARY.folder(dataset).glob("*.safetensors"))]


def model_and_settings(dataset: str, params: DatasetParams) -> tuple[EpsModel, EditSettings]:
    """Model of a data set, and settings of its edits from params.yaml and the finished stages.

    Raises:
        PipelineError: The stages have not run, or ran before `edit.method` was set to the single step.
    """
    model = open_model(params.model, params.dtype)
    facts, observed = INVERT.read_facts(dataset), OBSERVE.read_facts(dataset)
    dtype = str(resolve_dtype(params.dtype)).removeprefix("torch.")
    settings = edit_settings(params, params.edit.method, path=facts, observed=observed, dtype=dtype)
    if settings.t_mix is None and not settings.is_guided:
        raise BoundaryError(NOT_INVERTED)
    return model, settings
