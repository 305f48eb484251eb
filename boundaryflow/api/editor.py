"""`boundaryflow.Editor`: pictures, arrays and tensors, edited."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from boundaryflow.api.boundary import NUM_STEPS, T_MAX, Boundary, features_in, path_of, plain_geometry
from boundaryflow.api.images import Images, read_images, read_masks
from boundaryflow.config.sections import GuidedParams
from boundaryflow.config.wording import told
from boundaryflow.diffusion import EpsModel
from boundaryflow.editing import Guidance
from boundaryflow.editing.editor import EditSettings
from boundaryflow.errors import BoundaryError, ParamsError
from boundaryflow.jobs.bundle import open_bundle
from boundaryflow.jobs.edit_images import check_amounts, edit_images
from boundaryflow.jobs.fitted import Fitted
from boundaryflow.runtime.frozen_model import open_model

GUIDANCE = Guidance(
    certainty=0.95,
    gain=1.75,
    tweedie_projection=True,
    preserve=1.0,
    preserve_residual=0.3,
    max_step=0.05,
    soft_threshold=0.05,
    region=0.0,
    num_draws=1,
    num_iterations=1,
    stride=2,
)
"""Values of the guided edit, as `defaults.edit.guided` in params.yaml."""
_TOGETHER = 16
"""Images edited at once at most; their edits at all noise levels are in memory."""


def load_model(source: str | PathLike[str], *, dtype: str = "auto") -> EpsModel:
    """Load a frozen diffusion model, on the device that BOUNDARYFLOW_DEVICE names.

    Args:
        source: A diffusers folder, a DDPM or iDDPM checkpoint, a hub id, or `FILE.py:FUNCTION` (docs/models.md).
        dtype: `auto` (bfloat16 where the hardware has it), `float32` or `bfloat16`.

    Raises:
        PipelineError: It cannot be used.
    """
    if dtype not in ("auto", "float32", "bfloat16"):
        raise ParamsError(f"dtype is {dtype!r}, must be auto, float32 or bfloat16")
    return open_model(str(source), dtype)


def load(folder: str | PathLike[str], *, model: str | PathLike[str] | None = None) -> Editor:
    """Open a bundle that `boundaryflow bundle` wrote; nothing in it is run.

    Args:
        folder: The bundle.
        model: The model that it was fitted for; None takes the bundle's own, or looks where the bundle says.

    Raises:
        PipelineError: It is damaged, leads out of its folder, or does not fit the model.
    """
    return Editor.of(open_bundle(Path(folder), None if model is None else str(model)))


class Editor:
    """Edits images with the boundaries of a model.

    `load` gives one for a bundle, `Run.editor` one for the data set of a project; this makes one of boundaries.

    Args:
        model: Result of `load_model`.
        boundaries: Boundaries that were fitted on it. An edit of one attribute preserves the others.
        t_max: Noisiest timestep of the path; as the boundaries were fitted.
        num_steps: Number of timesteps; as the boundaries were fitted.
        run_seed: Seed of all noise.
        guidance: Values of the guided edit that differ from `defaults.edit.guided` in params.yaml.

    Raises:
        PipelineError: A boundary does not fit the model or the path, or a value does not exist.
    """

    def __init__(
        self,
        model: EpsModel,
        boundaries: Sequence[Boundary],
        *,
        t_max: int = T_MAX,
        num_steps: int = NUM_STEPS,
        run_seed: int = 0,
        guidance: Mapping[str, float | bool] | None = None,
    ) -> None:
        known = {boundary.attribute: boundary.hyperplanes for boundary in boundaries}
        if not known:
            raise BoundaryError("boundaries: none are given; fit one with Boundary.fit")
        path = path_of(model, t_max, num_steps)
        features = features_in([plane.space for found in known.values() for plane in found.noised] or ["h"])
        for attribute, found in known.items():
            other = next((plane.t for plane in found.noised if plane.t not in path), None)
            if other is not None:
                raise BoundaryError(
                    f"boundary {attribute!r}: has a hyperplane at timestep {other}, which is not on the path of t_max "
                    f"{t_max} and num_steps {num_steps}; give the values that it was fitted with"
                )
            found.along_path(path, model.sha256, features.space)
        settings = EditSettings(
            t_mix=None, num_steps=2, noise_until=0, order=1, eta=0.0, residuals=True, eps_scale=0.0, h_scale=0.0,
            h_window=(1.0, 0.0), strengths=(), paper_mode=False, dtype="auto", method="guided",
            guided=_guidance(guidance or {}), mask=None, conditional=False, timesteps=path, features=features,
        )  # fmt: skip
        self._fitted = Fitted(
            name="", where="this editor", geometry=plain_geometry(model), is_guided=True, run_seed=run_seed,
            boundaries=known, preserved=list(known), opener=lambda: (model, settings),
        )  # fmt: skip

    @classmethod
    def of(cls, fitted: Fitted) -> Editor:
        """An editor of what a run or a bundle holds; its model is loaded now."""
        fitted.opened  # noqa: B018
        editor = cls.__new__(cls)
        editor._fitted = fitted
        return editor

    @property
    def model(self) -> EpsModel:
        """The frozen model."""
        return self._fitted.opened[0]

    @property
    def attributes(self) -> tuple[str, ...]:
        """Attributes that can be changed, sorted."""
        return tuple(sorted(self._fitted.boundaries))

    def boundary(self, attribute: str) -> Boundary:
        """The boundary of an attribute.

        Raises:
            BoundaryError: There is none, or its file is damaged.
        """
        return Boundary(self._fitted.boundary(attribute))

    def edit(
        self,
        images: Images,
        changes: Mapping[str, float],
        strength: float = 1.0,
        *,
        mask: Any = None,
        ids: Sequence[str] | None = None,
    ) -> Images:
        """Change attributes of images, all of them together.

        Args:
            images: A PIL picture or a list of them, which are cropped and resized as the data set's are; an array
                [H,W,C] or [N,H,W,C], or a tensor [C,H,W] or [N,C,H,W], of the model's size, uint8 or floats in [0, 1].
            changes: Attribute to +1 for adding it, -1 for removing it; another number multiplies its strength.
            strength: 1 makes an image a typical member of the other side, 0 returns it as it is.
            mask: Where the images may change: a picture that is white there, or an array or tensor [H,W] or [N,H,W].
            ids: Names of the images, from which their noise is drawn; None: hashes of their pixels.

        Returns:
            What was given, edited: the same type, dtype and order of axes. Pictures are of the model's size.

        Raises:
            PipelineError: An attribute does not exist, or images, mask or numbers are of another type or out of range.
        """
        return self.sweep(images, changes, [strength], mask=mask, ids=ids)[0]

    def sweep(
        self,
        images: Images,
        changes: Mapping[str, float],
        strengths: Sequence[float],
        *,
        mask: Any = None,
        ids: Sequence[str] | None = None,
    ) -> list[Images]:
        """Edit at several strengths; what these have in common is computed once. See `edit`.

        Returns:
            A result for each strength.
        """
        check_amounts("edit", changes, strengths)
        for attribute in changes:
            self._fitted.boundary(attribute)
        given = read_images(images, self.model, self._fitted.geometry)
        num = len(given.ids)
        names = given.ids if ids is None else [str(name) for name in ids]
        if len(names) != num:
            raise ParamsError(f"ids: {len(names)} names for {num} images, must be as many")
        masks = None if mask is None else read_masks(mask, num, self._fitted.geometry)
        parts = [
            edit_images(
                self._fitted,
                given.x_0[start : start + _TOGETHER],
                names[start : start + _TOGETHER],
                changes,
                strengths,
                None if masks is None else masks[start : start + _TOGETHER],
            )
            for start in range(0, num, _TOGETHER)
        ]
        return [given.back(of_strength) for of_strength in torch.cat(parts).unbind(1)]


def _guidance(stated: Mapping[str, float | bool]) -> Guidance:
    """Values of the guided edit, those that are not stated being `GUIDANCE`.

    Raises:
        ParamsError: One does not exist, or is out of range.
    """
    try:
        return Guidance(**GuidedParams.model_validate({**asdict(GUIDANCE), **stated}).model_dump())
    except ValidationError as error:
        raise ParamsError(f"guidance.{told(error.errors(), GuidedParams)[0]}") from None
