"""The counterfactual benchmark: what its rows do, and what its numbers say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from benches import bench_quality
from benches.quality.ace import Ace
from benches.quality.baselines import baseline_rows
from benches.quality.calls import BACKWARD, Counted
from benches.quality.classifier import FittedClassifier
from benches.quality.counterfactuals import Loops, posterior, unchanged
from benches.quality.edits import Plan, _is_wanted
from benches.quality.latent_directions import LatentDirections
from benches.quality.measure import OF_SETS, PER_IMAGE, correlation_difference, cout
from benches.quality.pictures import Latents, Pictures
from benches.quality.rows import CHEAP, CLEANED, OURS, all_rows
from benches.quality.summary import _baseline_table, bars, error_ratio, front_table
from boundaryflow.diffusion import BOTTLENECK, NoiseSchedule
from boundaryflow.evaluation.panel import Classifier, Judges
from boundaryflow.models.frozen import FrozenModel
from tests.unit.gaussian import GaussianModel

PATH = (0, 60, 120, 180, 240, 299)
SETTINGS: dict[str, Any] = {
    "guided": {
        "certainty": 0.95, "gain": 1.0, "tweedie_projection": True, "preserve": 3.0, "preserve_residual": 0.3,
        "max_step": 0.0, "soft_threshold": 0.0, "region": 0.0, "num_draws": 1, "num_iterations": 2, "stride": 1,
    },
    "boundary": {"min_auc": 0.7, "neighbours": 0}, "t_max": 300, "num_steps": 9, "features": None,
}  # fmt: skip


class Twice(nn.Module):
    """Two convolutions of one size: half of the network lies before the middle."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x_t: Tensor, _t: Tensor) -> Tensor:
        return self.second(self.first(x_t).tanh())


def counted_network() -> Counted:
    network = Twice()
    model = FrozenModel(network, network.first, NoiseSchedule.linear(), image_size=8, channels=3, sha256="f" * 64)
    return Counted(model)


def pictures(num: int, seed: int, size: int = 4) -> Pictures:
    """Noise whose first channel is bright or dark."""
    generator = torch.Generator().manual_seed(seed)
    bright = torch.arange(num) % 2 == 0
    x_0 = 0.2 * torch.randn(num, 3, size, size, generator=generator)
    x_0[:, 0] += torch.where(bright, 0.4, -0.4)[:, None, None]
    return Pictures(x_0, {"bright": bright.numpy()}, [f"{seed}-{index}" for index in range(num)])


@pytest.fixture(scope="module")
def latents() -> Latents:
    return Latents(GaussianModel(), pictures(48, 0), pictures(32, 1))


@pytest.fixture(scope="module")
def classifier(latents: Latents) -> FittedClassifier:
    return FittedClassifier(GaussianModel(), latents, 48, PATH[-1])


def test_calls_count_a_backward_pass_by_the_share_of_the_network_it_goes_through() -> None:
    model = counted_network()
    x_t = torch.randn(2, 3, 8, 8)
    with model.for_all_strengths():
        model.eps(x_t, 5)
    assert (model.calls, model.shared) == (2, 2)
    model.pullback(x_t, 5, BOTTLENECK, lambda seen: torch.ones(len(seen), 3, seen.shape[1]))
    assert model.calls == pytest.approx(2 + 2 * (1 + 3 * BACKWARD / 2))
    assert model.per_strength(2, 4) == pytest.approx(1 + (1 + 3 * BACKWARD / 2) / 4)
    model.reset()
    assert torch.autograd.grad(model.differentiable_eps(x_t.requires_grad_(), 5).sum(), x_t)[0].shape == x_t.shape
    assert model.calls == 2 * (1 + BACKWARD)


def test_classifier_separates_what_was_not_fitted_on(classifier: FittedClassifier) -> None:
    unseen = pictures(40, 2)
    logits = classifier.logits(unseen.x_0, ["bright"])[:, 0]
    assert ((logits > 0).numpy() == unseen.has["bright"]).mean() > 0.9
    gradient = classifier.gradient(unseen.x_0, ["bright"], unseen.directions(["bright"]))
    moved = classifier.logits(unseen.x_0 - 0.01 * gradient.sign(), ["bright"])[:, 0]
    assert bool(((moved - logits) * unseen.directions(["bright"])[:, 0] > 0).all())


@pytest.mark.parametrize("name", ["dime", "fast_dime", "mask_dime"])
def test_guidance_moves_images_towards_the_target_as_far_as_it_is_strong(
    name: str, classifier: FittedClassifier
) -> None:
    model, some = Counted(GaussianModel()), pictures(8, 3)
    loops = Loops(model, classifier, PATH)
    directions = some.directions(["bright"])[:, 0]
    weak, strong = (
        (getattr(loops, name)(some, ["bright"], scale) - some.x_0)[:, 0].mean((1, 2)) * directions for scale in (1, 60)
    )
    assert strong.mean() > weak.mean() + 0.1
    calls = {"dime": len(PATH) + 15, "fast_dime": len(PATH), "mask_dime": len(PATH)}[name]
    assert model.calls == 2 * len(some.ids) * calls


