"""Network calls per image, counted by running the engine with a model that only counts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from boundaryflow.boundary import Boundaries, Boundary, Calibration, load_boundaries
from boundaryflow.config import DatasetParams
from boundaryflow.config.edit_settings import edit_settings, features_of
from boundaryflow.diffusion import EpsModel, Features, NoiseSchedule, invert, timestep_path
from boundaryflow.diffusion.observation import DENSITY
from boundaryflow.editing import paper_invert
from boundaryflow.editing.editor import EditSettings
from boundaryflow.editing.guidance import Guidance
from boundaryflow.errors import PipelineError
from boundaryflow.runtime.editor import open_editor
from boundaryflow.runtime.frozen_model import flops
from boundaryflow.runtime.metering import Metered, Tally
from boundaryflow.runtime.samples import off_and_on, single_attributes
from boundaryflow.store.catalog.boundary import BOUNDARY
from boundaryflow.store.catalog.mixing import MIXING

_SIDE = 8


class Sizes(NamedTuple):
    """How many numbers a model gives of an image.

    Attributes:
        bottleneck: In h.
        features: In those of `observe.features`.
    """

    bottleneck: int
    features: int


_TYPICAL = Calibration(1.0, -1.0, 1.0, 0.9, 100)


class Blind:
    """An `EpsModel` without a network: its noise, bottleneck and features are zero.

    Args:
        channels: Channels of its images.
        num_bottleneck: Number of values of its bottleneck, and of its features.
        family: Family of the model that it replaces.
    """

    def __init__(self, channels: int, num_bottleneck: int, family: str) -> None:
        self.image_size, self.channels, self.value_range = _SIDE, channels, (-1.0, 1.0)
        self.schedule, self.sha256, self.family = NoiseSchedule.linear(), "0" * 64, family
        self._num_bottleneck = num_bottleneck

    def eps(self, x_t: Tensor, t: int | Tensor) -> Tensor:
        """See `EpsModel`."""
        return torch.zeros_like(x_t)

    def eps_and_h(self, x_t: Tensor, t: int | Tensor) -> tuple[Tensor, Tensor]:
        """See `EpsModel`."""
        return torch.zeros_like(x_t), torch.zeros(len(x_t), self._num_bottleneck, 1, 1)

    def eps_with_h(self, x_t: Tensor, t: int | Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """See `EpsModel`."""
        return self.eps_and_h(x_t, t)

    def eps_with_h_shift(self, x_t: Tensor, t: int | Tensor, shift: Tensor) -> Tensor:
        """See `EpsModel`."""
        return torch.zeros_like(x_t)

    def eps_and_features(self, x_t: Tensor, t: int | Tensor, features: Features) -> tuple[Tensor, Tensor]:
        """See `EpsModel`."""
        return torch.zeros_like(x_t), torch.zeros(len(x_t), self._num_bottleneck)

    def pullback(
        self, x_t: Tensor, t: int | Tensor, features: Features, normals: Callable[[Tensor], Tensor]
    ) -> tuple[Tensor, Tensor]:
        """See `EpsModel`."""
        directions = normals(torch.zeros(len(x_t), self._num_bottleneck))
        return torch.zeros_like(x_t), x_t[:, None].expand(-1, directions.shape[1], -1, -1, -1)


@dataclass(frozen=True)
class Planned:
    """Settings and timesteps of a data set's edits, as far as they are known before a run.

    Attributes:
        params: Parameters of the data set.
        t_mix: The mixing step; the middle of the allowed range if it is not known yet.
        noise_levels: Timesteps of the guided edit's path.
        followed: Attribute to the noise levels at which it has a hyperplane; all of them if none is fitted yet, or the
            edit visits none of these.
    """

    params: DatasetParams
    t_mix: int
    noise_levels: tuple[int, ...]
    followed: Mapping[str, Sequence[int]]

    @classmethod
    def of(cls, dataset: str, params: DatasetParams) -> Planned:
        """From the parameters, and from results of earlier runs."""
        found = MIXING.facts_path(dataset)
        mixing = params.mixing
        guess = mixing.fixed_t if mixing.rule == "fixed" and mixing.fixed_t else (mixing.min_t + mixing.max_t) // 2
        t_mix = (MIXING.read_facts(dataset)["t_mix"] if found.is_file() else None) or guess
        levels = timestep_path(params.observe.t_max, params.observe.num_steps, DENSITY)
        visited = set(Guidance(**params.edit.guided.model_dump()).path(levels))
        followed: dict[str, Sequence[int]] = dict.fromkeys(params.label.attributes, levels)
        for attribute in followed:
            try:
                hyperplanes = load_boundaries(BOUNDARY.folder(dataset) / f"{attribute}.safetensors").noised
            except PipelineError:
                continue
            at = [hyperplane.t for hyperplane in hyperplanes]
            followed[attribute] = at if set(at) <= set(levels) and visited.intersection(at) else levels
        return cls(params, t_mix, levels, followed)

    @property
    def features(self) -> Features:
        """Features that the hyperplanes along the path lie in."""
        return features_of(self.params.observe)

    def cut_short(self) -> Planned:
        """A shorter path with a few network calls of every kind of the full path."""
        params = self.params
        edit, targets = next(iter(params.edit.edits.items()))
        guided = params.edit.guided.model_copy(update={"num_iterations": 1, "stride": 1})
        changes = {"strengths": [1.0], "compare": None, "edits": {edit: targets}, "guided": guided, "num_samples": 0}
        short = params.model_copy(
            update={
                "invert": params.invert.model_copy(update={"num_steps": min(3, params.invert.num_steps)}),
                "edit": params.edit.model_copy(update=changes),
            }
        )
        levels = self.noise_levels[-2:]
        return Planned(short, self.t_mix, levels, dict.fromkeys(self.followed, levels))

    def settings(self, method: str) -> EditSettings:
        """Settings of the edits by one of `params.edit.methods`."""
        path = {"t_mix": self.t_mix, **self.params.invert.model_dump()}
        observed = {"timesteps": self.noise_levels, "features": asdict(self.features)}
        how = edit_settings(self.params, method, path=path, observed=observed, dtype=self.params.dtype)
        return replace(how, mask=None)

    def hyperplanes(self, attributes: Sequence[str], model: EpsModel, sizes: Sizes) -> list[Boundaries]:
        """Random hyperplanes with the shapes of fitted ones, all different."""
        num_eps = model.channels * model.image_size**2
        made: list[Boundaries] = []
        for number, attribute in enumerate(attributes):
            in_h, observed = (one_hot(torch.tensor(number % num), num).float() for num in sizes)
            about: dict[str, Any] = {
                "intercept": 0.0, "attribute": attribute, "model_sha256": model.sha256, "calibration": _TYPICAL,
            }  # fmt: skip
            eps = Boundary(torch.full((num_eps,), num_eps**-0.5), space="eps", t=self.t_mix, **about)
            noised = [
                Boundary(observed, space=self.features.space, t=t, pattern=observed, **about)
                for t in self.followed.get(attribute, self.noise_levels)
            ]
            at_mixing_step = {"eps": eps, "h": Boundary(in_h, space="h", t=self.t_mix, **about)}
            made.append(Boundaries(attribute, at_mixing_step, tuple(noised)))  # pyright: ignore[reportArgumentType]
        return made

    def invert(self, model: EpsModel, x_0: Tensor) -> None:
        """Invert images as the stage invert does."""
        how, path = self.params.invert, timestep_path(self.t_mix, self.params.invert.num_steps)
        if self.params.paper_mode:
            paper_invert(model, x_0, path)
        else:
            noise = torch.zeros_like(x_0) if how.noise_until else None
            invert(model, x_0, path, start_noise=noise, noise_until=how.noise_until, order=how.order)

    def edit(
        self, model: EpsModel, x_0: Tensor, attributes: Sequence[str], sizes: Sizes, method: str | None = None
    ) -> None:
        """What stage edit does with some images for one edit, by one method; without one, by the edit's own."""
        settings = self.settings(method or self.params.edit.method)
        editor = open_editor(model, settings, 0)
        source = editor.open(x_0, [f"timing-{number}" for number in range(len(x_0))])
        others = [name for name in self.params.label.attributes if name not in attributes]
        preserved = self.hyperplanes(others, model, sizes) if settings.keeps_others else []
        hyperplanes = self.hyperplanes(attributes, model, sizes)
        editor.edit(source, range(len(x_0)), hyperplanes, torch.ones(len(x_0), len(attributes)), preserved)

    @property
    def sampled(self) -> list[str]:
        """Attributes that images drawn from noise are shown without and with; empty if there are no such images."""
        edit = self.params.edit
        return single_attributes(edit.edits.values()) if edit.num_samples and not self.params.paper_mode else []

    def sample(self, model: EpsModel, sizes: Sizes) -> None:
        """Draw one image from noise, and change its attributes, as stage edit does."""
        settings = self.settings(self.params.edit.method)
        names = list(self.params.label.attributes)
        known = dict(zip(names, self.hyperplanes(names, model, sizes), strict=True))
        preserved = list(known.values()) if settings.keeps_others else []
        off_and_on(model, settings, 0, ["timing"], [known[attribute] for attribute in self.sampled], preserved)


