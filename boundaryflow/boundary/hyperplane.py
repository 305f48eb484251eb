"""Boundaries: hyperplanes in latent spaces, where they hold, and what distances from them mean."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from jaxtyping import Float
from safetensors import SafetensorError
from torch import Tensor

from boundaryflow.errors import BoundaryError
from boundaryflow.formats.tensor_files import read_tensors, write_tensors
from boundaryflow.text import visible

Space = Literal["eps", "h"]
SPACES: tuple[Space, ...] = ("eps", "h")
SCHEMA = "boundary/2"
_LARGEST = 1e30  # of an intercept or a distance
_NORM_TOLERANCE = 1e-3  # of a unit vector; float32 rounds a norm of a million terms by less


@dataclass(frozen=True)
class Calibration:
    """Signed distances of images that the boundary was not fitted on, in latent units.

    Attributes:
        mean_positive: Mean of those that have the attribute.
        mean_negative: Mean of those that do not.
        sd: Standard deviation within the two classes, pooled.
        auc: Area under the ROC curve, in [0, 1].
        num: How many images this is measured on.
    """

    mean_positive: float
    mean_negative: float
    sd: float
    auc: float
    num: int

    @property
    def gap(self) -> float:
        """Distance between the two class means."""
        return self.mean_positive - self.mean_negative

    @property
    def middle(self) -> float:
        """Half-way between the two class means."""
        return (self.mean_positive + self.mean_negative) / 2

    def reach(self, log_odds: float) -> float:
        """How far from the middle an image lies that is typical of its class and surely of it.

        Half the gap is typical. Where the classes overlap, a typical image is not one of which
        its class is sure: for two normal distributions of one variance the log-odds at distance s
        from the middle are s gap / sd^2 (linear discriminant analysis), so that being sure takes
        log_odds sd^2 / gap. The larger of the two.

        Args:
            log_odds: Natural logarithm of the odds that count as sure; 0 leaves it at half the gap.
        """
        return max(self.gap / 2, log_odds * self.sd**2 / self.gap)


@dataclass(frozen=True)
class Boundary:
    """A hyperplane of one attribute in one latent space, at one timestep of one model.

    Attributes:
        normal: [D] unit vector, float32; the positive side has the attribute.
        intercept: Offset, divided by the same norm as the normal.
        space: `eps` for samples, `h` for bottlenecks, else what `boundaryflow.diffusion.Features.space` calls it.
        t: Timestep of the latents.
        attribute: Name.
        model_sha256: Hash of the model whose latents these are.
        calibration: What distances mean on held-out images.
        pattern: [D] how the features change with the attribute, all other labelled attributes being equal, float32; see
            `boundaryflow.boundary.patterns`. None where it is unknown, as at the mixing step.
    """

    normal: Float[Tensor, " d"]
    intercept: float
    space: str
    t: int
    attribute: str
    model_sha256: str
    calibration: Calibration
    pattern: Float[Tensor, " d"] | None = None

    def signed_distance(self, latents: Float[Tensor, "n ..."]) -> Float[Tensor, " n"]:
        """Distance of each latent from the hyperplane, positive on the attribute's side, in latent units."""
        self.check_dimensions(latents[0].numel())
        return latents.flatten(1).float() @ self.normal.to(latents.device) + self.intercept

    def probability(self, latents: Float[Tensor, "n ..."]) -> Float[Tensor, " n"]:
        """Probability that each latent is of an image with the attribute, both classes taken as equally frequent.

        For two normal distributions of one variance the log-odds at distance s from the middle are
        s gap / sd^2 (linear discriminant analysis).
        """
        known = self.calibration
        return ((self.signed_distance(latents) - known.middle) * known.gap / max(known.sd, 1e-12) ** 2).sigmoid()

    def check_model(self, model_sha256: str) -> None:
        """Refuse to be used with another model.

        Raises:
            BoundaryError: The model differs from the boundary's own.
        """
        if self.model_sha256 != model_sha256:
            raise BoundaryError(
                f"{self._where} was fitted on model {self.model_sha256[:12]}, not {model_sha256[:12]}; "
                "run `boundaryflow run` to fit it for this model"
            )

    def check_fits(self, model_sha256: str, t: int) -> None:
        """Refuse to be used with another model or at another timestep.

        Raises:
            BoundaryError: The model or the timestep differs from the boundary's own.
        """
        where = self._where
        self.check_model(model_sha256)
        if self.t != t:
            raise BoundaryError(f"{where} holds at timestep {self.t}, not {t}; run `boundaryflow run` to fit it there")
        if not self.calibration.gap > 0:
            raise BoundaryError(
                f"{where}: held-out images with it and without it do not differ at timestep {t} "
                f"(gap {self.calibration.gap:.4g}, AUC {self.calibration.auc:.2f}), must be above 0",
                lacks="gap",
            )

    def check_space(self, space: str) -> None:
        """Refuse latents of another space.

        Raises:
            BoundaryError: The hyperplane lies in another space.
        """
        if self.space != space:
            raise BoundaryError(
                f"{self._where} lies in the space {self.space} of the network, but the features used are in {space}; "
                "run `boundaryflow run`, or `boundaryflow text` if it is from words, to fit it there"
            )

    @property
    def _where(self) -> str:
        return f"boundary {self.attribute!r} ({self.space if ':' in self.space else f'{self.space}-space'})"

    def check_dimensions(self, num: int) -> None:
        """Refuse latents of another size.

        Raises:
            BoundaryError: They have not as many dimensions as the normal.
        """
        if num != self.normal.numel():
            raise BoundaryError(
                f"{self._where} has {self.normal.numel():,} dimensions, the latents "
                f"of this model have {num:,}; run `boundaryflow run` to fit it for this model"
            )


