"""The whole of params.yaml, and its sections of jobs."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Discriminator, Field, Tag, model_validator

from boundaryflow.config.base import Name, Section, Strengths
from boundaryflow.config.delivery import DeliveryParams
from boundaryflow.config.guard import GuardParams
from boundaryflow.config.sections import DatasetParams
from boundaryflow.config.wording import nearest
from boundaryflow.errors import ParamsError


class BulkEditParams(GuardParams):
    """A job of the flow `bulk_edit`: what is done with pictures that arrive."""

    dataset: Name
    inbox: str = Field(min_length=1)
    outbox: str = Field(min_length=1)
    edits: dict[Name, dict[Name, Literal["add", "remove", "flip"]]] = Field(min_length=1)
    strengths: Strengths
    min_probability: float | None = Field(gt=0, lt=1)


class EqualTarget(Section):
    """As many images with an attribute as without."""

    equal: Name


class IndependentTarget(Section):
    """Two attributes that say nothing of one another."""

    independent: tuple[Name, Name]


def _target_tag(target: Any) -> str:
    if isinstance(target, Section):
        return type(target).__name__
    return "IndependentTarget" if isinstance(target, dict) and "independent" in target else "EqualTarget"


class AugmentParams(DeliveryParams):
    """A job of the flow `augment`: which balance a data set shall have, and what counts as a good edit."""

    dataset: Name
    target: Annotated[
        Annotated[EqualTarget, Tag("EqualTarget")] | Annotated[IndependentTarget, Tag("IndependentTarget")],
        Discriminator(_target_tag),
    ]
    split: Literal["train", "val", "test"]
    strengths: Strengths
    min_probability: float = Field(gt=0, lt=1)
    out: str = Field(min_length=1)


class Params(Section):
    """The whole of params.yaml.

    `bulk_edit` and `augment` are of flows of their own, and may be left out.
    """

    datasets: list[Name] = Field(min_length=1)
    run_seed: int = Field(ge=0)
    bulk_edit: dict[Name, BulkEditParams] = Field(default_factory=dict[Name, BulkEditParams])
    augment: dict[Name, AugmentParams] = Field(default_factory=dict[Name, AugmentParams])
    data: dict[Name, DatasetParams] = Field(min_length=1)

    @model_validator(mode="after")
    def _check_datasets(self) -> Params:
        for name in self.datasets:
            if name not in self.data:
                raise ValueError(f"datasets|{name!r} has no entry under data{nearest(name, list(self.data))}")
        for section, jobs in (("bulk_edit", self.bulk_edit), ("augment", self.augment)):
            for job, value in jobs.items():
                if value.dataset not in self.data:
                    hint = nearest(value.dataset, list(self.data))
                    raise ValueError(f"{section}.{job}.dataset|{value.dataset!r} has no entry under data{hint}")
        for job, value in self.augment.items():
            if isinstance(value.target, IndependentTarget) and len(set(value.target.independent)) == 1:
                raise ValueError(f"augment.{job}.target.independent|names one attribute twice, must be two")
        return self

    @cached_property
    def known(self) -> list[str]:
        """Names of all data sets that are described."""
        return list(self.data)

    def dataset(self, name: str) -> DatasetParams:
        """One data set's section.

        Raises:
            ParamsError: There is no such data set.
        """
        if name not in self.data:
            raise ParamsError(
                f"params.yaml: data has no entry {name!r}{nearest(name, self.known)}; add one or choose another"
            )
        return self.data[name]

    def bulk_edit_job(self, name: str) -> BulkEditParams:
        """A job of the flow `bulk_edit`.

        Raises:
            ParamsError: There is no such job.
        """
        return _job("bulk_edit", self.bulk_edit, name)

    def augment_job(self, name: str) -> AugmentParams:
        """A job of the flow `augment`.

        Raises:
            ParamsError: There is no such job.
        """
        return _job("augment", self.augment, name)


_Job = TypeVar("_Job", BulkEditParams, AugmentParams)


def _job(section: str, jobs: Mapping[str, _Job], name: str) -> _Job:
    if name not in jobs:
        hint = nearest(name, list(jobs))
        raise ParamsError(f"params.yaml: {section} has no job {name!r}{hint}; add one or choose another")
    return jobs[name]