@dataclass(frozen=True)
class Counts:
    """Network calls of one image.

    Attributes:
        invert: Calls for the inversion to the mixing step.
        opening: Method to the calls that all edits of an image share.
        edits: Method and edit to the calls at all strengths.
        sample: Calls for an image drawn from noise, and for its attributes changed.
    """

    invert: Tally
    opening: Mapping[str, Tally]
    edits: Mapping[tuple[str, str], Tally]
    sample: Tally


def count(planned: Planned, family: str) -> Counts:
    """Count the network calls of one image that all edits change."""
    x_0 = torch.zeros(1, planned.params.ingest.channels, _SIDE, _SIDE)
    num = len(planned.params.label.attributes)
    flops(Blind(planned.params.ingest.channels, num, family))  # a process calls the network for it once, not per image

    def counted(work: Callable[[EpsModel], object]) -> Tally:
        model = Metered(Blind(planned.params.ingest.channels, num, family), Tally())
        work(model)
        return model.tally

    opening: dict[str, Tally] = {}
    edits: dict[tuple[str, str], Tally] = {}
    for method in planned.params.edit.methods:
        opening[method] = counted(
            lambda model, method=method: open_editor(model, planned.settings(method), 0).open(x_0, ["timing"])
        )
        for edit, targets in planned.params.edit.edits.items():
            found = counted(
                lambda model, targets=targets, method=method: planned.edit(
                    model, x_0, list(targets), Sizes(num, num), method
                )
            )
            num_calls = found.image_calls - opening[method].image_calls
            edits[method, edit] = Tally(num_calls, found.pullbacks, found.directions)
    sample = counted(lambda model: planned.sample(model, Sizes(num, num))) if planned.sampled else Tally()
    return Counts(counted(lambda model: planned.invert(model, x_0)), opening, edits, sample)
