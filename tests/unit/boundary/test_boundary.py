"""Boundaries: the plane, the file, and the fit against scikit-learn on the latents themselves."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.svm import SVC

from boundaryflow.boundary import Boundary, Calibration, Gram, fit_boundary, load_boundaries, save_boundaries
from boundaryflow.errors import BoundaryError


def boundary(space: str = "eps", dim: int = 12, seed: int = 0) -> Boundary:
    normal = torch.randn(dim, generator=torch.Generator().manual_seed(seed))
    return Boundary(
        normal=normal / normal.norm(),
        intercept=0.3,
        space=space,  # pyright: ignore[reportArgumentType]
        t_mix=500,
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


@settings(deadline=None, max_examples=30)
@given(target=st.floats(-50, 50), seed=st.integers(0, 100))
def test_move_to_lands_on_the_target(target: float, seed: int) -> None:
    latents = torch.randn(3, 3, 2, 2, generator=torch.Generator().manual_seed(seed))
    moved = boundary(seed=seed).moved_to(latents, target)
    torch.testing.assert_close(boundary(seed=seed).signed_distance(moved), torch.full((3,), target), atol=1e-4, rtol=0)


def test_save_then_load_gives_the_same(tmp_path: Path) -> None:
    path = tmp_path / "smiling.safetensors"
    saved = {"eps": boundary("eps"), "h": boundary("h", dim=8)}
    save_boundaries(path, saved)  # pyright: ignore[reportArgumentType]
    first = path.read_bytes()
    for space, loaded in load_boundaries(path).items():
        torch.testing.assert_close(loaded.normal, saved[space].normal)
        assert dataclasses.replace(loaded, normal=saved[space].normal) == saved[space]
    save_boundaries(path, load_boundaries(path))
    assert path.read_bytes() == first
    assert [p.name for p in tmp_path.iterdir()] == ["smiling.safetensors"]


def test_damaged_file_is_one_clear_line(tmp_path: Path) -> None:
    path = tmp_path / "smiling.safetensors"
    save_boundaries(path, {"eps": boundary()})
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(BoundaryError, match="not a whole safetensors file"):
        load_boundaries(path)
    with pytest.raises(BoundaryError, match="no such file"):
        load_boundaries(tmp_path / "other.safetensors")


def test_wrong_model_or_timestep_is_refused() -> None:
    with pytest.raises(BoundaryError, match="fitted on model aaaaaaaaaaaa, not bbbbbbbbbbbb"):
        boundary().check_fits("b" * 64, 500)
    with pytest.raises(BoundaryError, match="holds at t_mix 500, not 400"):
        boundary().check_fits("a" * 64, 400)


def test_fit_is_the_plane_of_a_linear_svc_on_the_latents() -> None:
    latents, labels = two_classes()
    train, held_out = np.arange(40), np.arange(40, 60)
    fitted, report = fit_boundary(
        Gram.of(latents), labels, train, held_out, space="eps", t_mix=500, attribute="a", model_sha256="m"
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
            t_mix=1,
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
            t_mix=1,
            attribute="hat",
            model_sha256="m",
        )
