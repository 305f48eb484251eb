"""`boundaryflow run --estimate`: the cost of a run, as a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from humanize import naturalsize

from flows.progress import duration
from flows.summary import aligned

if TYPE_CHECKING:
    from boundaryflow.config import Params
    from boundaryflow.estimate import Forecast

_HEADER = ("stage", "images", "network calls", "time", "disk")
_FOOT = """network calls are counted by images; outputs lie in DVC's cache once more, unless the disk has reflinks
without earlier results, each stage alone on this machine; measured now, accurate to about 25 %"""


def tell(params: Params, datasets: Sequence[str], num_images: int | None) -> str:
    """Estimate a run of each data set; returns the tables.

    Raises:
        PipelineError: A data set is unknown, or has no images to count, or its model cannot be opened.
    """
    from boundaryflow.config import described
    from boundaryflow.estimate import forecast

    found = [forecast(name, described(params, name), num_images=num_images) for name in datasets]
    return "\n\n".join([*map(as_text, found), _FOOT])


def as_text(found: Forecast) -> str:
    """One data set's table."""
    rows = [
        (stage.stage, f"{stage.num_images:,}", f"{stage.image_calls:,}" if stage.image_calls else "",
         duration(stage.seconds), naturalsize(stage.num_bytes, binary=True))
        for stage in found.stages
    ]  # fmt: skip
    calls, seconds, size = (
        sum(getattr(stage, what) for stage in found.stages) for what in ("image_calls", "seconds", "num_bytes")
    )
    rows.append(("all", "", f"{calls:,}", duration(seconds), naturalsize(size, binary=True)))
    title = f"{found.dataset}: {found.num_images:,} images on {found.where}"
    return "\n".join([title, *aligned(_HEADER, rows)])