def test_our_hyperplanes_in_the_loop_of_fastdime_move_images_towards_the_target(
    latents: Latents, classifier: FittedClassifier
) -> None:
    some = pictures(8, 3)
    model = GaussianModel()
    loops = Loops(model, classifier, PATH)  # type: ignore[arg-type]
    hyperplanes = latents.along_path(PATH[1:], ["bright"], 48, 0.7, 0)
    edit = loops.fast_dime_with(lambda: hyperplanes, BOTTLENECK)
    directions = some.directions(["bright"])[:, 0]
    weak, strong = ((edit(some, ["bright"], s)[:, 0].mean((1, 2)) * directions).mean() for s in (0.0, 3.0))
    assert strong > weak + 0.1


def test_posterior_is_the_one_of_ddpm() -> None:
    model = Counted(GaussianModel())
    x_t, predicted = torch.randn(1, 3, 4, 4), torch.rand(1, 3, 4, 4)
    mean, variance = posterior(model, x_t, predicted, 100, 99)
    beta, before, now = (float(v) for v in (model.schedule.betas[100], *model.schedule.alphas_cumprod[[99, 100]]))
    wanted = (before**0.5 * beta * predicted + (1 - beta) ** 0.5 * (1 - before) * x_t) / (1 - now)
    assert torch.allclose(mean, wanted, atol=1e-5)
    assert variance == pytest.approx((1 - before) / (1 - now) * beta)


def test_unchanged_leaves_out_the_neighbours_of_a_change() -> None:
    before, after = torch.zeros(1, 3, 7, 7), torch.zeros(1, 3, 7, 7)
    after[0, 0, 3, 3], after[0, 0, 0, 0] = 1.0, 0.1
    keep = unchanged(before, after, 3)[0, 0]
    assert not keep[2:5, 2:5].any()
    assert int(keep.sum()) == 49 - 9


def test_ace_keeps_what_it_did_not_change_bit_for_bit() -> None:
    some = pictures(4, 3, size=8)
    model = counted_network()
    fitted = FittedClassifier(model, Latents(model, pictures(32, 0, 8), pictures(16, 1, 8)), 32, PATH[-1])
    edited = Ace(model, fitted, (20, 50)).edit(some, ["bright"], 2.0)
    assert edited.shape == some.x_0.shape
    assert int((edited != some.x_0).sum()) > 0
    towards = (edited - some.x_0)[:, 0].mean((1, 2)) * some.directions(["bright"])[:, 0]
    assert towards.mean() > 0


def test_directions_of_strength_zero_return_the_input_and_others_go_the_way_asked(latents: Latents) -> None:
    some, model = pictures(8, 3), Counted(GaussianModel())
    model._shares[BOTTLENECK] = 0.5  # the network of this model multiplies no matrices
    directions = LatentDirections(model, latents, 48, (120, 240), PATH)
    for edit in (directions.edit_friendly((0.0, 2.0)), directions.pullback((0.0, 1.0), 240)):
        still, moved = edit(some, ["bright"]).unbind(1)
        assert torch.allclose(still, some.x_0, atol=1e-5)
        assert not torch.allclose(moved, some.x_0, atol=1e-2)


def sees_pixel(row: int, column: int) -> Judges:
    """A judge that sees an attribute where one pixel is bright."""
    by_pixel = Classifier("pixel", ("bright",), lambda images: (images[:, :1, row, column] > 0.55).float())
    return Judges((by_pixel,), None, None)


def test_cout_is_high_where_the_pixels_that_change_most_decide() -> None:
    before, after = torch.full((1, 3, 10, 10), 0.5), torch.full((1, 3, 10, 10), 0.6)
    after[0, :, 0, 0] = 1.0
    first = float(cout(sees_pixel(0, 0), before, after, torch.ones(1, 1)))
    last = float(cout(sees_pixel(9, 9), before, after, torch.ones(1, 1)))
    assert first == pytest.approx(0.9)  # -1 at the first of eleven points, which has half the weight, then 1
    assert last < first


def test_correlation_difference_is_that_of_the_attributes_not_edited() -> None:
    target = np.array([1, -1, 1, -1])
    together = np.stack([target, target, np.zeros(4, int), np.array([1, 1, -1, -1])], 1)
    assert correlation_difference(together, 0) == pytest.approx(1.0)
    assert correlation_difference(together[:, [0, 2, 3]], 0) == pytest.approx(0.0)


def test_errors_are_compared_where_both_rows_succeed_as_often() -> None:
    ours = {"success": [0.5, 1.0], "rmse": [0.1, 0.2]}
    assert error_ratio(ours, {"success": [0.4, 0.8], "rmse": [0.2, 0.4]}) == pytest.approx(0.16 / 0.4)
    assert error_ratio(ours, {"success": [0.9, 1.0], "rmse": [0.2, 0.4]}) == pytest.approx(0.19 / 0.3)


