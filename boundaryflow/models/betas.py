"""Noise schedules by the names that diffusers' scheduler_config.json has for them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from boundaryflow.errors import CheckpointError

USUAL = {"beta_schedule": "linear", "num_train_timesteps": 1000, "beta_start": 1e-4, "beta_end": 0.02}
"""Ho et al. 2020, section 4; what all of the paper's models were trained with."""
MAX_TIMESTEPS = 100_000
MIN_SCALED = 21
"""Timesteps below which the rule of `scaled_linear_betas` gives a beta above 1."""
_OTHER_PROCESSES = ("ScoreSde", "Karras", "EDM", "FlowMatch", "CM", "VQ", "UnCLIP", "Cosine")


_LEAST_SIGNAL = 1e-30


def schedule_betas(config: Mapping[str, Any], where: str) -> Tensor:
    """Variances of each timestep.

    Sources: linear Ho et al. 2020; scaled_linear Rombach et al. 2022; squaredcos_cap_v2 Nichol and
    Dhariwal 2021, eq. 17, capped at 0.999.

    Args:
        config: As diffusers writes scheduler_config.json; what is missing has its usual value.
        where: For messages.

    Returns:
        [T] float64.

    Raises:
        CheckpointError: It describes another process or has an unknown schedule.
    """
    betas = _betas(config, where)
    left = float((1 - betas).prod())
    if left < _LEAST_SIGNAL:
        raise CheckpointError(f"model {where}: its betas leave no signal at the last timestep (a share of {left:.2g})")
    return betas


def _betas(config: Mapping[str, Any], where: str) -> Tensor:
    kind = str(config.get("_class_name", ""))
    if kind.startswith(_OTHER_PROCESSES):
        raise CheckpointError(f"model {where}: {kind} is not a variance-preserving process with betas")
    if config.get("rescale_betas_zero_snr"):
        raise CheckpointError(
            f"model {where}: rescale_betas_zero_snr is true; its last timestep has no signal, from which no image "
            "can be inverted"
        )
    trained = config.get("trained_betas")
    if trained is not None:
        if not isinstance(trained, list | tuple) or not all(_is_number(beta) and 0 < beta < 1 for beta in trained):
            raise CheckpointError(f"model {where}: trained_betas must be a list of numbers within (0, 1)")
        _check_num(len(trained), where)
        return torch.tensor(trained, dtype=torch.float64)
    values: dict[str, Any] = {**USUAL, **{key: config[key] for key in USUAL if key in config}}
    name, num, start, end = (values[key] for key in USUAL)
    if not isinstance(num, int) or not all(_is_number(value) for value in (num, start, end)):
        raise CheckpointError(f"model {where}: num_train_timesteps, beta_start and beta_end must be numbers")
    _check_num(num, where)
    if not 0 < start <= end < 1:
        raise CheckpointError(f"model {where}: betas from {start!r:.20} to {end!r:.20}; must be within (0, 1), rising")
    if name == "linear":
        return torch.linspace(start, end, num, dtype=torch.float64)
    if name == "scaled_linear":
        return torch.linspace(math.sqrt(start), math.sqrt(end), num, dtype=torch.float64) ** 2
    if name == "squaredcos_cap_v2":
        at = torch.linspace(0, 1, num + 1, dtype=torch.float64)
        alpha_bar = torch.cos((at + 0.008) / 1.008 * math.pi / 2) ** 2
        return (1 - alpha_bar[1:] / alpha_bar[:-1]).clamp(max=0.999)
    raise CheckpointError(
        f"model {where}: beta_schedule {name!r:.60} is not known (linear, scaled_linear, squaredcos_cap_v2 are); give "
        "its values as trained_betas"
    )


def scaled_linear_betas(stated: Mapping[str, Any]) -> dict[str, Any]:
    """A schedule stated for an iDDPM: fewer or more timesteps have larger or smaller linear betas.

    Source: `get_named_beta_schedule` of improved-diffusion and guided-diffusion, which multiplies 0.0001 and 0.02 by
    1000 / T, so that the last timestep is as noisy whatever T is. Betas that are stated stay.

    Args:
        stated: As in scheduler_config.json; only what was stated.
    """
    num = stated.get("num_train_timesteps", 1000)
    given = {"beta_start", "beta_end", "trained_betas"} & set(stated)
    if given or stated.get("beta_schedule", "linear") != "linear" or not _is_number(num) or num < MIN_SCALED:
        return dict(stated)
    return {"beta_start": 0.1 / num, "beta_end": 20 / num, **stated}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _check_num(num: int, where: str) -> None:
    if not 2 <= num <= MAX_TIMESTEPS:  # noqa: PLR2004 - one timestep is no schedule
        raise CheckpointError(f"model {where}: {num!r:.20} timesteps, must be 2 to {MAX_TIMESTEPS:,}")
