"""How a data set's images are edited: its section `edit`, with what the stages before it decided."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from boundaryflow.config.sections import DatasetParams, ObserveParams
from boundaryflow.diffusion import BOTTLENECK, Features
from boundaryflow.editing import Guidance
from boundaryflow.editing.editor import EditSettings
from boundaryflow.editing.mask import Mask


def edit_settings(
    dataset: DatasetParams, method: str, *, path: Mapping[str, Any], observed: Mapping[str, Any], dtype: str
) -> EditSettings:
    """The settings of one of a data set's ways of editing.

    Args:
        dataset: The data set's section of params.yaml.
        method: One of `dataset.edit.methods`.
        path: `t_mix`, `num_steps`, `noise_until` and `order` of the inversion that the boundaries saw (invert.json).
        observed: `timesteps`, the path of the guided edit, rising, and `features` (observe.json).
        dtype: What the network computes in.
    """
    edit = dataset.edit
    return EditSettings(
        t_mix=path["t_mix"],
        num_steps=path["num_steps"],
        noise_until=path["noise_until"],
        order=path["order"],
        eta=edit.eta,
        residuals=edit.residuals,
        eps_scale=edit.eps_scale,
        h_scale=edit.h_scale,
        h_window=list(edit.h_window),
        strengths=list(edit.methods[method]),
        paper_mode=dataset.paper_mode,
        dtype=dtype,
        method=method,
        guided=Guidance(**edit.guided.model_dump()),
        mask=Mask(**edit.mask.model_dump()) if edit.mask else None,
        conditional=edit.conditional,
        timesteps=list(observed["timesteps"]),
        features=Features(**observed.get("features", {})),  # a run of an earlier version has none: h
    )


def features_of(observe: ObserveParams) -> Features:
    """The features that the hyperplanes of the guided edit lie in."""
    return Features(**observe.features.model_dump()) if observe.features else BOTTLENECK
