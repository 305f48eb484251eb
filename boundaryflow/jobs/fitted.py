"""Boundaries, model and settings that jobs edit with: what a run left, or what a bundle holds."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from boundaryflow.boundary import Boundaries, load_boundaries
from boundaryflow.config import DatasetParams, is_name
from boundaryflow.config.edit_settings import edit_settings
from boundaryflow.config.wording import closest
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


@dataclass(frozen=True)
class Fitted:
    """A model, the boundaries that were fitted for it, and the settings of its edits.

    Attributes:
        name: Name of the data set.
        where: Whose boundaries these are, for messages: `data set 'faces'`.
        geometry: How pictures are brought to the model's size, see `decode_image`.
        is_guided: Whether edits are guided, and not single steps.
        run_seed: Seed of all noise.
        boundaries: Attribute to its boundaries, or to their file.
        preserved: Attributes that the edits of others preserve.
        opener: Opens the model, and gives the settings; called once.
    """

    name: str
    where: str
    geometry: Mapping[str, Any]
    is_guided: bool
    run_seed: int
    boundaries: Mapping[str, Path | Boundaries]
    preserved: Collection[str]
    opener: Callable[[], tuple[EpsModel, EditSettings]]

    @cached_property
    def opened(self) -> tuple[EpsModel, EditSettings]:
        """The model, and the settings of its edits.

        Raises:
            PipelineError: See `model_and_settings`.
        """
        return self.opener()

    def boundary(self, attribute: str) -> Boundaries:
        """The boundaries of an attribute.

        Raises:
            BoundaryError: There are none, or their file is damaged.
        """
        return _boundary(self.boundaries, attribute, self.where)

    @cached_property
    def held(self) -> list[Boundaries]:
        """Boundaries of the attributes that the edits of others preserve."""
        return [self.boundary(attribute) for attribute in sorted(self.preserved)]


def fitted_for(dataset: str, params: DatasetParams, run_seed: int, root: Path = Path()) -> Fitted:
    """What a run has fitted for a data set, and what was fitted from words.

    Args:
        dataset: Its name.
        params: Its section of params.yaml.
        run_seed: Seed of all noise.
        root: The checkout.
    """
    return Fitted(
        name=dataset,
        where=f"data set {dataset!r}",
        geometry=params.ingest.geometry,
        is_guided=params.edit.method == "guided" and not params.paper_mode,
        run_seed=run_seed,
        boundaries=_files(dataset, root),
        preserved=[path.stem for path in BOUNDARY.folder(dataset, root).glob("*.safetensors")],
        opener=lambda: model_and_settings(dataset, params, root),
    )


def open_boundary(dataset: str, attribute: str) -> Boundaries:
    """The boundaries of an attribute, from a run or from words.

    Raises:
        BoundaryError: There are none.
    """
    return _boundary(_files(dataset), attribute, f"data set {dataset!r}")


def _files(dataset: str, root: Path = Path()) -> dict[str, Path]:
    """Attribute to the file of its boundaries; those of a run come before those from words."""
    folders = (TEXT.folder(dataset, root), BOUNDARY.folder(dataset, root))
    return {path.stem: path for folder in folders for path in sorted(folder.glob("*.safetensors"))}


def _boundary(known: Mapping[str, Path | Boundaries], attribute: str, where: str) -> Boundaries:
    if is_name(attribute) and attribute in known:
        found = known[attribute]
        return load_boundaries(found) if isinstance(found, Path) else found
    names = f"there are {', '.join(sorted(known))}" if known else "there are none yet; run `boundaryflow run` first"
    near = closest(attribute, sorted(known))
    hint = f"; did you mean {near!r}?" if near else ""
    raise BoundaryError(f"boundary {visible(attribute)!r} of {where} does not exist: {names}{hint}")


def fitted_boundaries(dataset: str) -> list[Boundaries]:
    """Boundaries of all attributes that a run has fitted."""
    return [load_boundaries(path) for path in sorted(BOUNDARY.folder(dataset).glob("*.safetensors"))]


def model_and_settings(dataset: str, params: DatasetParams, root: Path = Path()) -> tuple[EpsModel, EditSettings]:
    """Model of a data set, and settings of its edits from params.yaml and the finished stages.

    Raises:
        PipelineError: The stages have not run, or ran before `edit.method` was set to the single step.
    """
    model = open_model(_below(root, params.model), params.dtype)
    facts, observed = INVERT.read_facts(dataset, root), OBSERVE.read_facts(dataset, root)
    if params.edit.mask is not None:
        segmenter = _below(root, params.edit.mask.segmenter)
        mask = params.edit.mask.model_copy(update={"segmenter": segmenter})
        params = params.model_copy(update={"edit": params.edit.model_copy(update={"mask": mask})})
    return model, settings_of(params, facts, observed)


def settings_of(params: DatasetParams, inverted: Mapping[str, Any], observed: Mapping[str, Any]) -> EditSettings:
    """Settings of a data set's edits; see `edit_settings`.

    Raises:
        BoundaryError: They are of a single step, and nothing was inverted.
    """
    dtype = str(resolve_dtype(params.dtype)).removeprefix("torch.")
    settings = edit_settings(params, params.edit.method, path=inverted, observed=observed, dtype=dtype)
    if settings.t_mix is None and not settings.is_guided:
        raise BoundaryError(NOT_INVERTED)
    return settings


def _below(root: Path, source: str) -> str:
    """A path of params.yaml, which is relative to the checkout; anything else, such as a hub id, as it is."""
    file = source.rpartition(":")[0] if ".py:" in source else source
    return str(root / source) if root != Path() and (root / file).exists() else source
