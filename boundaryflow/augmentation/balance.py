"""How many images to add to which group, so that a data set is balanced with the fewest edits."""

from __future__ import annotations

import math
from collections.abc import Mapping

Group = tuple[bool, ...]
"""Which of the attributes an image has."""


def to_equal_counts(counts: Mapping[Group, int]) -> dict[Group, int]:
    """Images to add so that as many images have an attribute as do not.

    Args:
        counts: Images in the groups (True,) and (False,).

    Returns:
        Number to add to each group; one of the two is 0.
    """
    with_it, without = counts.get((True,), 0), counts.get((False,), 0)
    return {(True,): max(0, without - with_it), (False,): max(0, with_it - without)}


def to_independence(counts: Mapping[Group, int]) -> dict[Group, int]:
    """The fewest images to add so that two attributes are independent.

    They are independent when the products over the two diagonals of the 2 x 2 table are equal. Nothing is added to the
    diagonal with the larger product, P. The two groups of the other diagonal grow until their product is P. Of all
    pairs of numbers with that product, two equal ones have the smallest sum (AM-GM), so both groups grow to sqrt(P);
    a group that is larger already stays, and only the other one grows. As counts are integers, the pair around these
    values with the smallest correlation is taken.

    Args:
        counts: Images in each of the four groups; at most one of the two products may be 0.

    Returns:
        Number to add to each group.

    Raises:
        ValueError: Both products are 0: each diagonal has an empty group.
    """
    like, unlike = ((True, True), (False, False)), ((True, False), (False, True))
    rare, common = sorted((unlike, like), key=lambda pair: counts.get(pair[0], 0) * counts.get(pair[1], 0))
    wanted = counts.get(common[0], 0) * counts.get(common[1], 0)
    if wanted == 0:
        raise ValueError("no image has both attributes beside one that has neither, nor one of each beside the other")
    x, y = (counts.get(group, 0) for group in rare)
    root = math.sqrt(wanted)
    goal_x = max(float(x), root if y <= root else wanted / y)
    goal_y = max(float(y), wanted / goal_x)
    whole = [
        {**dict.fromkeys((*like, *unlike), 0), rare[0]: to_x - x, rare[1]: to_y - y}
        for to_x in (math.floor(goal_x), math.ceil(goal_x))
        for to_y in (math.floor(goal_y), math.ceil(goal_y))
    ]
    return min(whole, key=lambda added: (round(abs(phi(_sum(counts, added))), 9), sum(added.values())))


def _sum(counts: Mapping[Group, int], added: Mapping[Group, int]) -> dict[Group, int]:
    return {group: counts.get(group, 0) + num for group, num in added.items()}


def phi(counts: Mapping[Group, int]) -> float:
    """Correlation of two attributes, in [-1, 1]; 0 where one of them is the same in all images.

    Args:
        counts: Images in each of the four groups.
    """
    a, b, c, d = (counts.get(group, 0) for group in ((True, True), (True, False), (False, True), (False, False)))
    scale = math.sqrt(float(a + b) * (c + d) * (a + c) * (b + d))
    return (a * d - b * c) / scale if scale else 0.0
