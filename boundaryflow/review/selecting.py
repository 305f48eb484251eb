"""Which cases are shown, and in which order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from boundaryflow.review.cases import Cases

STATES = ("open", "accepted", "rejected")


@dataclass(frozen=True)
class Selection:
    """What a reviewer asked to see.

    Attributes:
        mode: Strength at which cases without a verdict are shown, see `Cases.shown`.
        edits: Only these edits; empty for all.
        states: Only cases in these of `STATES`; empty for all.
        ranges: Measure, or `strength`, to the smallest and the largest value; cases without a value are left out.
        find: Part of the item's id or of its file's name.
        sort: Measure, `strength`, `when` (of the verdict), or empty for the order of edits and items.
        descending: Largest first; cases without a value come last in any case.
    """

    mode: str | int = "best"
    edits: Sequence[str] = ()
    states: Sequence[str] = ()
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict[str, tuple[float, float]])
    find: str = ""
    sort: str = ""
    descending: bool = False


@dataclass(frozen=True)
class Judged:
    """The verdicts on the cases that exist.

    Attributes:
        state: Index in `STATES` for each case [N].
        at: Index of the strength of the verdict [N]; -1 where there is none.
        when: Time of the verdict in nanoseconds [N]; 0 where there is none.
        num_gone: Verdicts on edits or strengths that do not exist.
    """

    state: NDArray[np.intp]
    at: NDArray[np.intp]
    when: NDArray[np.int64]
    num_gone: int


def judged(cases: Cases, verdicts: pd.DataFrame) -> Judged:
    """Match verdicts with cases."""
    rows = cases.index.get_indexer(pd.MultiIndex.from_frame(verdicts[["item_id", "edit"]]))
    places = {strength: k for k, strength in enumerate(cases.strengths)}
    at = verdicts["strength"].map(places).fillna(-1).to_numpy(int)
    known = (rows >= 0) & (at >= 0)
    state, where, when = (np.full(len(cases), value) for value in (0, -1, 0))
    state[rows[known]] = verdicts["verdict"].map(STATES.index)[known]
    where[rows[known]] = at[known]
    when[rows[known]] = verdicts["when"].astype("int64")[known]
    return Judged(state, where, when, int((~known).sum()))


def select(cases: Cases, verdicts: Judged, wanted: Selection) -> NDArray[np.int32]:
    """Numbers of the cases to show, in order.

    Raises:
        KeyError: An edit, a state or a measure does not exist.
        IndexError: A strength does not exist.
    """
    shown = cases.shown(wanted.mode, verdicts.at)
    keep = np.ones(len(cases), bool)
    if wanted.edits:
        keep &= np.isin(cases.edit_of, [_place(cases.edits, edit) for edit in wanted.edits])
    if wanted.states:
        keep &= np.isin(verdicts.state, [_place(STATES, state) for state in wanted.states])
    for name, (low, high) in wanted.ranges.items():
        values = cases.at(name, shown)
        keep &= (values >= low) & (values <= high)  # false for NaN
    if wanted.find:
        matching = {item for item, name in cases.sources.items() if wanted.find in item or wanted.find in name}
        keep &= np.fromiter((item in matching for item in cases.items), bool, len(cases))
    found = np.flatnonzero(keep)
    if wanted.sort:
        values = verdicts.when if wanted.sort == "when" else cases.at(wanted.sort, shown)
        keys = values[found].astype(float)
        keys[keys == 0] = np.nan if wanted.sort == "when" else 0
        found = found[np.argsort(-keys if wanted.descending else keys, kind="stable")]  # NaN last
    return found.astype(np.int32)


def _place(names: Sequence[str], name: str) -> int:
    if name not in names:
        raise KeyError(name)
    return names.index(name)
