"""What nothing states about a checkpoint is found from pictures, by the error of the predicted noise."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from boundaryflow.models import Stated, open_checkpoint
from boundaryflow.models.betas import scaled_linear_betas, schedule_betas
from boundaryflow.models.guesses import MAX_GUESSES, Search
from boundaryflow.models.noise_error import LEVELS, as_trained, linear_error, relative_errors, usable_sizes
from boundaryflow.models.prediction import Prediction
from tests.layouts import ddpm_layout, iddpm_layout, random_state

MEAN, SPREAD = torch.tensor([0.7, 0.4, 0.2]).reshape(3, 1, 1), torch.tensor([0.2, 0.1, 0.05]).reshape(3, 1, 1)
"""Of the oracle's pictures in [0, 1]: Gaussian, a colour each with a mean and spread of its own."""
IDDPM = iddpm_layout(32, (1, 2), 1, (1,), resblock_updown=True)


def pictures(size: int = 16) -> Tensor:
    return MEAN + SPREAD * torch.randn(4, 3, size, size, generator=torch.Generator().manual_seed(3))


def alphas(stated: Stated) -> Tensor:
    schedule = {"beta_schedule": "linear", "num_train_timesteps": 1000, "beta_start": 1e-4, "beta_end": 0.02}
    return (1 - schedule_betas({**schedule, **scaled_linear_betas(stated.schedule)}, "oracle")).cumprod(0)


def oracle(truth: Stated) -> Any:
    """The exact prediction for these pictures, of a network that was trained as `truth` says."""
    low, high = truth.value_range
    mean, spread = MEAN * (high - low) + low, SPREAD * (high - low)
    if truth.channel_order == "bgr":
        mean, spread = mean.flip(0), spread.flip(0)
    table = alphas(truth).float()

    def network(x_t: Tensor, t: Tensor) -> Tensor:
        level = table[t.clamp(max=len(table) - 1)].reshape(-1, 1, 1, 1)
        signal, share = level.sqrt(), (1 - level).sqrt()
        eps = share * (x_t - signal * mean) / (level * spread**2 + 1 - level)
        x_0 = (x_t - share * eps) / signal
        kind = truth.schedule.get("prediction_type", "epsilon")
        return {"epsilon": eps, "sample": x_0, "v_prediction": signal * eps - share * x_0}[kind]

    return network


def measure_of(truth: Stated, calls: list[Stated]) -> Any:
    def measure(guess: Stated) -> dict[Prediction, float]:
        calls.append(guess)
        called = as_trained(oracle(truth), reverses_channels=guess.channel_order == "bgr", pixel_unshuffle=1)
        worse = 1 + (guess.num_heads != truth.num_heads) + (guess.qkv_order != truth.qkv_order)
        found = relative_errors(called, pictures(), alphas(guess), guess.value_range)
        return {kind: error * worse for kind, error in found.items()}

    return measure


def checkpoint(path: Path, shapes: Any = IDDPM, **stated: Any) -> Any:
    torch.save(random_state(shapes), path)
    path.with_name(f"{path.name}.json").write_text(json.dumps(stated))
    return open_checkpoint(path)


TRUTHS = {
    "usual": Stated(qkv_order="legacy"),
    "cosine, v": Stated(schedule={"beta_schedule": "squaredcos_cap_v2", "num_train_timesteps": 1000,
                                  "prediction_type": "v_prediction"}, qkv_order="legacy"),
    "500 steps, 4 heads": Stated(schedule={"beta_schedule": "linear", "num_train_timesteps": 500}, num_heads=4,
                                 qkv_order="legacy"),
    "x_0, new order": Stated(schedule={"prediction_type": "sample"}, qkv_order="new"),
    "range and order of channels": Stated(value_range=(0, 1), channel_order="bgr", qkv_order="legacy"),
    "cosine, 4000, bgr": Stated(schedule={"beta_schedule": "squaredcos_cap_v2", "num_train_timesteps": 4000},
                                channel_order="bgr", qkv_order="legacy"),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(TRUTHS))
def test_search_finds_what_a_network_was_trained_as(tmp_path: Path, name: str) -> None:
    truth, calls = TRUTHS[name], list[Stated]()
    search = Search(checkpoint(tmp_path / "net.pt"), measure_of(truth, calls), largest=32)
    search.run()
    usual = {"beta_schedule": "linear", "num_train_timesteps": 1000, "prediction_type": "epsilon"}
    expected = {**usual, **truth.schedule}
    found = {**usual, **search.best.schedule}
    assert {k: found[k] for k in usual} == expected
    for field in ("value_range", "channel_order", "num_heads"):
        assert getattr(search.best, field) == getattr(truth, field), field
    assert (search.best.qkv_order or "legacy") == truth.qkv_order
    assert len(calls) == search.num_measured <= MAX_GUESSES


def test_search_changes_nothing_that_is_stated(tmp_path: Path) -> None:
    stated = {"schedule": {"beta_schedule": "linear", "num_train_timesteps": 1000, "prediction_type": "epsilon"},
              "head_channels": 32, "qkv_order": "legacy", "image_size": 32, "channel_order": "rgb"}  # fmt: skip
    search = Search(checkpoint(tmp_path / "net.pt", **stated), measure_of(TRUTHS["cosine, v"], []), largest=512)
    assert search.axes() == ["value_range", "channel_order"]
    search.run()
    assert replace(search.best, value_range=(-1, 1), channel_order="rgb") == search.start


def test_what_a_schedule_leaves_open_is_searched_around_what_it_states(tmp_path: Path) -> None:
    found = checkpoint(tmp_path / "net.pt", schedule={"num_train_timesteps": 500})
    truth = Stated(schedule={"beta_schedule": "squaredcos_cap_v2", "num_train_timesteps": 500}, qkv_order="legacy")
    calls: list[Stated] = []
    search = Search(found, measure_of(truth, calls), largest=32)
    search.run()
    assert search.best.schedule == truth.schedule
    assert {guess.schedule["num_train_timesteps"] for guess in calls} == {500}


def test_heads_of_a_family_that_has_one_are_not_searched(tmp_path: Path) -> None:
    found = checkpoint(tmp_path / "net.pt", ddpm_layout(32, (1, 2), 1, (1,)))
    assert {"heads", "qkv_order"}.isdisjoint(Search(found, measure_of(Stated(), []), 32).axes())


def test_linear_error_of_white_pictures_is_the_closed_form() -> None:
    x_0 = 0.5 * torch.randn(16, 3, 32, 32, generator=torch.Generator().manual_seed(1)) + 0.3
    for level in LEVELS:
        expected = level * 0.25 / (level * 0.25 + 1 - level)
        assert linear_error(x_0, level) == pytest.approx(expected, rel=0.05)


def test_exact_network_is_as_good_as_the_linear_filter_on_gaussian_pictures() -> None:
    errors = relative_errors(oracle(Stated()), pictures(32), alphas(Stated()))
    assert errors["epsilon"] == pytest.approx(0.75, abs=0.15)  # below 1: it knows the spread of each colour
    assert min(errors["v_prediction"], errors["sample"]) > 1.5


def test_sizes_are_those_that_the_levels_divide_and_the_pictures_have() -> None:
    assert list(usable_sizes(128, 5, 256)) == [64, 256]
    assert list(usable_sizes(64, 6, 1000)) == [128, 256]
