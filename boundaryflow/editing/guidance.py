"""Parameters of the guided edit, and which noise levels it visits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from boundaryflow.boundary import Boundaries, Boundary
from boundaryflow.errors import BoundaryError


@dataclass(frozen=True, kw_only=True)
class Guidance:
    """Parameters of the guided edit.

    Attributes:
        certainty: Strength 1 leads to the place where an image is typical of its new class and belongs
            to it with at least this probability; in [0.5, 1). See `Calibration.reach`.
        gain: Strength 1 asks for this many times the way to that place. What is preserved, the projection and the
            linear model of the features each make a step fall short of what it asks for.
        tweedie_projection: Apply the network to each step before it is taken, and remove the part that
            it would denoise away; one more network call per timestep. By Tweedie's formula this
            multiplies the step by the covariance of the images that fit the noisy sample.
        preserve: Penalty on moving the attributes that are not edited towards their other side; 0 is
            none. Their losses are combined to one direction in feature space with pullback g_h: a step
            minimises |step|^2 + preserve w (g_h step - loss)^2 / |g_h|^2. For a loss near 0 that
            direction is rounding noise; the weight w = loss^2 / (loss^2 + tau^2) then goes to 0. tau
            is 1 % of the mean reach of the preserved attributes.
        preserve_residual: The same penalty on the change of the features that does not go with the edited attributes:
            what is left of it after the attributes' patterns, each as far as its hyperplane was approached (see
            `Boundary.pattern`). It keeps what no label describes, such as who a face is; 0 is none. tau is 1 % of the
            mean reach of the edited attributes.
        max_step: Largest root mean square of the step of one timestep, in model range of the image; a longer step
            is shortened to it, as the linear model of the features that it comes from holds nearby only (a trust
            region). 0 is no limit.
        soft_threshold: Changes smaller than this are faded out at every timestep, in model range; 0 is off.
        region: The edit is limited to where the smoothed change exceeds this share of its largest
            value, fading to zero at half of that; 0 is off.
        num_draws: Noises per timestep, whose edits are averaged; at least 1.
        num_iterations: Iterations over the path; at least 1.
        stride: Of the timesteps with hyperplanes, the noisiest is visited and every so many below it; 1 visits all.
            Twice the stride is half the network calls.
    """

    certainty: float
    gain: float
    tweedie_projection: bool
    preserve: float
    preserve_residual: float
    max_step: float
    soft_threshold: float
    region: float
    num_draws: int
    num_iterations: int
    stride: int

    @property
    def num_noises(self) -> int:
        """Noises that an edit needs per timestep."""
        return self.num_draws * self.num_iterations

    def path(self, timesteps: Sequence[int]) -> tuple[int, ...]:
        """The timesteps that are visited, of the ascending ones with hyperplanes."""
        return tuple(timesteps[(len(timesteps) - 1) % self.stride :: self.stride])

    def visited(
        self, boundaries: Boundaries, timesteps: Sequence[int], *, may_be_empty: bool = False
    ) -> tuple[Boundary, ...]:
        """The hyperplanes between noised images that lie on the path.

        Raises:
            BoundaryError: None of them lies there, which is not fine.
        """
        path = self.path(timesteps)
        found = tuple(boundary for boundary in boundaries.noised if boundary.t in path)
        if boundaries.noised and not found and not may_be_empty:
            raise BoundaryError(
                f"boundary {boundaries.attribute!r}: can be separated at timesteps "
                f"{', '.join(str(boundary.t) for boundary in boundaries.noised)} alone, none of which an edit with "
                f"stride {self.stride} visits; a stride of 1 visits all"
            )
        return found
