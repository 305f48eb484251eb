"""What an avatar is made of: binary attributes, continuous factors, and how to draw them at random."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

ATTRIBUTES: tuple[str, ...] = (
    "smiling",
    "eyeglasses",
    "beard",
    "hat",
    "blond_hair",
    "long_hair",
    "mouth_open",
    "dark_skin",
)


@dataclass(frozen=True)
class Factor:
    """Distribution of one continuous factor.

    Attributes:
        centre: Mean of a normal factor, middle of a uniform one.
        spread: Standard deviation of a normal factor, half width of a uniform one.
        uniform: Uniform on [centre - spread, centre + spread]; otherwise normal,
            cut at 2.5 standard deviations so that no face leaves the picture.
        meaning: What it moves. Lengths are in 1/256 of the picture's side.
    """

    centre: float
    spread: float
    uniform: bool
    meaning: str

    def from_normal(self, z: float) -> float:
        """Map a standard normal value to this factor's distribution."""
        if self.uniform:
            return self.centre + self.spread * math.erf(z / math.sqrt(2))
        return self.centre + self.spread * min(max(z, -2.5), 2.5)


FACTORS: dict[str, Factor] = {
    "centre_x": Factor(128, 5, False, "face centre, from the left"),
    "centre_y": Factor(130, 4, False, "face centre, from the top"),
    "face_width": Factor(66, 4, False, "half width of the face"),
    "face_height": Factor(82, 4, False, "half height of the face"),
    "yaw": Factor(0, 7, False, "how far the features shift sideways in the face"),
    "eye_gap": Factor(29, 2, False, "distance of an eye from the nose line"),
    "eye_size": Factor(11, 1, False, "height of an eye"),
    "gaze": Factor(0, 0.25, False, "sideways shift of the pupils, in eye sizes"),
    "nose_length": Factor(24, 2.5, False, "length of the nose"),
    "mouth_width": Factor(33, 2.5, False, "half width of the mouth"),
    "mouth_curve": Factor(0, 1.5, False, "curvature of the mouth beyond smiling or not"),
    "brow_tilt": Factor(0, 2.5, False, "tilt of the brows"),
    "background_hue": Factor(0.5, 0.5, True, "hue, a full turn is 1"),
    "background_saturation": Factor(0.3, 0.15, True, "saturation, 0 to 1"),
    "background_value": Factor(0.72, 0.18, True, "value, 0 to 1"),
    "shirt_hue": Factor(0.5, 0.5, True, "hue of the shirt, and of the hat"),
    "shirt_value": Factor(0.62, 0.12, True, "value of the shirt, and of the hat"),
    "iris_hue": Factor(0.35, 0.25, True, "hue of the irises"),
    "skin_tone": Factor(0, 0.035, False, "lightness added to the skin"),
    "hair_tone": Factor(0, 0.03, False, "lightness added to hair and beard"),
    "light": Factor(0, 0.07, False, "brightness of the whole picture, relative"),
    "light_side": Factor(0, 0.10, False, "brightness from left to right, relative"),
}


@dataclass(frozen=True)
class Avatar:
    """Everything that decides the picture of one face.

    Attributes:
        attributes: Attribute name to present or not.
        factors: Factor name to value, units as in `FACTORS`.
    """

    attributes: Mapping[str, bool]
    factors: Mapping[str, float]

    def with_attribute(self, attribute: str, value: bool) -> Avatar:
        """The same face with one attribute set: the exact counterfactual."""
        _known((attribute,), ATTRIBUTES, "attribute")
        return replace(self, attributes={**self.attributes, attribute: value})


def _known(names: tuple[str, ...], allowed: tuple[str, ...], what: str) -> None:
    for name in names:
        if name not in allowed:
            raise ValueError(f"avatar {what} {name!r} does not exist; there are {', '.join(allowed)}")


def sample_avatars(
    num: int,
    rng: np.random.Generator,
    *,
    rates: Mapping[str, float] | None = None,
    fixed: Mapping[str, bool | float] | None = None,
    correlations: Mapping[tuple[str, str], float] | None = None,
) -> list[Avatar]:
    """Draw faces at random.

    Attributes and factors are drawn through a Gaussian copula: one standard normal each,
    correlated as asked for, then cut at the rate's quantile (attributes) or mapped to the
    factor's own distribution. Without `correlations` all are independent.

    Args:
        num: How many.
        rng: Source of randomness.
        rates: Share of faces with an attribute, in [0, 1]; 0.5 where not given.
        fixed: Attributes or factors held at one value.
        correlations: Correlation of the underlying normals for pairs of names, in [-1, 1].

    Raises:
        ValueError: An unknown name, a rate outside [0, 1], or correlations that no joint
            normal distribution can have.
    """
    rates, fixed, correlations = rates or {}, fixed or {}, correlations or {}
    names = (*ATTRIBUTES, *FACTORS)
    _known(tuple(rates), ATTRIBUTES, "attribute")
    _known(tuple(fixed), names, "attribute or factor")
    for attribute, rate in rates.items():
        if not 0 <= rate <= 1:
            raise ValueError(f"rate of {attribute!r} is {rate}, must be in [0, 1]")
    normals = rng.standard_normal((num, len(names))) @ _correlation_root(names, correlations).T
    thresholds = [_normal_quantile(1 - rates.get(a, 0.5)) for a in ATTRIBUTES]
    avatars = []
    for row in normals:
        attributes = {a: bool(z > cut) for a, z, cut in zip(ATTRIBUTES, row, thresholds, strict=False)}
        factors = {
            f: spec.from_normal(float(z)) for (f, spec), z in zip(FACTORS.items(), row[len(ATTRIBUTES) :], strict=True)
        }
        for name, value in fixed.items():
            if name in attributes:
                attributes[name] = bool(value)
            else:
                factors[name] = float(value)
        avatars.append(Avatar(attributes, factors))
    return avatars


def _correlation_root(names: tuple[str, ...], correlations: Mapping[tuple[str, str], float]) -> NDArray[np.float64]:
    matrix = np.eye(len(names))
    for (a, b), value in correlations.items():
        _known((a, b), names, "attribute or factor")
        i, j = names.index(a), names.index(b)
        matrix[i, j] = matrix[j, i] = value
    eigenvalues, vectors = np.linalg.eigh(matrix)
    if eigenvalues.min() < -1e-9 or np.abs(matrix).max() > 1:
        raise ValueError(f"correlations {dict(correlations)} contradict each other: no joint distribution has them")
    return vectors * np.sqrt(eigenvalues.clip(min=0))


def _normal_quantile(p: float) -> float:
    from statistics import NormalDist

    if p <= 0:
        return -math.inf
    return math.inf if p >= 1 else NormalDist().inv_cdf(p)