def row(
    rmse: float, calls: float, *, is_baseline: bool = False, faces: int = 4, success: float = 1.0
) -> dict[str, Any]:
    measures = {name: np.full((2, faces), 0.8).tolist() for name in PER_IMAGE}
    measures |= {"success": [[0.0] * faces, [success] * faces], "rmse": [[rmse] * faces] * 2, "spearman": [1.0] * faces}
    names = ("smiling", "mouth_open")
    return {"attributes": {name: measures for name in names}, "pairs": {}, "calls": calls, "seconds": 1.0,
            "strengths": [0.5, 1.0], "is_baseline": is_baseline, **{name: [0.0, 0.0] for name in OF_SETS}}  # fmt: skip


def test_bars_compare_with_the_best_baseline_and_at_as_many_calls() -> None:
    rows = {
        f"{OURS}, n=9": row(0.1, 200), f"{CHEAP}, n=9": row(0.15, 50),
        "good": row(0.2, 60, is_baseline=True), "dear": row(0.3, 900, is_baseline=True),
        "few faces": row(0.01, 60, is_baseline=True, faces=2),
        "does nothing": row(0.01, 60, is_baseline=True, success=0.1),
    }  # fmt: skip
    found = {bar["name"].partition(",")[0]: bar for bar in bars(rows, 9, 0.0)}
    assert found["error over the best baseline's"]["value"] == pytest.approx(0.5)
    assert found["error over that of any baseline"]["value"] == pytest.approx(0.75)
    assert not found["network calls per image at one strength"]["met"]
    assert "| dear | 0.33 | 0.33 | 900 |" in " ".join(_baseline_table(rows, 9).split())
    rows[f"{CHEAP}, n=9"]["calls"] = 61
    found = {bar["name"].partition(",")[0]: bar for bar in bars(rows, 9, 0.0)}
    assert not found["error over that of any baseline"]["met"]


def test_front_has_the_rows_that_no_row_with_fewer_calls_betters() -> None:
    rows = {
        f"{OURS}, n=9": row(0.1, 200), f"{CHEAP}, n=9": row(0.15, 50), f"{CLEANED}, n=9": row(0.3, 60),
        "dear": row(0.09, 900, is_baseline=True), "never": row(0.01, 10, is_baseline=True, success=0.1),
    }  # fmt: skip
    rows = {key: {**of, "num_train": 9} for key, of in rows.items()}
    rows |= {f"{OURS}, n=5": {**row(0.01, 5), "num_train": 5}}
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in front_table(rows, 9).splitlines()[2:]]
    assert [(line[0], line[-1]) for line in lines] == [
        ("never", ""), (f"{CHEAP}, n=9", "yes"), (f"{CLEANED}, n=9", ""), (f"{OURS}, n=9", "yes"), ("dear", "yes"),
    ]  # fmt: skip
    assert lines[0][4] == "(0.100)"


def test_other_methods_are_fitted_on_the_most_faces_and_costly_ones_once(latents: Latents) -> None:
    plan = Plan(96, (20, 40), (48,), (0, 1), 299, 12)
    rows = {
        row.name: row
        for row in (
            *all_rows(GaussianModel(), latents, 40, 299, SETTINGS),
            *baseline_rows(GaussianModel(), latents, 40, SETTINGS),
        )
    }

    def wanted(name: str, seed: int, size: int) -> bool:
        return _is_wanted(rows[name], plan, seed, size)

    assert wanted("FastDiME", 1, 40)
    assert not wanted("FastDiME", 1, 20)
    assert wanted("DiME", 0, 40)
    assert not wanted("DiME", 1, 40)
    assert wanted(OURS, 0, 48)
    assert not wanted(CHEAP, 0, 48)
    assert all(len(row.strengths) >= 3 for row in rows.values())


def test_strips_of_rows_that_were_not_made_come_from_the_committed_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = {
        "floor": {"num_train": None},
        "a, n=9": {"num_train": 9},
        "a, n=3": {"num_train": 3},
        "b, n=9": {"num_train": 9},
    }
    strips = torch.stack(
        [torch.full((3, 4, 8), shade / 255) for shade in (0, 50, 100, 150, 200)]
    )  # input, 3 rows, truth
    pixels = (torch.cat(list(strips), 1) * 255).round().byte().permute(1, 2, 0).numpy()
    Image.fromarray(pixels).save(tmp_path / "rows.png")
    monkeypatch.setattr(bench_quality, "PICTURE", tmp_path / "rows.png")
    found = bench_quality.committed_strips({"rows": rows}, 9)
    assert {name: round(float(strip.mean()) * 255) for name, strip in found.items()} == {
        "floor": 50, "a, n=9": 100, "b, n=9": 150,
    }  # fmt: skip
    assert {tuple(strip.shape) for strip in found.values()} == {(3, 4, 8)}
    assert bench_quality.name_of("FastDiME, our hyperplanes, n=1000") == "FastDiME, our hyperplanes"
