"""From what a network predicts to the noise: v and x_0 in closed form.

With x_t = sqrt(alpha_bar) x_0 + sqrt(1 - alpha_bar) eps and v = sqrt(alpha_bar) eps - sqrt(1 - alpha_bar) x_0:

    eps = sqrt(alpha_bar) v + sqrt(1 - alpha_bar) x_t            (Salimans and Ho 2022, appendix D)
    eps = (x_t - sqrt(alpha_bar) x_0) / sqrt(1 - alpha_bar)      (Ho et al. 2020, eq. 4 solved for eps)

The second divides by the share of noise, so that an error in x_0 is magnified at the first timesteps:
a hundredfold at alpha_bar = 0.9999.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

from jaxtyping import Float
from torch import Tensor

from boundaryflow.errors import CheckpointError

Prediction = Literal["epsilon", "v_prediction", "sample"]
"""diffusers' names; `sample` is x_0."""


def prediction_of(schedule: Mapping[str, Any], where: object) -> Prediction:
    """What a network predicts, by its schedule; noise where that does not say.

    Args:
        schedule: As diffusers writes scheduler_config.json.
        where: For messages.

    Raises:
        CheckpointError: `prediction_type` is unknown.
    """
    kind = schedule.get("prediction_type", "epsilon")
    if kind not in get_args(Prediction):
        raise CheckpointError(
            f"model {where}: prediction_type is {kind!r:.60}, must be one of {', '.join(get_args(Prediction))}"
        )
    return kind


def eps_from(
    prediction: Prediction,
    out: Float[Tensor, "b c h w"],
    x_t: Float[Tensor, "b c h w"],
    alpha_bar: Float[Tensor, " b"] | float,
) -> Float[Tensor, "b c h w"]:
    """The noise that a network's output stands for.

    Args:
        prediction: What the output is.
        out: Output of the network.
        x_t: What it was given.
        alpha_bar: Signal level of x_t, in (0, 1).
    """
    if prediction == "epsilon":
        return out
    level = alpha_bar.reshape(-1, 1, 1, 1).to(out) if isinstance(alpha_bar, Tensor) else out.new_full((), alpha_bar)
    signal, noise = level.sqrt(), (1 - level).sqrt()
    if prediction == "v_prediction":
        return signal * out + noise * x_t
    return (x_t - signal * out) / noise
