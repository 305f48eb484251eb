"""Every kind of label source and of image source is registered wherever it is needed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_args

import pytest

from boundaryflow.config.image_sources import ImageSource, ListedSource
from boundaryflow.config.label_sources import Annotations, LabelSource
from boundaryflow.sources.annotations import read_kind
from boundaryflow.sources.datasets import open_kind
from boundaryflow.sources.listing import list_kind

ROOT = Path(__file__).parents[2]
SOURCES: dict[str, tuple[type[Any], ...]] = {
    "label.source": get_args(get_args(LabelSource)[0]),
    "ingest.source": get_args(get_args(ImageSource)[0]),
}
ROWS = dict(re.findall(r"^\| `([\w.]+)` \| ([^|]*) \|", (ROOT / "docs/parameters.md").read_text(), re.MULTILINE))


@pytest.mark.parametrize("key", SOURCES)
def test_parameters_page_lists_every_kind(key: str) -> None:
    kinds = {get_args(source.model_fields["kind"].annotation)[0] for source in SOURCES[key]}
    assert set(ROWS[key].removeprefix("kind: ").split(", ")) == kinds


def test_every_kind_of_annotations_has_a_reader() -> None:
    assert {kind for kind in read_kind.registry if kind is not object} == set(get_args(Annotations))


def test_every_kind_of_images_is_listed_and_read() -> None:
    for function in (list_kind, open_kind):
        assert {kind for kind in function.registry if kind is not object} == set(get_args(ListedSource))
