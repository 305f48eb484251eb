"""The settings of an edit and the protocol of the three editors: guided, single step, and paper mode."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from boundaryflow.boundary import Boundaries
from boundaryflow.boundary.hyperplane import SPACES, Space
from boundaryflow.diffusion import EpsModel, Features, Order
from boundaryflow.editing.guidance import Guidance
from boundaryflow.editing.mask import Mask
from boundaryflow.errors import BoundaryError

NOT_INVERTED = (
    "edit: a single step needs images inverted to the mixing step, and no edit needed any when the stages ran; run "
    "`boundaryflow run` with edit.method or edit.compare.method: single_step"
)
_OF_SINGLE_STEP = {"t_mix", "num_steps", "noise_until", "order", "eta", "residuals", "eps_scale", "h_scale", "h_window",
                   "conditional"}  # fmt: skip
_OF_GUIDED = {"guided", "mask", "timesteps", "features"}
PerCall = Callable[[EpsModel], int]
"""Largest number of images per network call."""


@dataclass(frozen=True)
class EditSettings:
    """Section `edit` of params.yaml, with what earlier stages decided.

    Attributes:
        t_mix: The mixing step; None where no edit needed one when the stages ran.
        num_steps: Timesteps of the path, both ends included; those of the inversion that the boundaries saw.
        noise_until: Timestep up to which inversion adds noise; see `boundaryflow.diffusion.walk_up`.
        order: Order of the inversion, see there.
        eta: 0 is deterministic, 1 has the variance of DDPM.
        residuals: Add the residuals of the inversion, so that strength 0 returns the image.
        eps_scale: Move in ε-space per unit of strength, in distances between class means; 0 is no move.
        h_scale: The same in h-space.
        h_window: Noisiest and cleanest end of the h window, as shares of t_mix.
        strengths: Strengths; in paper mode absolute distances in latent units.
        paper_mode: Compute what the authors' release computes.
        dtype: Floating point type of the network.
        method: `guided` follows the boundaries of many noise levels, `single_step` moves once at t_mix.
        guided: Of the guided edit.
        mask: Where a guided edit may change images; None is everywhere.
        conditional: Move orthogonally to the normals of the attributes that are not edited. For the
            single step.
        timesteps: Path of the guided edit, ascending.
        features: Features in which the guided edit follows the hyperplanes.
    """

    t_mix: int | None
    num_steps: int
    noise_until: int
    order: Order
    eta: float
    residuals: bool
    eps_scale: float
    h_scale: float
    h_window: Sequence[float]
    strengths: Sequence[float]
    paper_mode: bool
    dtype: str
    method: str
    guided: Guidance
    mask: Mask | None
    conditional: bool
    timesteps: Sequence[int]
    features: Features

    @property
    def is_guided(self) -> bool:
        """Whether this is the guided edit."""
        return self.method == "guided" and not self.paper_mode

    @property
    def spaces(self) -> list[Space]:
        """Spaces in which latents are moved at the mixing step."""
        scales = {"eps": self.eps_scale, "h": self.h_scale}
        return [space for space in SPACES if self.paper_mode or scales[space] != 0]

    @property
    def mixing_step(self) -> int:
        """The mixing step.

        Raises:
            BoundaryError: There is none.
        """
        if self.t_mix is None:
            raise BoundaryError(NOT_INVERTED)
        return self.t_mix

    @property
    def used(self) -> dict[str, Any]:
        """The settings that decide a result of this method, as plain values."""
        idle = _OF_SINGLE_STEP if self.is_guided else _OF_GUIDED
        return {name: value for name, value in asdict(self).items() if name not in idle}

    @property
    def keeps_others(self) -> bool:
        """Whether an edit needs the boundaries of the attributes that it preserves."""
        return self.guided.preserve > 0 if self.is_guided else self.conditional and not self.paper_mode


@runtime_checkable
class Editor(Protocol):
    """Prepares images once, for any number of edits."""

    def open(self, x_0: Tensor, item_ids: Sequence[str]) -> Any:
        """Compute once what all edits of these images share.

        Args:
            x_0: [B,C,H,W] images in model range.
            item_ids: Their ids, from which their noise is drawn.

        Returns:
            The source for `edit` of the same editor.
        """
        ...

    def edit(
        self,
        source: Any,
        rows: Sequence[int],
        boundaries: Sequence[Boundaries],
        directions: Tensor,
        preserved: Sequence[Boundaries] = (),
    ) -> Tensor:
        """Edit some of the images at every strength; an image whose directions are all 0 is returned unchanged.

        Args:
            source: Result of `open`.
            rows: Rows of the images to edit.
            boundaries: Boundaries of the A edited attributes.
            directions: [len(rows), A] +1, -1 or 0; another number multiplies the strength of its attribute.
            preserved: Boundaries of the attributes that a guided edit or a conditional single step preserves.

        Returns:
            [len(rows), K, C, H, W] in model range, not clipped.

        Raises:
            BoundaryError: A boundary is missing where it is needed, or belongs to another model or timestep.
        """
        ...


@dataclass(frozen=True)
class BaseEditor:
    """What all editors hold.

    Attributes:
        model: The frozen model.
        settings: See `EditSettings`.
        run_seed: Seed of all noise, which is drawn per image.
        images_per_call: Largest number of images per network call.
    """

    model: EpsModel
    settings: EditSettings
    run_seed: int
    images_per_call: PerCall

    def num_together(self, num_images: int) -> int:
        """Number of strengths that go through the network in one call."""
        return max(1, self.images_per_call(self.model) // num_images)
