"""The settings of an edit: typed, and of the same form in cache keys and records as in params.yaml."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest

from boundaryflow.config import DatasetParams, load_params
from boundaryflow.config.edit_settings import edit_settings, features_of
from boundaryflow.diffusion import BOTTLENECK, Features
from tests.small_project import ROOT

PATH = {"t_mix": 300, "num_steps": 20, "noise_until": 0, "order": 1}
MASK = {"segmenter": "parts.safetensors", "parts": {"smiling": ["mouth"]}, "grow": 2}


def dataset(**sections: Any) -> DatasetParams:
    values = load_params(ROOT).dataset("avatars").model_dump(by_alias=True)
    changed = {name: {**values[name], **of_section} for name, of_section in sections.items()}
    return DatasetParams.model_validate({**values, **changed})


@pytest.mark.parametrize("mask", [None, MASK])
def test_settings_are_recorded_as_params_states_them(mask: dict[str, Any] | None) -> None:
    params = dataset(edit={"mask": mask})
    stated = {"layer": "up_blocks.1.resnets.1", "pool": 4}
    observed = {"timesteps": [1, 50], "features": stated}
    recorded = asdict(edit_settings(params, "guided", path=PATH, observed=observed, dtype="float32"))
    assert recorded["guided"] == params.edit.guided.model_dump()
    assert (recorded["mask"], recorded["features"]) == (mask, stated)


@pytest.mark.parametrize(
    ("stated", "features"),
    [(None, BOTTLENECK), ({"layer": "mid_block", "pool": None}, Features("mid_block"))],
    ids=["bottleneck", "layer"],
)
def test_features_are_the_bottleneck_unless_a_layer_is_named(stated: Any, features: Features) -> None:
    assert features_of(dataset(observe={"features": stated}).observe) == features
