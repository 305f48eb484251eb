"""Boundaries: the hyperplane, the file, and the fit against scikit-learn on the latents themselves."""

from __future__ import annotations

import dataclasses
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from sklearn.svm import SVC

from boundaryflow.boundary import (
    Boundaries,
    Boundary,
    Calibration,
    Gram,
    InMemory,
    Labels,
    balancing_weights,
    fit_boundaries,
    fit_boundary,
    load_boundaries,
    low_passed,
    save_boundaries,
)
from boundaryflow.boundary.fit import RIDGES
from boundaryflow.config.advice import with_advice
from boundaryflow.errors import BoundaryError
from tests.hostile.corpus_models import BOUNDARIES


def boundary(space: str = "eps", dim: int = 12, seed: int = 0) -> Boundary:
    normal = torch.randn(dim, generator=torch.Generator().manual_seed(seed))
    return Boundary(
        normal=normal / normal.norm(),
        intercept=0.3,
        space=space,  # pyright: ignore[reportArgumentType]
        t=500,
        attribute="smiling",
        model_sha256="a" * 64,
        calibration=Calibration(2.0, -1.0, 0.5, 0.9, 40),
    )


def two_classes(num: int = 60, dim: int = 200, gap: float = 4.0) -> tuple[torch.Tensor, np.ndarray]:
    generator = torch.Generator().manual_seed(1)
    labels = np.arange(num) % 2 == 0
    latents = torch.randn(num, dim, generator=generator)
    latents[:, 0] += gap * torch.from_numpy(labels).float()
    return latents.reshape(num, 2, 10, dim // 20), labels


def test_save_then_load_gives_the_same(tmp_path: Path) -> None:
    path = tmp_path / "smiling.safetensors"
    noised = tuple(dataclasses.replace(boundary("h", dim=8, seed=t), t=t) for t in (5, 40, 300))
    saved = Boundaries("smiling", {"eps": boundary("eps"), "h": boundary("h", dim=8)}, noised)
    save_boundaries(path, saved)
    first = path.read_bytes()
    assert list(load_boundaries(path).all) == ["eps", "h", "h@5", "h@40", "h@300"]
    for name, loaded in load_boundaries(path).all.items():
        torch.testing.assert_close(loaded.normal, saved.all[name].normal)
        assert dataclasses.replace(loaded, normal=saved.all[name].normal) == saved.all[name]
    save_boundaries(path, load_boundaries(path))
    assert path.read_bytes() == first
    assert [p.name for p in tmp_path.iterdir()] == ["smiling.safetensors"]


def test_patterns_are_kept(tmp_path: Path) -> None:
    path, pattern = tmp_path / "smiling.safetensors", torch.arange(8.0)
    with_pattern = dataclasses.replace(boundary("h", dim=8), t=40, pattern=pattern)
    without = dataclasses.replace(boundary("h", dim=8), t=50)
    save_boundaries(path, Boundaries("smiling", {}, (with_pattern, without)))
    kept, none = load_boundaries(path).noised
    assert kept.pattern is not None
    assert torch.equal(kept.pattern, pattern)
    assert none.pattern is None


def test_damaged_file_is_one_clear_line(tmp_path: Path) -> None:
    path = tmp_path / "smiling.safetensors"
    save_boundaries(path, Boundaries("smiling", {"eps": boundary()}))
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(BoundaryError, match="not a complete safetensors file"):
        load_boundaries(path)
    with pytest.raises(BoundaryError, match="no such file"):
        load_boundaries(tmp_path / "other.safetensors")


_NO_PATTERN = "the pattern of hyperplane h@0 is not of 7 finite floating-point numbers"
REASONS = {
    "calibration_null": "hyperplane eps has calibration None, must be of type dict",
    "calibration_words": "calibration of hyperplane eps has mean_positive 'x', must be of type float",
    "extra_key": "hyperplane eps has not the facts intercept, space",
    "intercept_1e400": "hyperplane eps has intercept inf, must be finite",
    "intercept_1e400_written_out": "hyperplane eps has intercept 1000",
    "nan": "the normal of hyperplane eps is not a finite unit vector",
    "no_attribute": "it has no attribute, or no hyperplanes",
    "no_planes": "it has no attribute, or no hyperplanes",
    "not_unit": "the normal of hyperplane eps is not a finite unit vector",
    "other_attribute": "hyperplane eps is of 'hat', not of 'beard'",
    "other_space": "hyperplane eps is of z-space at timestep 5",
    "plane_number": "hyperplane eps has not the facts",
    "planes_list": "it has no attribute, or no hyperplanes",
    "other_layer": "hyperplane eps is of up_blocks.1:4-space at timestep 5",
    "layer_pooled_to_nothing": "hyperplane up_blocks.1:0@0 is of up_blocks.1:0-space",
    "layer_of_control_characters": "is of up.*-space at timestep 0",
    "layer_of_1000_characters": "hyperplane a{60} is of a{60}-space",
    "layer_without_pool": "hyperplane up_blocks.1@0 is of up_blocks.1-space",
    "noised_eps": "hyperplane eps@0 is of eps-space",
    "two_layers": "hyperplanes between noised images lie in 2 spaces",
    "layer_and_h": "hyperplanes between noised images lie in 2 spaces",
    "space_list": "has space .'eps'., must be of type str",
    "t_negative": "of eps-space at timestep -1",
    "t_true": "has t True, must be of type int",
    "t_word": "has t '5', must be of type int",
    "two_axes": "the normal of hyperplane eps is not a finite unit vector",
    "whole_numbers": "the normal of hyperplane eps is not a finite unit vector",
    "pattern_1e38": _NO_PATTERN,
    "pattern_empty": _NO_PATTERN,
    "pattern_infinite": _NO_PATTERN,
    "pattern_nan": _NO_PATTERN,
    "pattern_of_no_plane": "its tensors and hyperplanes do not match",
    "pattern_of_six": _NO_PATTERN,
    "pattern_two_axes": _NO_PATTERN,
    "pattern_whole_numbers": _NO_PATTERN,
}


@pytest.mark.parametrize("case", sorted(BOUNDARIES))
def test_impossible_boundary_is_refused_in_one_line(tmp_path: Path, case: str) -> None:
    path = tmp_path / "hat.safetensors"
    path.write_bytes(BOUNDARIES[case]())
    with pytest.raises(BoundaryError, match=REASONS[case]) as caught:
        load_boundaries(path)
    assert "\n" not in str(caught.value)


def test_latents_of_another_size_are_refused() -> None:
    reason = r"'smiling' \(eps-space\) has 12 dimensions, the latents of this model have 8;"
    with pytest.raises(BoundaryError, match=reason):
        boundary().signed_distance(torch.zeros(2, 2, 4))
    hyperplanes = [Boundaries("smiling", {}, (dataclasses.replace(boundary("h", dim=dim)),)) for dim in (12, 8)]
    with pytest.raises(BoundaryError, match="has 12 dimensions"):
        hyperplanes[0].cosine_similarity(hyperplanes[1])


def test_wrong_model_or_timestep_is_refused() -> None:
    with pytest.raises(BoundaryError, match="fitted on model aaaaaaaaaaaa, not bbbbbbbbbbbb"):
        boundary().check_fits("b" * 64, 500)
    with pytest.raises(BoundaryError, match="holds at timestep 500, not 400"):
        boundary().check_fits("a" * 64, 400)


def test_fit_is_the_plane_of_a_linear_svc_on_the_latents() -> None:
    latents, labels = two_classes()
    train, held_out = np.arange(40), np.arange(40, 60)
    fitted, report = fit_boundary(
        Gram.of(latents), labels, train, held_out, space="eps", t=500, attribute="a", model_sha256="m"
    )
    direct = SVC(kernel="linear", C=1.0).fit(latents.flatten(1).numpy()[train], labels[train])
    norm = np.linalg.norm(direct.coef_)
    np.testing.assert_allclose(fitted.normal.numpy(), direct.coef_[0] / norm, atol=1e-4)
    assert fitted.intercept == pytest.approx(float(direct.intercept_[0] / norm), abs=1e-3)
    assert float(fitted.normal.norm()) == pytest.approx(1, abs=1e-5)
    assert report.num_positive == report.num_negative == 20
    assert fitted.calibration.gap > 0
    assert fitted.calibration.num == 20


def test_bootstrap_cosine_tells_a_steady_normal_from_noise() -> None:
    train, held_out = np.arange(40), np.arange(40, 60)
    cosines = []
    for gap in (0.0, 30.0):
        latents, labels = two_classes(gap=gap)
        report = fit_boundary(
            Gram.of(latents),
            labels,
            train,
            held_out,
            space="h",
            t=1,
            attribute="a",
            model_sha256="m",
            num_bootstraps=6,
        )[1]
        cosines.append(report.bootstrap_cosine)
    assert cosines[1] > cosines[0] + 0.2


def test_one_class_only_is_refused_with_the_counts() -> None:
    latents, labels = two_classes()
    labels[:] = True
    with pytest.raises(BoundaryError, match="'hat': 40 images with it and 0 without to fit on"):
        fit_boundary(
            Gram.of(latents),
            labels,
            np.arange(40),
            np.arange(40, 60),
            space="h",
            t=1,
            attribute="hat",
            model_sha256="m",
        )


def test_plane_of_another_path_or_none_is_refused() -> None:
    path = tuple(dataclasses.replace(boundary("h"), t=t) for t in (5, 40))
    with pytest.raises(BoundaryError, match="hyperplane at timestep 40, which is not on the path"):
        Boundaries("smiling", {}, path).along_path([5, 50], "a" * 64, "h")
    with pytest.raises(BoundaryError, match="fitted on model aaaaaaaaaaaa, not bbbbbbbbbbbb"):
        Boundaries("smiling", {}, path).along_path([5, 40], "b" * 64, "h")
    with pytest.raises(BoundaryError, match="separated well enough at any noise level") as caught:
        Boundaries("smiling", {}).along_path([5, 40], "a" * 64, "h")
    assert "lower boundary.min_auc" in with_advice(caught.value)
    with pytest.raises(BoundaryError, match="lies in the space h of the network, but the features used are in d:4"):
        Boundaries("smiling", {}, path).along_path([5, 40], "a" * 64, "d:4")
    other = Boundaries("hat", {}, tuple(replace(plane, space="d:4") for plane in path))
    with pytest.raises(BoundaryError, match=r"'smiling' \(h-space\) lies in the space h of the network"):
        Boundaries("smiling", {}, path).cosine_similarity(other)
    assert Boundaries("smiling", {}).along_path([5, 40], "a" * 64, "h", may_be_empty=True) == ()


def test_likeness_is_the_mean_cosine_where_both_have_planes() -> None:
    east, north = (replace(boundary("h", dim=2), normal=torch.tensor(v)) for v in ([1.0, 0.0], [0.0, 1.0]))
    first = Boundaries("a", {}, (replace(east, t=5), replace(east, t=40), replace(east, t=90)))
    second = Boundaries("b", {}, (replace(east, t=5, normal=-east.normal), replace(north, t=40)))
    assert first.cosine_similarity(second) == pytest.approx(0.5)
    assert first.cosine_similarity(Boundaries("c", {})) == 0


def ridge_fit(ridge: float | None, weights: np.ndarray | None = None) -> tuple[Boundary, Gram]:
    latents, labels = two_classes(gap=1.0)
    gram = Gram.of(latents + 3)
    where = {"space": "h", "t": 1, "attribute": "a", "model_sha256": "m", "estimator": "ridge"}
    fitted, _ = fit_boundary(gram, labels, np.arange(40), np.arange(40, 60), ridge=ridge, weights=weights, **where)  # pyright: ignore[reportArgumentType]
    return fitted, gram


@pytest.mark.parametrize("weighted", [False, True])
def test_ridge_is_scikit_learns_ridge_on_the_latents(weighted: bool) -> None:
    weights = np.random.default_rng(0).uniform(0.5, 2, 60) if weighted else None
    fitted, gram = ridge_fit(0.3, weights)
    latents, y = gram.rows.columns(0, 200)[:40].double().numpy(), np.where(two_classes()[1][:40], 1.0, -1.0)
    share = np.full(40, 1 / 40) if weights is None else weights[:40] / weights[:40].sum()
    centred = latents - share @ latents
    penalty = 0.3 * (share @ (centred**2).sum(1)) / 39
    direct = Ridge(alpha=penalty).fit(latents, y, sample_weight=share).coef_
    assert fitted.normal.double().numpy() @ direct / np.linalg.norm(direct) == pytest.approx(1, abs=1e-6)


def test_ridge_chosen_by_leave_one_out_is_the_one_brute_force_finds() -> None:
    chosen, gram = ridge_fit(None)
    latents, y = gram.rows.columns(0, 200)[:40].double().numpy(), np.where(two_classes()[1][:40], 1.0, -1.0)
    mean_eigenvalue = ((latents - latents.mean(0)) ** 2).sum() / 40 / 39
    errors: dict[float, float] = {}
    for ridge in RIDGES:
        left_out = []
        for row in range(40):
            rest = np.arange(40) != row
            model = Ridge(alpha=ridge * mean_eigenvalue * 40).fit(latents[rest], y[rest])
            left_out.append(float(model.predict(latents[row : row + 1])[0]) - y[row])
        errors[ridge] = float(np.mean(np.square(left_out)))
    best = min(errors, key=errors.__getitem__)
    assert best not in (RIDGES[0],)
    torch.testing.assert_close(chosen.normal, ridge_fit(best)[0].normal)


def test_mean_is_the_line_between_the_class_means() -> None:
    latents, labels = two_classes()
    fitted, _ = fit_boundary(
        Gram.of(latents), labels, np.arange(40), np.arange(40, 60),
        space="h", t=1, attribute="a", model_sha256="m", estimator="mean",
    )  # fmt: skip
    flat = latents.flatten(1)[:40]
    line = flat[labels[:40]].mean(0) - flat[~labels[:40]].mean(0)
    torch.testing.assert_close(fitted.normal, line / line.norm(), atol=1e-4, rtol=0)
    middle = (flat[labels[:40]].mean(0) + flat[~labels[:40]].mean(0)) / 2
    assert float(fitted.normal @ middle) + fitted.intercept == pytest.approx(0, abs=1e-4)


def test_balancing_weights_make_the_other_attributes_as_frequent_on_both_sides() -> None:
    rng = np.random.default_rng(0)
    hat = rng.random(2000) < 0.5
    others = np.stack([rng.random(2000) < np.where(hat, 0.9, 0.2), rng.random(2000) < 0.5], 1).astype(float)
    others[rng.random(2000) < 0.1, 0] = np.nan
    weights = balancing_weights(hat, others)
    assert weights[hat].mean() == pytest.approx(1)
    assert weights.max() <= 10
    for column in others.T:
        known = ~np.isnan(column)
        shares = [np.average(column[side & known], weights=weights[side & known]) for side in (hat, ~hat)]
        assert shares[0] == pytest.approx(shares[1], abs=0.01)


def test_reach_is_half_the_gap_or_where_the_class_is_sure() -> None:
    assert Calibration(2.0, -1.0, 0.1, 0.9, 10).reach(3.0) == pytest.approx(1.5)
    assert Calibration(2.0, -1.0, 3.0, 0.9, 10).reach(3.0) == pytest.approx(9.0)


def test_low_passed_normal_finds_a_smooth_difference_that_noise_hides() -> None:
    generator = torch.Generator().manual_seed(3)
    has = np.arange(400) % 2 == 0
    bump = torch.zeros(3, 16, 16)
    bump[:, 4:11, 5:12] = 1
    latents = torch.randn(400, 3, 16, 16, generator=generator)
    latents += 0.12 * torch.from_numpy(np.where(has, 1.0, -1.0)).float()[:, None, None, None] * bump
    held_out = np.arange(80, 400)
    hyperplane, _ = fit_boundary(
        Gram.of(latents), has, np.arange(80), held_out, space="eps", t=300, attribute="hat", model_sha256="m"
    )
    smooth = low_passed(hyperplane, (3, 16, 16), 1.5, InMemory(latents[held_out]), has[held_out])
    assert smooth.calibration.auc > hyperplane.calibration.auc + 0.03
    assert float(smooth.normal.norm()) == pytest.approx(1, abs=1e-5)
    assert smooth.calibration.middle == pytest.approx(0, abs=1e-6)
    distances = smooth.signed_distance(latents[held_out]).numpy()
    assert distances[has[held_out]].mean() == pytest.approx(smooth.calibration.mean_positive, abs=1e-4)
    assert low_passed(hyperplane, (3, 16, 16), 0.0, InMemory(latents[held_out]), has[held_out]) is hyperplane


def test_boundaries_fitted_together_are_those_fitted_alone() -> None:
    latents, labels = two_classes()
    gram, rng = Gram.of(latents), np.random.default_rng(0)
    others = [labels, rng.random(60) < 0.5, ~labels]
    known = [Labels(str(k), has, np.arange(40), np.arange(40, 60)) for k, has in enumerate(others)]
    together = fit_boundaries(gram, known, space="h", t=1, model_sha256="m")
    for (hyperplane, report), of in zip(together, known, strict=True):
        alone, alone_report = fit_boundary(
            gram, of.has_attribute, of.train, of.held_out, attribute=of.attribute, space="h", t=1, model_sha256="m"
        )
        torch.testing.assert_close(hyperplane.normal, alone.normal)
        assert replace(hyperplane, normal=alone.normal) == alone
        assert report == pytest.approx(alone_report, nan_ok=True) or str(report) == str(alone_report)
        distances = hyperplane.signed_distance(latents).double().numpy()
        assert hyperplane.calibration.mean_positive == pytest.approx(
            float(distances[of.held_out][of.has_attribute[of.held_out]].mean()), abs=1e-4
        )
    assert fit_boundaries(gram, [], space="h", t=1, model_sha256="m") == []


def test_ridge_regression_keeps_one_decomposition_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    import weakref

    from boundaryflow.boundary import fit

    made: list[weakref.ref[Any]] = []
    most = 0
    of = fit._Spectrum.of

    def counted(*args: Any) -> Any:
        nonlocal most
        found = of(*args)
        made.append(weakref.ref(found))
        most = max(most, sum(known() is not None for known in made))
        return found

    monkeypatch.setattr(fit._Spectrum, "of", counted)
    rng = np.random.default_rng(0)
    latents = torch.from_numpy(rng.normal(size=(40, 6))).float()
    train, held_out = np.arange(30), np.arange(30, 40)
    known = [fit.Labels(f"a{i}", latents[:, i].numpy() > 0, train, held_out) for i in range(3)]
    how = {"space": "h", "t": 1, "model_sha256": "", "estimator": "ridge", "num_bootstraps": 4}
    fit.fit_boundaries(fit.Gram.of(latents), known, **how)
    assert most <= 2  # the one that is made, and the one before until its name is taken
    assert len(made) <= 1 + 3 * 4
