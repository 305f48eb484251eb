"""What can go wrong that the user can mend. Each message is one line: what, where, value, rule, way out."""

from __future__ import annotations


class PipelineError(Exception):
    """Root of all errors that end a run with exit status 2 and one line."""


class TransientError(PipelineError):
    """Something outside failed that may work in a while: a store, a network, a worker."""


class ParamsError(PipelineError):
    """A value in params.yaml or in the environment is wrong or missing."""


class ManifestError(PipelineError):
    """Images, tables or shards are missing, unreadable or do not belong together."""


class CheckpointError(PipelineError):
    """Model weights cannot be used."""


class BoundaryError(PipelineError):
    """A boundary cannot be fitted, read, or used with this model and timestep.

    Args:
        message: What is wrong.
        lacks: What the boundary lacks where values of params.yaml decide over that, see `boundaryflow.config.advice`.
    """

    def __init__(self, message: str, lacks: str = "") -> None:
        super().__init__(message)
        self.lacks = lacks


class LabelError(PipelineError):
    """Labels are missing, unreadable or do not belong to the images."""


class TooFewLabelsError(LabelError):
    """An attribute has too few labels to learn it from; others may have enough."""


class ShortfallError(PipelineError):
    """A run fell short of what its job expects, and was not delivered."""