@dataclass(frozen=True)
class Boundaries:
    """All hyperplanes of one attribute, in one model.

    Attributes:
        attribute: Name.
        at_mixing_step: Space to the hyperplane between inverted images, at the mixing step.
        noised: Hyperplanes between images with noise added, all in one space, by ascending timestep: what
            `boundaryflow.editing.guided_edit` follows. Empty where none were asked for.
    """

    attribute: str
    at_mixing_step: Mapping[Space, Boundary]
    noised: tuple[Boundary, ...] = ()

    @property
    def all(self) -> dict[str, Boundary]:
        """Every hyperplane under the name that the file has for it: `eps`, `h`, and `SPACE@t` for noised images."""
        return {**self.at_mixing_step, **{f"{boundary.space}@{boundary.t}": boundary for boundary in self.noised}}

    @property
    def not_separable(self) -> BoundaryError:
        """What is wrong where there are no hyperplanes between noised images."""
        return BoundaryError(
            f"boundary {self.attribute!r}: held-out images with it and without it cannot be separated well enough at "
            "any noise level",
            lacks="separation",
        )

    def in_space(self, space: Space, model_sha256: str, t: int) -> Boundary:
        """The hyperplane at the mixing step in one space.

        Raises:
            BoundaryError: There is none, or it belongs to another model or timestep.
        """
        if not self.at_mixing_step:
            raise BoundaryError(
                f"boundary {self.attribute!r}: has hyperplanes between noised images only, as one from words or "
                "pictures has, and a single step needs one at the mixing step",
                lacks="mixing step",
            )
        if space not in self.at_mixing_step:
            raise BoundaryError(f"boundary {self.attribute!r}: has no hyperplane in {space}-space", lacks=space)
        boundary = self.at_mixing_step[space]
        boundary.check_fits(model_sha256, t)
        return boundary

    def cosine_similarity(self, other: Boundaries) -> float:
        """Mean cosine, its sign aside, of the two attributes' normals at the noise levels that both have; else 0."""
        theirs = {hyperplane.t: hyperplane for hyperplane in other.noised}
        both = [hyperplane for hyperplane in self.noised if hyperplane.t in theirs]
        for hyperplane in both:
            hyperplane.check_space(theirs[hyperplane.t].space)
            hyperplane.check_dimensions(theirs[hyperplane.t].normal.numel())
        cosines = [abs(float(hyperplane.normal @ theirs[hyperplane.t].normal)) for hyperplane in both]
        return sum(cosines) / len(cosines) if cosines else 0.0

    def along_path(
        self, timesteps: Sequence[int], model_sha256: str, space: str, *, may_be_empty: bool = False
    ) -> tuple[Boundary, ...]:
        """The hyperplanes between noised images, by ascending timestep.

        Args:
            timesteps: The path; every hyperplane must hold at one of these.
            model_sha256: Hash of the model.
            space: Name of the space that the images are seen in.
            may_be_empty: No hyperplane is fine, too.

        Raises:
            BoundaryError: There is none, or one belongs to another path, model or space.
        """
        if not self.noised and not may_be_empty:
            raise self.not_separable
        for boundary in self.noised:
            if boundary.t not in timesteps:
                raise BoundaryError(
                    f"boundary {self.attribute!r}: has a hyperplane at timestep {boundary.t}, which is not on the path "
                    f"{list(timesteps)}; run `boundaryflow run` to fit it again"
                )
            boundary.check_fits(model_sha256, boundary.t)
            boundary.check_space(space)
        return self.noised


def most_telling(hyperplanes: Sequence[Boundary]) -> Boundary:
    """The hyperplane of the highest AUC; of equals that of the lowest timestep."""
    return max(hyperplanes, key=lambda hyperplane: (hyperplane.calibration.auc, -hyperplane.t))


def save_boundaries(path: Path, boundaries: Boundaries) -> None:
    """Write the boundaries of one attribute as one safetensors file.

    The file appears whole or not at all, and its bytes depend on the content only.
    """
    hyperplanes = boundaries.all
    tensors = {f"{name}.normal": hyperplane.normal.float() for name, hyperplane in hyperplanes.items()}
    tensors |= {
        f"{name}.pattern": hyperplane.pattern.float()
        for name, hyperplane in hyperplanes.items()
        if hyperplane.pattern is not None
    }
    facts = {
        name: {key: getattr(hyperplane, key) for key in _FACTS} | {"calibration": asdict(hyperplane.calibration)}
        for name, hyperplane in hyperplanes.items()
    }
    write_tensors(path, tensors, {"schema": SCHEMA, "attribute": boundaries.attribute, "boundaries": facts})


