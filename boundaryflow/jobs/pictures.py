"""The commands edit and sweep: a few images, with the boundaries of an earlier run."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain, count
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from boundaryflow.config import MAX_STRENGTH, DatasetParams, DeliveryParams, alike, load_params
from boundaryflow.config.places import check_output
from boundaryflow.errors import ManifestError
from boundaryflow.files import write_bytes
from boundaryflow.jobs.finishing import HEAD_BYTES, Finisher, Finishing, finishing_of
from boundaryflow.jobs.fitted import fitted_boundaries, model_and_settings, open_boundary
from boundaryflow.pixels import to_model_range, to_u8
from boundaryflow.runtime.editor import open_editor
from boundaryflow.sources.encoding import is_synthetic
from boundaryflow.sources.images import read_image
from boundaryflow.sources.originals import MAX_PIXELS
from boundaryflow.text import visible

_MAX_STEM_BYTES = 160
_AS_IS = DeliveryParams()


def edit_photos(
    paths: Sequence[Path],
    dataset: str,
    attribute: str,
    strengths: Sequence[float],
    out: Path,
    delivery: DeliveryParams = _AS_IS,
) -> list[Path]:
    """Edit image files.

    Args:
        paths: Image files.
        dataset: Data set whose model and boundaries to use.
        attribute: Attribute to change; positive strengths add it.
        strengths: As `edit.strengths` in params.yaml: 0 leaves the image unchanged, 1 makes it a typical member of the
            other class; with `edit.method: single_step` multiples of `edit.eps_scale` times the distance between class
            means.
        out: Folder for the pictures.
        delivery: What is written.

    Returns:
        The files written, one per image and strength.

    Raises:
        PipelineError: There is no such data set, boundary or image.
    """
    check_strengths("edit", strengths)
    finishing = finishing_of("edit", delivery, _dataset(dataset))
    targets = [
        [out / f"{name}_{attribute}_{strength:+g}{_extension(finishing, path)}" for strength in strengths]
        for name, path in zip(_names(paths), paths, strict=True)
    ]
    check_targets("edit", strengths, out, [target for of_image in targets for target in of_image])
    written: list[Path] = []
    for path, of_image, photo in zip(paths, targets, _edited(paths, dataset, attribute, strengths), strict=True):
        opened = _opened(finishing, path, photo.before)
        for strength, target, picture in zip(strengths, of_image, photo.edits, strict=True):
            edit = f"{attribute} {strength:+g}"
            facts = {"synthetic": "true", "source": visible(path.name), "edit": edit, "dataset": dataset}
            write_bytes(target, opened.file(opened.pixels(picture), facts))
            written.append(target)
    return written


def sweep_photo(
    path: Path,
    dataset: str,
    attribute: str,
    start: float,
    stop: float,
    num: int,
    out: Path,
    delivery: DeliveryParams = _AS_IS,
) -> Path:
    """Write one strip: an image at `num` strengths from `start` to `stop`.

    Raises:
        PipelineError: There is no such data set, boundary or image, or the strip would be too large.
    """
    strengths = torch.linspace(start, stop, num).tolist()
    finishing = finishing_of("sweep", delivery, _dataset(dataset))
    target = out / f"{_names([path])[0]}_{attribute}_{start:+g}_to_{stop:+g}{_extension(finishing, path)}"
    check_targets("sweep", [start, stop], out, [target])
    (photo,) = _edited([path], dataset, attribute, strengths)
    opened = _opened(finishing, path, photo.before)
    if opened.original and num * opened.original.pixels[..., 0].size > MAX_PIXELS:
        raise ManifestError(
            f"sweep {path}: {num} times its size are more than {MAX_PIXELS:,} pixels; take fewer strengths, or deliver "
            "the model's pictures (--deliver model)"
        )
    strip = np.concatenate([opened.pixels(picture) for picture in photo.edits], 1)
    facts = {"synthetic": "true", "source": visible(path.name), "edit": f"{attribute} {strengths}"}
    try:
        write_bytes(target, opened.file(strip, facts))
    except ManifestError as error:
        raise ManifestError(f"sweep {path}: {error}") from None
    return target


@dataclass(frozen=True)
class _Photo:
    """A photo and its edits.

    Attributes:
        before: [C,S,S] uint8, what the model saw of it.
        edits: [K,C,S,S] uint8.
    """

    before: Tensor
    edits: Tensor


def _extension(finishing: Finishing, path: Path) -> str:
    if not finishing.needs_file:
        return finishing.extension(None)
    _check_file(path)
    with path.open("rb") as file:
        return finishing.extension(file.read(HEAD_BYTES))


def _opened(finishing: Finishing, path: Path, before: Tensor) -> Finisher:
    try:
        return finishing.open(path.read_bytes() if finishing.needs_file else None, before)
    except ManifestError as error:
        raise ManifestError(f"image {path}: {error}") from None


def _check_file(path: Path) -> None:
    if not path.is_file():
        raise ManifestError(f"edit {path}: no such image file; check the path")


def _edited(paths: Sequence[Path], dataset: str, attribute: str, strengths: Sequence[float]) -> list[_Photo]:
    """The photos with their edits."""
    params = _dataset(dataset)
    boundary, others = open_boundary(dataset, attribute), fitted_boundaries(dataset)
    pixels: list[Tensor] = []
    ingest = params.ingest
    for path in paths:
        _check_file(path)
        pixels.append(torch.from_numpy(read_image(path, **ingest.geometry)))
    model, settings = model_and_settings(dataset, params)
    editor = open_editor(model, replace(settings, strengths=list(strengths)), load_params().run_seed)
    ids = [hashlib.sha256(path.read_bytes()).hexdigest()[:16] for path in paths]
    results: list[_Photo] = []
    for start in range(0, len(paths), 16):
        batch = torch.stack(pixels[start : start + 16])
        source = editor.open(to_model_range(batch, model.value_range), ids[start : start + 16])
        edited = editor.edit(source, range(len(batch)), [boundary], torch.ones(len(batch), 1), others)
        results += map(_Photo, batch, to_u8(edited, model.value_range))
    return results


def _names(paths: Sequence[Path]) -> list[str]:
    """A name for each file's results: its stem, shortened and made printable, with a number if it is not unique."""
    names: dict[str, None] = {}
    for path in paths:
        stem = visible(path.stem).encode()[:_MAX_STEM_BYTES].decode(errors="ignore").replace("\\", "_")
        numbered = (f"{stem}-{number}" for number in count(2))
        names[next(name for name in chain([stem], numbered) if name not in names)] = None
    return list(names)


