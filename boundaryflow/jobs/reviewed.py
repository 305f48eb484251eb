"""The augmenter that heeds verdicts. A verdict decides which edits are used, not what they are: no edit goes stale."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from boundaryflow.augmentation.balance import Group
from boundaryflow.jobs.augmenter import Augmenter, Good, Route
from boundaryflow.jobs.batch import EditPlan, reached
from boundaryflow.review.verdicts import Decisions


class ReviewedAugmenter(Augmenter):
    """An augmenter that takes the edits that were accepted in review, and none that was rejected.

    Args:
        name: See `Augmenter`, like the next five.
        plan: How images are edited.
        attributes: Attributes of the target.
        strengths: Strengths of the plan.
        min_probability: Least probability of the changed attribute, where nobody decided.
        shard_size: Items in a shard, on average at most.
        decisions: Verdicts on the same edits of the data set.
    """

    def __init__(
        self,
        name: str,
        plan: EditPlan,
        attributes: Sequence[str],
        strengths: Sequence[float],
        min_probability: float,
        shard_size: int,
        decisions: Decisions,
    ) -> None:
        super().__init__(name, plan, attributes, strengths, min_probability, shard_size)
        self._decisions = decisions

    def _judge(self, item: str, route: Route, seen: Tensor, group: Group) -> Good | None:
        is_rejected, accepted = self._decisions.on(item, [route.attribute], {route.attribute: route.sign})
        if is_rejected:
            return None
        if not accepted or accepted not in self._strengths:
            return super()._judge(item, route, seen, group)
        k, column = self._strengths.index(accepted), self._seen.index(route.attribute)
        sure = reached(seen[None, :, [column]], torch.tensor([[float(route.sign)]]))[0]
        return Good(item, route, accepted, k, float(sure[k]))
