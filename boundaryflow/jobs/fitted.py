"""What a run left for a data set: its boundaries, its model, and the settings of its edits."""

from __future__ import annotations

from pathlib import Path

from boundaryflow.boundary import Boundaries, load_boundaries
from boundaryflow.config import DatasetParams, is_name
from boundaryflow.diffusion import EpsModel
from boundaryflow.editing.editor import EditSettings
from boundaryflow.errors import BoundaryError
from boundaryflow.runtime.device import resolve_dtype
from boundaryflow.runtime.frozen_model import open_model
from boundaryflow.store.tables import read_json
from boundaryflow.text import visible


def open_boundary(dataset: str, attribute: str) -> Boundaries:
    """The boundaries of an attribute, from a run or from words.

    Raises:
        BoundaryError: There are none.
    """
    folders = [Path("data") / stage / dataset for stage in ("boundary", "text")]
    for folder in folders if is_name(attribute) else ():
        if (folder / f"{attribute}.safetensors").exists():
            return load_boundaries(folder / f"{attribute}.safetensors")
    found = sorted(p.stem for folder in folders for p in folder.glob("*.safetensors"))
    known = f"there are {', '.join(found)}" if found else "there are none yet; run `boundaryflow run` first"
    raise BoundaryError(f"boundary {visible(attribute)!r} of data set {dataset!r} does not exist: {known}")


def fitted_boundaries(dataset: str) -> list[Boundaries]:
    """Boundaries of all attributes that a run has fitted."""
    return [load_boundaries(path) for path in sorted((Path("data/boundary") / dataset).glob("*.safetensors"))]


def model_and_settings(dataset: str, params: DatasetParams) -> tuple[EpsModel, EditSettings]:
    """Model of a data set, and settings of its edits from params.yaml and the finished stages."""
    model = open_model(params.model, params.dtype)
    facts, path = (read_json(Path("data") / s / dataset / f"{s}.json") for s in ("invert", "observe"))
    numbers = params.edit.model_dump(exclude={"split", "max_images", "edits"})
    dtype = str(resolve_dtype(params.dtype)).removeprefix("torch.")
    return model, EditSettings(
        **numbers,
        t_mix=facts["t_mix"],
        num_steps=facts["num_steps"],
        noise_until=facts["noise_until"],
        order=facts["order"],
        dtype=dtype,
        paper_mode=params.paper_mode,
        timesteps=path["timesteps"],
    )