def check_strengths(command: str, strengths: Sequence[float]) -> None:
    """Refuse strengths whose pictures would have the same file name.

    Raises:
        ManifestError: Two strengths are equal to six digits.
    """
    if twice := alike(strengths):
        raise ManifestError(f"{command}: strength {twice} is given twice (file names have six digits of it); keep one")


def check_targets(command: str, strengths: Sequence[float], out: Path, targets: Sequence[Path]) -> None:
    """Refuse invalid strengths and output files before any work is done.

    Raises:
        ManifestError: A strength is too large or not finite, the folder cannot be used, or a result would replace a
            file that this project did not write.
    """
    for strength in strengths:
        if not abs(strength) <= MAX_STRENGTH:  # also refuses NaN
            raise ManifestError(
                f"{command}: strength {strength:g} must be from {-MAX_STRENGTH:g} to {MAX_STRENGTH:g}; 1 is a typical "
                "member of the other side"
            )
    check_output(out, f"{command} --out")
    for target in targets:
        if target.exists() and not (target.is_file() and is_synthetic(target.read_bytes())):
            raise ManifestError(f"{command} {target}: exists, and is not a picture of ours; choose another --out")


def _dataset(name: str) -> DatasetParams:
    return load_params().dataset(name)


def tile(pictures: Tensor, num_columns: int) -> Tensor:
    """One [C,H,W] picture of [N,C,H,W] ones, row by row; missing places stay black."""
    columns = min(num_columns, len(pictures))
    missing = -len(pictures) % columns
    padded = torch.cat([pictures, pictures.new_zeros((missing, *pictures.shape[1:]))])
    rows = [torch.cat(list(padded[start : start + columns]), dim=2) for start in range(0, len(padded), columns)]
    return torch.cat(rows, dim=1)
