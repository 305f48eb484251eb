"""What to change in params.yaml where a boundary lacks something; the rooms below do not know of it."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps

from boundaryflow.errors import BoundaryError, PipelineError

_ADVICE = {
    "gap": "label more images, or leave the attribute out of edit.edits",
    "separation": "label more images, lower boundary.min_auc, or set edit.method: single_step",
    "mixing step": "set edit.method: guided, or label it in params.yaml and run `boundaryflow run`",
    "eps": "add eps to boundary.spaces in params.yaml, or set edit.eps_scale to 0",
    "h": "add h to boundary.spaces in params.yaml, or set edit.h_scale to 0",
}
"""What a boundary lacks, see `BoundaryError`, to the way out."""


def with_advice(error: PipelineError) -> str:
    """The message of an error, with the way out."""
    advice = _ADVICE.get(getattr(error, "lacks", ""))
    return f"{error}; {advice}" if advice else str(error)


def advised(main: Callable[[], None]) -> Callable[[], None]:
    """The main function of a process, its errors with the way out."""

    @wraps(main)
    def wrapped() -> None:
        try:
            main()
        except BoundaryError as error:
            if not error.lacks:
                raise
            raise BoundaryError(with_advice(error)) from None

    return wrapped
