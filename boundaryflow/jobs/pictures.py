"""The commands edit and sweep: a few images, with the boundaries of an earlier run or of a bundle."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from boundaryflow.config import DeliveryParams, alike, load_params
from boundaryflow.config.places import check_output
from boundaryflow.errors import ManifestError
from boundaryflow.files import write_bytes
from boundaryflow.jobs.edit_images import check_amounts, check_range, edit_images, label_of
from boundaryflow.jobs.finishing import HEAD_BYTES, Finisher, Finishing, finishing_with
from boundaryflow.jobs.fitted import Fitted, fitted_for
from boundaryflow.jobs.photos import Photo, Sheet, check_file, names_of, pictures_of, read_mask
from boundaryflow.pixels import to_model_range, to_u8
from boundaryflow.runtime.process import Progress
from boundaryflow.sources.encoding import is_synthetic
from boundaryflow.sources.originals import MAX_PIXELS
from boundaryflow.text import visible

_AS_IS = DeliveryParams()


def edit_photos(
    paths: Sequence[Path],
    source: str | Fitted,
    attributes: str | Mapping[str, float],
    strengths: Sequence[float],
    out: Path,
    delivery: DeliveryParams = _AS_IS,
    *,
    mask: Path | None = None,
    grid: Path | None = None,
) -> list[Path]:
    """Edit image files.

    Args:
        paths: Image files, and folders of them.
        source: Data set whose model and boundaries to use, or an opened bundle.
        attributes: Attribute to change, or several with their amounts, see `edit_images`.
        strengths: As `edit.strengths` in params.yaml: 0 leaves the image unchanged, 1 makes it a typical member of the
            other class; with `edit.method: single_step` multiples of `edit.eps_scale` times the distance between class
            means.
        out: Folder for the pictures.
        delivery: What is written.
        mask: Image that is white where the pictures may change.
        grid: File for a contact sheet at the model's size: a row for each picture, before and at every strength.

    Returns:
        The files written, one per image and strength, then the contact sheet.

    Raises:
        PipelineError: There is no such data set, boundary or image.
    """
    amounts = {attributes: 1.0} if isinstance(attributes, str) else attributes
    paths, label = pictures_of(paths, "edit"), label_of(amounts)
    check_amounts("edit", amounts, strengths)
    check_strengths("edit", strengths)
    fitted = _fitted(source)
    finishing = finishing_with("edit", delivery, fitted.geometry, is_guided=fitted.is_guided)
    targets = [
        [out / f"{name}_{label}_{strength:+g}{_extension('edit', finishing, path)}" for strength in strengths]
        for name, path in zip(names_of(paths), paths, strict=True)
    ]
    check_targets("edit", strengths, out, [target for of_image in targets for target in of_image])
    sheet = Sheet("edit", grid, len(paths), 1 + len(strengths), fitted.geometry["size"])
    written: list[Path] = []
    pictures = _edited("edit", paths, fitted, amounts, strengths, mask)
    for path, of_image, (before, shown) in zip(paths, targets, pictures, strict=True):
        opened = _opened(finishing, path, before)
        for strength, target, picture in zip(strengths, of_image, shown, strict=True):
            edit = f"{label} {strength:+g}"
            facts = {"synthetic": "true", "source": visible(path.name), "edit": edit, "dataset": fitted.name}
            write_bytes(target, opened.file(opened.pixels(picture), facts))
            written.append(target)
        sheet.add(torch.cat([before[None], shown]))
    return written + sheet.write({"edit": label, "dataset": fitted.name})


def sweep_photos(
    paths: Sequence[Path],
    source: str | Fitted,
    attributes: str | Mapping[str, float],
    start: float,
    stop: float,
    num: int,
    out: Path,
    delivery: DeliveryParams = _AS_IS,
    *,
    mask: Path | None = None,
    grid: Path | None = None,
) -> list[Path]:
    """Write a strip for each image: it at `num` strengths from `start` to `stop`. For the others see `edit_photos`.

    Returns:
        The strips, then the contact sheet with all of them.

    Raises:
        PipelineError: There is no such data set, boundary or image, or a strip would be too large.
    """
    amounts = {attributes: 1.0} if isinstance(attributes, str) else attributes
    paths, label = pictures_of(paths, "sweep"), label_of(amounts)
    check_amounts("sweep", amounts, [start, stop])
    strengths = torch.linspace(start, stop, num).tolist()
    fitted = _fitted(source)
    finishing = finishing_with("sweep", delivery, fitted.geometry, is_guided=fitted.is_guided)
    targets = [
        out / f"{name}_{label}_{start:+g}_to_{stop:+g}{_extension('sweep', finishing, path)}"
        for name, path in zip(names_of(paths), paths, strict=True)
    ]
    check_targets("sweep", [start, stop], out, targets)
    sheet = Sheet("sweep", grid, len(paths), num, fitted.geometry["size"])
    pictures = _edited("sweep", paths, fitted, amounts, strengths, mask)
    for path, target, (before, shown) in zip(paths, targets, pictures, strict=True):
        facts = {"synthetic": "true", "source": visible(path.name), "edit": f"{label} {strengths}"}
        write_bytes(target, _strip(path, _opened(finishing, path, before), shown, facts))
        sheet.add(shown)
    return targets + sheet.write({"edit": f"{label} {strengths}", "dataset": fitted.name})


def _strip(path: Path, opened: Finisher, shown: Tensor, facts: Mapping[str, str]) -> bytes:
    """The file of the edits [K,C,S,S] of a picture, side by side."""
    if opened.original and len(shown) * opened.original.pixels[..., 0].size > MAX_PIXELS:
        raise ManifestError(
            f"sweep {path}: {len(shown)} times its size are more than {MAX_PIXELS:,} pixels; take fewer strengths, or "
            "deliver the model's pictures (--deliver model)"
        )
    try:
        return opened.file(np.concatenate([opened.pixels(picture) for picture in shown], 1), facts)
    except ManifestError as error:
        raise ManifestError(f"sweep {path}: {error}") from None


def _extension(command: str, finishing: Finishing, path: Path) -> str:
    if not finishing.needs_file:
        return finishing.extension(None)
    check_file(path, command)
    with path.open("rb") as file:
        return finishing.extension(file.read(HEAD_BYTES))


def _opened(finishing: Finishing, path: Path, before: Tensor) -> Finisher:
    try:
        return finishing.open(path.read_bytes() if finishing.needs_file else None, before)
    except ManifestError as error:
        raise ManifestError(f"image {path}: {error}") from None


def _edited(
    command: str,
    paths: Sequence[Path],
    fitted: Fitted,
    amounts: Mapping[str, float],
    strengths: Sequence[float],
    mask: Path | None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Per image its pixels [C,H,W], brought to the model's size, and [K,C,H,W] of them edited; uint8."""
    for attribute in amounts:
        fitted.boundary(attribute)
    photos = [Photo.read(path, fitted.geometry, command) for path in paths]
    allowed = None if mask is None else read_mask(mask, fitted.geometry)
    value_range = fitted.opened[0].value_range
    with Progress(command, len(photos), "pictures") as progress:
        for start in range(0, len(photos), 16):
            some = photos[start : start + 16]
            batch = torch.stack([photo.pixels for photo in some])
            masks = None if allowed is None else allowed.expand(len(some), -1, -1)
            x_0, ids = to_model_range(batch, value_range), [photo.item_id for photo in some]
            edited = to_u8(edit_images(fitted, x_0, ids, amounts, strengths, masks), value_range)
            yield from zip(batch, edited, strict=True)
            progress.advance(len(some))


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
    check_range(command, strengths)
    check_output(out, f"{command} --out")
    for target in targets:
        if target.exists() and not (target.is_file() and is_synthetic(target.read_bytes())):
            raise ManifestError(f"{command} {target}: exists, and is not a picture of ours; choose another --out")


def _fitted(source: str | Fitted) -> Fitted:
    if isinstance(source, Fitted):
        return source
    params = load_params()
    return fitted_for(source, params.dataset(source), params.run_seed)
