"""One boundary: a hyperplane in a latent space, where it holds, and what distances from it mean."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from torch import Tensor

from boundaryflow.errors import BoundaryError
from boundaryflow.tensor_files import read_tensors, write_tensors

Space = Literal["eps", "h"]
SPACES: tuple[Space, ...] = ("eps", "h")
SCHEMA = "boundary/1"


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
        """Distance between the two class means: one unit of edit strength."""
        return self.mean_positive - self.mean_negative


@dataclass(frozen=True)
class Boundary:
    """A hyperplane of one attribute in one latent space, at one timestep of one model.

    Attributes:
        normal: [D] unit vector, float32; the positive side has the attribute.
        intercept: Offset, divided by the same norm as the normal.
        space: `eps` for x_mix, `h` for h_mix.
        t_mix: Timestep of the latents.
        attribute: Name.
        model_sha256: Hash of the model whose latents these are.
        calibration: What distances mean on held-out images.
    """

    normal: Float[Tensor, " d"]
    intercept: float
    space: Space
    t_mix: int
    attribute: str
    model_sha256: str
    calibration: Calibration

    def signed_distance(self, latents: Float[Tensor, "n ..."]) -> Float[Tensor, " n"]:
        """Distance of each latent from the plane, positive on the attribute's side, in latent units."""
        return latents.flatten(1).float() @ self.normal.to(latents.device) + self.intercept

    def moved_by(self, latents: Float[Tensor, "n ..."], shift: Float[Tensor, " n"]) -> Float[Tensor, "n ..."]:
        """Latents moved along the normal by `shift`, one value per latent (the paper's edit rule)."""
        direction = self.normal.to(latents.device).reshape(1, *latents.shape[1:])
        return latents + shift.reshape(-1, *[1] * (latents.ndim - 1)).to(latents) * direction

    def moved_to(
        self, latents: Float[Tensor, "n ..."], target_distance: float | Float[Tensor, " n"]
    ) -> Float[Tensor, "n ..."]:
        """Latents moved along the normal until their signed distance is the target."""
        return self.moved_by(latents, target_distance - self.signed_distance(latents))

    def check_fits(self, model_sha256: str, t_mix: int) -> None:
        """Refuse to be used with another model or at another timestep.

        Raises:
            BoundaryError: The model or the timestep differs from the boundary's own.
        """
        where = f"boundary {self.attribute!r} ({self.space}-space)"
        if self.model_sha256 != model_sha256:
            raise BoundaryError(
                f"{where} was fitted on model {self.model_sha256[:12]}, not {model_sha256[:12]}; "
                "run `boundaryflow run` to fit it for this model"
            )
        if self.t_mix != t_mix:
            raise BoundaryError(
                f"{where} holds at t_mix {self.t_mix}, not {t_mix}; run `boundaryflow run` to fit it there"
            )


def save_boundaries(path: Path, boundaries: Mapping[Space, Boundary]) -> None:
    """Write the boundaries of one attribute, one per space, as one safetensors file.

    The file appears whole or not at all, and its bytes depend on the content only.
    """
    tensors = {f"{space}.normal": b.normal.float() for space, b in boundaries.items()}
    facts = {
        space: {k: v for k, v in asdict(replace(b, normal=torch.empty(0))).items() if k != "normal"}
        for space, b in boundaries.items()
    }
    write_tensors(path, tensors, {"schema": SCHEMA, "boundaries": facts})


def load_boundaries(path: Path) -> dict[Space, Boundary]:
    """Read the boundaries of one attribute.

    Raises:
        BoundaryError: The file is missing, damaged, or not a boundary.
    """
    if not path.exists():
        raise BoundaryError(f"boundary {path}: no such file; run `boundaryflow run` to fit it")
    try:
        tensors, about = read_tensors(path)
    except SafetensorError as error:
        raise BoundaryError(f"boundary {path}: not a whole safetensors file ({error}); fit it again") from None
    if about.get("schema") != SCHEMA:
        raise BoundaryError(f"boundary {path}: schema is {about.get('schema')!r}, must be {SCHEMA!r}; fit it again")
    boundaries: dict[Space, Boundary] = {}
    for space, fact in about["boundaries"].items():
        whole: dict[str, Any] = {**fact, "calibration": Calibration(**fact["calibration"])}
        boundaries[space] = Boundary(normal=tensors[f"{space}.normal"], **whole)
    return boundaries
