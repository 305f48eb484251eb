"""Cartoon faces with known causes: the embedded data set and the counterfactual benchmark."""

from boundaryflow.avatars.factors import ATTRIBUTES, FACTORS, Avatar, Factor, sample_avatars
from boundaryflow.avatars.renderer import PARTS, render, segment

__all__ = ["ATTRIBUTES", "FACTORS", "PARTS", "Avatar", "Factor", "render", "sample_avatars", "segment"]
