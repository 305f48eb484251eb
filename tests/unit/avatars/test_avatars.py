"""The renderer: exact counterfactuals, settable rates and correlations."""

from __future__ import annotations

import numpy as np
import pytest

from boundaryflow.avatars import ATTRIBUTES, FACTORS, PARTS, render, sample_avatars, segment


def faces(num: int = 1, seed: int = 0, **options: object) -> list:
    return sample_avatars(num, np.random.default_rng(seed), **options)


@pytest.mark.parametrize("attribute", ATTRIBUTES)
def test_counterfactual_changes_the_attribute_and_keeps_the_background(attribute: str) -> None:
    for face in faces(4, fixed=dict.fromkeys(ATTRIBUTES, False)):
        before, after = np.asarray(render(face), int), np.asarray(render(face.with_attribute(attribute, True)), int)
        changed = np.abs(before - after).max(2) > 0
        assert 0.01 < changed.mean() < 0.6
        assert not changed[:4, :4].any()
        assert np.array_equal(np.asarray(render(face.with_attribute(attribute, False))), before)


def test_picture_depends_on_nothing_but_the_avatar() -> None:
    face = faces()[0]
    assert np.array_equal(np.asarray(render(face)), np.asarray(render(face)))
    assert render(face, 32).size == (32, 32)


def test_parts_are_there_when_their_attribute_is() -> None:
    bare = faces(fixed=dict.fromkeys(ATTRIBUTES, False))[0]
    for attribute, part in (("hat", "hat"), ("beard", "beard"), ("eyeglasses", "eyeglasses")):
        index = PARTS.index(part)
        assert not (segment(bare) == index).any()
        assert (segment(bare.with_attribute(attribute, True)) == index).sum() > 20


def test_rates_fixed_values_and_correlations_are_kept() -> None:
    drawn = faces(
        2000, rates={"hat": 0.1}, fixed={"yaw": 3.0, "beard": True}, correlations={("smiling", "mouth_open"): 0.9}
    )
    has = {a: np.array([f.attributes[a] for f in drawn]) for a in ATTRIBUTES}
    assert has["hat"].mean() == pytest.approx(0.1, abs=0.03)
    assert has["beard"].all()
    assert {f.factors["yaw"] for f in drawn} == {3.0}
    assert (has["smiling"] == has["mouth_open"]).mean() > 0.8
    assert (has["smiling"] == has["blond_hair"]).mean() == pytest.approx(0.5, abs=0.05)


def test_factors_stay_in_their_range() -> None:
    for face in faces(300):
        for name, spec in FACTORS.items():
            assert abs(face.factors[name] - spec.centre) <= spec.spread * (1 if spec.uniform else 2.5) + 1e-9


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rates": {"hats": 0.5}}, "'hats' does not exist"),
        ({"rates": {"hat": 1.5}}, r"rate of 'hat' is 1.5, must be in \[0, 1\]"),
        ({"fixed": {"nose": 1}}, "'nose' does not exist"),
        (
            {"correlations": {("hat", "beard"): 0.9, ("beard", "smiling"): 0.9, ("hat", "smiling"): -0.9}},
            "contradict each other",
        ),
    ],
)
def test_impossible_wishes_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        faces(**options)
