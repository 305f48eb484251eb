"""Attribute labels: by CLIP from words, from annotations, or by a probe trained on annotations of some images.

CLIP is imported from its own modules: annotations are read without torch.
"""

from boundaryflow.labelling.calibration import CalibrationReport, Platt, calibrate
from boundaryflow.labelling.celeba import image_names, read_celeba, read_hq_mapping
from boundaryflow.labelling.columns import AttributeColumn, nearest, read_values
from boundaryflow.labelling.combine import Combination, combined
from boundaryflow.labelling.join import in_folder, join_labels, join_values, match_files
from boundaryflow.labelling.probe import ProbeReport, probe_labels
from boundaryflow.labelling.tables import Wanted, find_tables, pivot_long, read_annotations
from boundaryflow.text import word

__all__ = [
    "AttributeColumn",
    "CalibrationReport",
    "Combination",
    "Platt",
    "ProbeReport",
    "Wanted",
    "calibrate",
    "combined",
    "find_tables",
    "image_names",
    "in_folder",
    "join_labels",
    "join_values",
    "match_files",
    "nearest",
    "pivot_long",
    "probe_labels",
    "read_annotations",
    "read_celeba",
    "read_hq_mapping",
    "read_values",
    "word",
]
