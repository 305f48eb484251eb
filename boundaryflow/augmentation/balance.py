"""How many images to add to which group, so that a data set is balanced with the fewest edits."""

from __future__ import annotations

import math
from collections.abc import Mapping

Group = tuple[bool, ...]
"""Which of the attributes an image has."""


def to_equal_counts(counts: Mapping[Group, int]) -> dict[Group, int]:
    """Images to add so that as many have an attribute as have not.

    Args:
        counts: Images in the groups (True,) and (False,).

    Returns:
        Number to add to each group; one of the two is 0.
    """
    with_it, without = counts.get((True,), 0), counts.get((False,), 0)
    return {(True,): max(0, without - with_it), (False,): max(0, with_it - without)}


def to_independence(counts: Mapping[Group, int]) -> dict[Group, int]:
    """The fewest images to add so that two attributes say nothing of one another.

    They are independent when the products over the two diagonals of the 2 x 2 table are equal. The images of the
    larger product stay as they are; to the two groups of the smaller one as few are added as reach it, and as the mean
    of two numbers is never below the root of their product, both are brought to the root of the larger product; where
    one of them is above it already, only the other one is. Whole images hardly ever meet it exactly: of the numbers
    around it those are taken that leave the least correlation.

    Args:
        counts: Images in each of the four groups; at most one of the two products may be 0.

    Returns:
        Number to add to each group.

    Raises:
        ValueError: Neither diagonal has images in both of its groups: there is nothing to be brought to.
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
