"""`boundaryflow inspect PATH`: what a file or a folder is, and where it came from."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from boundaryflow.errors import PipelineError
from boundaryflow.files import RefusedFileError, check_regular
from boundaryflow.jobs.inspection import embedded, images, models, ours, tables
from boundaryflow.jobs.inspection.trial import try_model
from boundaryflow.models.checkpoints import why_no_hub_id
from boundaryflow.text import visible

__all__ = ["as_text", "inspect"]


def inspect(source: str, pictures: Sequence[Path] = ()) -> dict[str, Any]:
    """Identify a file or folder.

    Args:
        source: A file, a folder, or what `model:` in params.yaml may name.
        pictures: Files or folders of pictures to try a model on; then `source` is a model.

    Returns:
        `what`, then facts by name, in the order of printing.

    Raises:
        PipelineError: The path does not exist, or the file is damaged or of an unknown kind.
    """
    logging.getLogger("diffusers").setLevel(logging.ERROR)
    path = Path(source)
    if pictures:
        return try_model(source, pictures)
    if models.is_function(source):
        return models.about_model(source)
    if not path.exists():
        reason = why_no_hub_id(source)
        if reason:
            raise PipelineError(f"inspect {source}: there is {reason}")
        return models.about_model(source)
    if not path.is_dir():
        try:
            check_regular(path)  # a FIFO or a device has no end
        except RefusedFileError as error:
            raise PipelineError(f"inspect {path}: {error.reason}") from None
    for room in (ours, models, embedded, tables, images):
        facts = room.about(path)
        if facts is not None:
            return facts
    raise PipelineError(
        f"inspect {path}: of an unknown kind; known are a checkpoint, a table of labels, also in JSON, a picture, a "
        "folder or archive of pictures, an LMDB, or a file of this project"
    )


def as_text(facts: Mapping[str, Any], indent: str = "") -> str:
    """Facts as lines for a person."""
    lines: list[str] = []
    facts = {visible(str(name)): value for name, value in facts.items()}
    width = max((len(name) for name, value in facts.items() if not isinstance(value, Mapping)), default=0)
    for name, value in facts.items():
        if isinstance(value, Mapping):
            lines += [f"{indent}{name}", as_text(value, f"{indent}  ")] if value else []
        elif isinstance(value, list) and value and all(isinstance(v, str) and " " in v for v in value):
            lines += [f"{indent}{name}", *(f"{indent}  - {visible(line)}" for line in value)]
        else:
            lines.append(f"{indent}{name:{width}}  {_shown(value)}".rstrip())
    return "\n".join(lines)


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(_shown(v) for v in value) or "none"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4g}" if isinstance(value, float) else visible(str(value))