def load_boundaries(path: Path) -> Boundaries:
    """Read the boundaries of one attribute.

    Raises:
        BoundaryError: The file is missing, damaged, or not a boundary.
    """
    if not path.exists():
        raise BoundaryError(f"boundary {path}: no such file; run `boundaryflow run` to fit it")
    try:
        tensors, about = read_tensors(path)
    except SafetensorError as error:
        raise BoundaryError(f"boundary {path}: not a complete safetensors file ({error}); fit it again") from None
    if about.get("schema") != SCHEMA:
        raise BoundaryError(f"boundary {path}: schema is {about.get('schema')!r}, must be {SCHEMA!r}; fit it again")
    attribute, facts = about.get("attribute"), about.get("boundaries")
    try:
        if not isinstance(attribute, str) or not isinstance(facts, dict) or not facts:
            raise ValueError("it has no attribute, or no hyperplanes")
        normals = {name: tensors.pop(f"{name}.normal", None) for name in facts}
        patterns = {name: tensors.pop(f"{name}.pattern", None) for name in facts}
        if tensors:
            raise ValueError("its tensors and hyperplanes do not match")
        hyperplanes = {
            name: _plane(name, attribute, fact, normals[name], patterns[name]) for name, fact in facts.items()
        }
        if len(spaces := {plane.space for name, plane in hyperplanes.items() if "@" in name}) > 1:
            raise ValueError(f"its hyperplanes between noised images lie in {len(spaces)} spaces, must be one")
    except ValueError as error:
        raise BoundaryError(f"boundary {path}: {error}; fit it again") from None
    noised = sorted((plane for name, plane in hyperplanes.items() if "@" in name), key=lambda plane: plane.t)
    return Boundaries(attribute, {s: hyperplanes[s] for s in SPACES if s in hyperplanes}, tuple(noised))


_NOISED_SPACE = re.compile(r"h|\w[\w.-]{0,199}:(all|[1-9]\d{0,3})")
_FACTS: dict[str, type] = {"intercept": float, "space": str, "t": int, "attribute": str, "model_sha256": str,
                           "calibration": dict}  # fmt: skip
_CALIBRATION: dict[str, type] = {f.name: int if f.name == "num" else float for f in fields(Calibration)}


def _plane(name: str, attribute: str, fact: Any, normal: Tensor | None, pattern: Tensor | None) -> Boundary:
    """One hyperplane of a file.

    Raises:
        ValueError: A fact is missing, unknown, of another type or not finite, the normal is no unit vector, or the
            pattern is not of as many finite numbers.
    """
    _check_facts(f"hyperplane {name}", fact, _FACTS)
    _check_facts(f"calibration of hyperplane {name}", fact["calibration"], _CALIBRATION)
    space, t = fact["space"], fact["t"]
    is_between_noised = name == f"{space}@{t}" and re.fullmatch(_NOISED_SPACE, space)
    if not (is_between_noised or (name == space and space in SPACES)) or t < 0:
        raise ValueError(f"hyperplane {visible(name)[:60]} is of {visible(space)[:60]}-space at timestep {t}")
    if fact["attribute"] != attribute:
        raise ValueError(f"hyperplane {name} is of {fact['attribute']!r}, not of {attribute!r}")
    if normal is None or not abs(_norm(normal) - 1) < _NORM_TOLERANCE:  # NaN, too
        raise ValueError(f"the normal of hyperplane {name} is not a finite unit vector")
    if pattern is not None and not (pattern.shape == normal.shape and _norm(pattern) < _LARGEST):
        raise ValueError(f"the pattern of hyperplane {name} is not of {normal.numel():,} finite floating-point numbers")
    whole: dict[str, Any] = {**fact, "calibration": Calibration(**fact["calibration"])}
    return Boundary(normal=normal.float(), pattern=None if pattern is None else pattern.float(), **whole)


def _norm(vector: Tensor) -> float:
    """NaN for what is no vector of floating-point numbers."""
    return float(vector.double().norm()) if vector.is_floating_point() and vector.ndim == 1 else math.nan


def _check_facts(where: str, facts: Any, kinds: Mapping[str, type]) -> None:
    if not isinstance(facts, dict) or facts.keys() != kinds.keys():
        raise ValueError(f"{where} has not the facts {', '.join(kinds)}")
    for key, kind in kinds.items():
        value = facts[key]
        if type(value) is not kind and not (kind is float and type(value) is int):
            raise ValueError(f"{where} has {key} {value!r:.60}, must be of type {kind.__name__}")
        if kind is float and not abs(value) < _LARGEST:
            raise ValueError(f"{where} has {key} {value!r:.60}, must be finite")
