"""Edits of a data set's images, made and checked until each group has the number that the target sets.

They are stored in data/augment/NAME, so that a later run, with another target or after a kill, reuses them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from boundaryflow.augmentation.balance import Group
from boundaryflow.jobs.batch import EditPlan, open_batch_editor, reached, weakest
from boundaryflow.runtime.fingerprints import code_hash
from boundaryflow.runtime.process import own_folder
from boundaryflow.runtime.sharding import run_sharded, stored_items
from boundaryflow.seeds import item_seed
from boundaryflow.store.catalog.ingest import INGEST
from boundaryflow.store.fingerprint import fingerprint
from boundaryflow.store.shards import ShardTask, load_items

_SIDES = {1: "on", -1: "off"}
_MAX_ROUNDS = 8


@dataclass(frozen=True)
class Route:
    """How images join a group: those of another group, with one attribute changed.

    Attributes:
        attribute: What is changed.
        sign: +1 to add it, -1 to remove it.
        sources: Items of the other group, in the pseudo-random order in which they are edited.
    """

    attribute: str
    sign: int
    sources: tuple[str, ...]

    @property
    def name(self) -> str:
        """Such as `hat-on`."""
        return f"{self.attribute}-{_SIDES[self.sign]}"


def run_shard(job: ShardTask, *, ingested: str, attribute: str, sign: int, plan: EditPlan) -> dict[str, Tensor]:
    """Images of one shard changed in one attribute.

    Returns:
        `edited` [N,K,C,H,W]; `seen` [N,K,A], the labeller's probabilities.
    """
    editor = open_batch_editor(plan)
    pixels = load_items(Path(ingested), job.missing, ["pixels"])["pixels"]
    signs = {attribute: torch.full((len(pixels), 1), float(sign))}
    done = editor.edit(pixels, job.missing, signs)[attribute]
    return {"edited": done.pixels, "seen": done.seen}


@dataclass(frozen=True)
class Good:
    """An accepted edit.

    Attributes:
        item: Edited image.
        route: How it was changed.
        strength: Strength of the edit.
        position: Index of the strength in the job's strengths.
        probability: Labeller's probability of the changed attribute.
    """

    item: str
    route: Route
    strength: float
    position: int
    probability: float


class Augmenter:
    """Makes edits of a data set's images until each group has the number that the target sets.

    Args:
        name: Name of the job.
        plan: How images are edited.
        attributes: Attributes of the target.
        strengths: Strengths of the plan.
        min_probability: Least probability of the changed attribute, by the labeller.
        shard_size: Items in a shard, on average at most.
    """

    def __init__(
        self,
        name: str,
        plan: EditPlan,
        attributes: Sequence[str],
        strengths: Sequence[float],
        min_probability: float,
        shard_size: int,
    ) -> None:
        self._plan, self._attributes = plan, list(attributes)
        self._strengths, self._min_probability = list(strengths), min_probability
        self._ingested = INGEST.folder(plan.dataset)
        self._work, self._shard_size = own_folder("augment", name), shard_size
        self._seen = list(plan.labeller.by)
        self._made: dict[str, dict[str, Good | None]] = {}

    def fill(self, group: Group, num: int, routes: Sequence[Route]) -> list[Good]:
        """Accepted edits that belong to a group, at most `num`; fewer when no sources are left.

        The first round takes equally many images from each route. Each further round replaces rejected edits, with
        shares in proportion to the success rates of the routes so far.
        """
        taken = dict.fromkeys((route.name for route in routes), 0)
        good: dict[str, list[Good]] = {route.name: [] for route in routes}
        for _ in range(_MAX_ROUNDS):
            lacking = num - sum(len(of_route) for of_route in good.values())
            left = [route for route in routes if taken[route.name] < len(route.sources)]
            if lacking <= 0 or not left:
                break
            rates = {r.name: (len(good[r.name]) + 1) / (taken[r.name] + 1) for r in left}
            for route in left:
                share = lacking * rates[route.name] / sum(rates.values())
                take = min(len(route.sources), taken[route.name] + max(1, round(share / min(1.0, rates[route.name]))))
                verdicts = self._edit(route, route.sources[:take], group)
                good[route.name] = [edit for edit in verdicts if edit is not None]
                taken[route.name] = take
        ordered = sorted((edit for edits in good.values() for edit in edits), key=lambda e: (e.item, e.route.name))
        chosen = sorted(ordered, key=lambda e: item_seed(0, f"{e.item} {e.route.name}", "augment"))[:num]
        return sorted(chosen, key=lambda e: (e.item, e.route.name))

    def _edit(self, route: Route, items: Sequence[str], group: Group) -> list[Good | None]:
        """One entry per item: its weakest accepted edit, or None."""
        known = self._made.setdefault(route.name, {})
        folder = self._work / route.name
        cache_key = fingerprint(
            stage="augment", code=code_hash("boundaryflow.jobs.augmenter"), plan=self._plan.cache_key, route=route.name
        )
        wanted = sorted({*items, *stored_items(folder, cache_key)})  # edits of earlier runs stay in the shards
        context = {
            "ingested": str(self._ingested),
            "attribute": route.attribute,
            "sign": route.sign,
            "plan": self._plan,
        }
        run_sharded(f"augment {route.name}", folder, wanted, cache_key, self._shard_size, run_shard, context)
        new = [item for item in items if item not in known]
        seen = load_items(folder, new, ["seen"])["seen"] if new else torch.empty(0)
        for row, item in enumerate(new):
            known[item] = self._judge(item, route, seen[row], group)
        return [known[item] for item in items]

    def _judge(self, item: str, route: Route, seen: Tensor, group: Group) -> Good | None:
        """The weakest edit, with probabilities `seen` [K,A], that reaches the target and keeps its other attribute."""
        column = self._seen.index(route.attribute)
        sure = reached(seen[None, :, [column]], torch.tensor([[float(route.sign)]]))[0]
        stays = torch.ones(len(seen), dtype=torch.bool)
        for attribute, has in zip(self._attributes, group, strict=True):
            if attribute != route.attribute:
                stays &= (seen[:, self._seen.index(attribute)] > 0.5) == has
        k = weakest(self._strengths, (stays & (sure >= self._min_probability)).tolist())
        return None if k is None else Good(item, route, self._strengths[k], k, float(sure[k]))

    def pictures(self, edits: Sequence[Good]) -> list[Tensor]:
        """[C,H,W] uint8 pixels of accepted edits."""
        by_route: dict[str, list[int]] = {}
        for position, edit in enumerate(edits):
            by_route.setdefault(edit.route.name, []).append(position)
        found = [torch.empty(0)] * len(edits)
        for route, positions in by_route.items():
            items = [edits[position].item for position in positions]
            edited = load_items(self._work / route, items, ["edited"])["edited"]
            for row, position in enumerate(positions):
                found[position] = edited[row, edits[position].position]
        return found

    @property
    def outcomes(self) -> dict[str, tuple[int, int]]:
        """Route to the numbers of edits made and of edits accepted."""
        return {
            route: (len(of_route), sum(edit is not None for edit in of_route.values()))
            for route, of_route in sorted(self._made.items())
        }


def groups_of(labels: pd.DataFrame, attributes: Sequence[str]) -> dict[str, Group]:
    """Item to its group, for items all of whose attributes are known."""
    known = labels[list(attributes)].dropna() > 0.5
    return {str(item): tuple(map(bool, row)) for item, row in zip(known.index, known.to_numpy(), strict=True)}


def routes_into(group: Group, attributes: Sequence[str], groups: Mapping[str, Group]) -> list[Route]:
    """The routes into a group, one for each attribute by which a source group differs from it."""
    found: list[Route] = []
    for place, attribute in enumerate(attributes):
        start = tuple(not has if index == place else has for index, has in enumerate(group))
        sources = [item for item, of_item in groups.items() if of_item == start]
        sources.sort(key=lambda item: item_seed(0, item, f"augment {attribute}"))
        found.append(Route(attribute, 1 if group[place] else -1, tuple(sources)))
    return found
