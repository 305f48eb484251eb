"""Attribute labels: from words through CLIP, or from annotation files."""

from boundaryflow.labelling.annotations import AttributeColumn, join_labels, read_annotations
from boundaryflow.labelling.clip_labels import ClipLabeller, load_clip

__all__ = ["AttributeColumn", "ClipLabeller", "join_labels", "load_clip", "read_annotations"]
