"""What the engine needs of a frozen model. Any class with these members can be edited with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from boundaryflow.diffusion.features import Features
from boundaryflow.diffusion.schedule import NoiseSchedule


@runtime_checkable
class EpsModel(Protocol):
    """A frozen, unconditional, ε-predicting network whose bottleneck can be seen and set, its other layers seen.

    Samples go in and noise comes out as float32, whatever dtype the network runs in.

    A model may have one member more, `features_only`, with the arguments of `eps_and_features`: the features alone,
    without computing what comes behind their layer. The stage observe is then up to three times as fast.
    """

    @property
    def image_size(self) -> int:
        """Side of the square images, in pixels."""
        ...

    @property
    def channels(self) -> int:
        """Channels of an image: 1 or 3."""
        ...

    @property
    def value_range(self) -> tuple[float, float]:
        """What black and white are to the model."""
        ...

    @property
    def schedule(self) -> NoiseSchedule:
        """The noise schedule that the model was trained with."""
        ...

    @property
    def sha256(self) -> str:
        """Hash of the weights and of what decides how they are used."""
        ...

    def eps(self, x_t: Float[Tensor, "b c h w"], t: int | Tensor) -> Float[Tensor, "b c h w"]:
        """Predicted noise at (x_t, t); t is one timestep or one per image."""
        ...

    def eps_and_h(
        self, x_t: Float[Tensor, "b c h w"], t: int | Tensor
    ) -> tuple[Float[Tensor, "b c h w"], Float[Tensor, "b ch hh wh"]]:
        """Predicted noise, and the bottleneck that it was made from."""
        ...

    def eps_with_h(
        self, x_t: Float[Tensor, "b c h w"], t: int | Tensor, h: Float[Tensor, "b ch hh wh"]
    ) -> tuple[Float[Tensor, "b c h w"], Float[Tensor, "b ch hh wh"]]:
        """Predicted noise with the bottleneck replaced by h, and the bottleneck as it would have been."""
        ...

    def eps_with_h_shift(
        self, x_t: Float[Tensor, "b c h w"], t: int | Tensor, shift: Float[Tensor, "b ch hh wh"]
    ) -> Float[Tensor, "b c h w"]:
        """Predicted noise with `shift` added to the bottleneck."""
        ...

    def eps_and_features(
        self, x_t: Float[Tensor, "b c h w"], t: int | Tensor, features: Features
    ) -> tuple[Float[Tensor, "b c h w"], Float[Tensor, "b d"]]:
        """Predicted noise, and the features that a layer gave on the way, float32.

        Raises:
            CheckpointError: The network has no such layer, or its output is not of a shape that can be used.
        """
        ...

    def pullback(
        self,
        x_t: Float[Tensor, "b c h w"],
        t: int | Tensor,
        features: Features,
        normals: Callable[[Float[Tensor, "b d"]], Float[Tensor, "b a d"]],
    ) -> tuple[Float[Tensor, "b c h w"], Float[Tensor, "b a c h w"]]:
        """Predicted noise, and directions of feature space pulled back to the sample.

        The pullback of a direction n is J^T n, with J the Jacobian of the features with respect
        to x_t: how each value of this very image should change for the features to go along n
        (Park et al. 2023, "Understanding the latent space of diffusion models through the lens of
        Riemannian geometry", section 3, for the bottleneck).

        Args:
            x_t: Samples.
            t: One timestep or one per image.
            features: Which.
            normals: Called once with the features [B,D]; gives A directions for each image.

        Raises:
            CheckpointError: See `eps_and_features`.
        """
        ...
