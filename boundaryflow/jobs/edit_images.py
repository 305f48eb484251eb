"""Edit images in memory: what the commands edit and sweep and the Python API have in common."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from boundaryflow.config import MAX_STRENGTH
from boundaryflow.editing.guided_editor import GuidedEditor
from boundaryflow.errors import BoundaryError, ManifestError
from boundaryflow.jobs.fitted import Fitted
from boundaryflow.runtime.editor import open_editor
from boundaryflow.runtime.memory import in_chunks


def edit_images(
    fitted: Fitted,
    x_0: Tensor,
    ids: Sequence[str],
    amounts: Mapping[str, float],
    strengths: Sequence[float],
    masks: Tensor | None = None,
) -> Tensor:
    """Change attributes of images, all of them together, at several strengths.

    Args:
        fitted: Model, boundaries and settings.
        x_0: [B,C,H,W] images in model range.
        ids: [B] names, from which their noise is drawn.
        amounts: Attribute to +1 for adding it, -1 for removing it; another number multiplies its strength.
        strengths: K strengths.
        masks: [B,H,W] in [0, 1], 1 where the image may change; None is everywhere.

    Returns:
        [B,K,C,H,W] in model range, not clipped.

    Raises:
        PipelineError: A boundary is missing or does not fit the model, or a mask is given for a single-step edit.
    """
    boundaries = [fitted.boundary(attribute) for attribute in amounts]
    model, settings = fitted.opened
    editor = open_editor(model, replace(settings, strengths=list(strengths)), fitted.run_seed)
    if masks is not None and not isinstance(editor, GuidedEditor):
        raise BoundaryError(
            f"mask: edit.method of {fitted.where} is single_step, which changes whole images; leave the mask out, or "
            "set edit.method: guided"
        )
    directions = torch.tensor([list(amounts.values())], dtype=torch.float32).expand(len(x_0), -1)

    def edit_some(some: slice) -> Tensor:
        images = x_0[some]
        if isinstance(editor, GuidedEditor):
            source = editor.open(images, ids[some], None if masks is None else masks[some])
        else:
            source = editor.open(images, ids[some])
        return editor.edit(source, range(len(images)), boundaries, directions[some], fitted.held)

    return torch.cat(in_chunks(len(x_0), edit_some, model))


def check_amounts(command: str, amounts: Mapping[str, float], strengths: Sequence[float]) -> None:
    """Refuse edits of nothing, and strengths that are too large.

    Raises:
        ManifestError: No attribute is named, or an amount or a strength is out of range.
    """
    if not amounts:
        raise ManifestError(f"{command}: no attribute is named; name one to change, such as smiling")
    for attribute, amount in amounts.items():
        if not math.isfinite(amount) or amount == 0:
            raise ManifestError(
                f"{command}: {attribute} is to change by {amount:g}, must be a number other than 0; +1 adds it, -1 "
                "removes it"
            )
    largest = max(abs(amount) for amount in amounts.values())
    check_range(command, [strength * largest for strength in strengths])


def check_range(command: str, strengths: Sequence[float]) -> None:
    """Refuse strengths that are too large.

    Raises:
        ManifestError: One is, or is not finite.
    """
    for strength in strengths:
        if not abs(strength) <= MAX_STRENGTH:  # also refuses NaN
            raise ManifestError(
                f"{command}: strength {strength:g} must be from {-MAX_STRENGTH:g} to {MAX_STRENGTH:g}; 1 is a typical "
                "member of the other side"
            )


def label_of(amounts: Mapping[str, float]) -> str:
    """The name of an edit in file names and facts.

    Example:
        >>> label_of({"smiling": 1.0, "beard": -1.0, "hat": 0.5})
        'smiling_beard=off_hat=0.5'
    """
    states = {1.0: "", -1.0: "=off"}
    return "_".join(f"{name}{states.get(amount, f'={amount:g}')}" for name, amount in amounts.items())
