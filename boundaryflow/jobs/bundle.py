"""`boundaryflow bundle`: a model's boundaries, its settings and a card in one folder, which opens elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path, PurePosixPath
from typing import Any

from boundaryflow.boundary import Boundaries, load_boundaries
from boundaryflow.boundary.hyperplane import most_telling
from boundaryflow.config import DatasetParams, load_params
from boundaryflow.config.bundle import (
    MANIFEST,
    VALUES,
    Bundle,
    bundle_bytes,
    read_bundle,
    read_values,
    values_bytes,
)
from boundaryflow.config.named_files import about_segmenter
from boundaryflow.config.places import check_output
from boundaryflow.diffusion import EpsModel
from boundaryflow.editing.editor import EditSettings
from boundaryflow.errors import BoundaryError, CheckpointError, ManifestError
from boundaryflow.files import RefusedFileError, check_regular, file_sha256
from boundaryflow.jobs.fitted import Fitted, fitted_for, settings_of
from boundaryflow.models.checkpoints import why_no_hub_id
from boundaryflow.models.custom import names_python_model
from boundaryflow.models.portable import model_files, stated_licence
from boundaryflow.runtime.frozen_model import check_features, open_model
from boundaryflow.store.catalog.ingest import INGEST
from boundaryflow.store.catalog.invert import INVERT
from boundaryflow.store.catalog.observe import OBSERVE
from boundaryflow.store.outbox import open_outbox
from boundaryflow.store.outbox_record import STATE, Content, is_within
from boundaryflow.text import visible

MODEL, BOUNDARIES, SEGMENTER, CARD = "model", "boundaries", "segmenter.safetensors", "README.md"
_MAX_STEPS = 10_000
"""Steps of an edit at most, iterations and draws multiplied: a bundle of somebody else's may ask for any number."""


def write_bundle(dataset: str, out: Path, *, with_model: bool = False) -> list[str]:
    """Write what a run has fitted for a data set, and what was fitted from words, into one folder.

    Args:
        dataset: Its name.
        out: The folder: a new one, an empty one, or an earlier bundle of the same data set, which is replaced.
        with_model: Put the model in, too; otherwise its path or hub id, and its hash.

    Returns:
        The attributes whose boundaries it holds.

    Raises:
        PipelineError: Nothing was fitted for the model as it is now, the model cannot travel, or the folder holds
            something else.
    """
    check_output(out, "bundle OUT")
    if out.is_dir() and any(out.iterdir()) and not (out / STATE).is_dir():
        raise ManifestError(f"bundle {out}: holds files that no bundle has; name a folder that is not there yet")
    params = load_params()
    section = params.dataset(dataset)
    fitted = fitted_for(dataset, section, params.run_seed)
    if not fitted.boundaries:
        raise BoundaryError(f"bundle {dataset}: there are no boundaries yet; run `boundaryflow run` first")
    model = fitted.opened[0]
    every = {attribute: fitted.boundary(attribute) for attribute in sorted(fitted.boundaries)}
    files: dict[str, bytes] = {}
    for name, boundaries in every.items():
        for hyperplane in boundaries.all.values():
            hyperplane.check_model(model.sha256)
        path = fitted.boundaries[name]
        assert isinstance(path, Path)
        files[f"{BOUNDARIES}/{name}.safetensors"] = path.read_bytes()
    files[VALUES] = values_bytes(section)
    if section.edit.mask is not None:
        files[SEGMENTER] = Path(section.edit.mask.segmenter).read_bytes()
    if with_model:
        files |= {f"{MODEL}/{name}": data for name, data in model_files(section.model).items()}
    files[CARD] = _card(dataset, section, every, fitted, with_model=with_model).encode()
    content = _described(fitted, section, model.sha256, files)
    with open_outbox(str(out), f"bundle {dataset}") as box:
        for name, data in files.items():
            box.write(name, data)
        box.write(MANIFEST, bundle_bytes(content))  # last: it vouches for the others
        box.remove_others({*files, MANIFEST})
    return list(every)


def _described(fitted: Fitted, params: DatasetParams, sha256: str, files: Mapping[str, bytes]) -> Bundle:
    path, hub_id = _reference(params.model)
    inverted, observed = INVERT.read_facts(fitted.name), OBSERVE.read_facts(fitted.name)
    content: dict[str, Any] = {
        "format": "bundle/1",
        "version": _version(),
        "dataset": fitted.name,
        "run_seed": fitted.run_seed,
        "model": {"sha256": sha256, "path": path, "hub_id": hub_id},
        "inverted": {key: inverted[key] for key in ("t_mix", "num_steps", "noise_until", "order")},
        "observed": {
            "timesteps": observed["timesteps"],
            "features": observed.get("features") or {"layer": None, "pool": None},
        },
        "attributes": {name: "run" if name in fitted.preserved else "words" for name in sorted(fitted.boundaries)},
        "files": {name: vars(Content.of(data)) for name, data in files.items()},
    }
    return Bundle.model_validate(content)


def _reference(model: str) -> tuple[str | None, str | None]:
    """Path or hub id by which a model may be found elsewhere; neither where it is code, or lies out of the checkout."""
    if Path(model).exists():
        return (model if is_within(model) else None), None
    return None, (model if not why_no_hub_id(model) else None)


def _version() -> str:
    try:
        return version("boundaryflow")
    except PackageNotFoundError:
        return "unknown"


def open_bundle(folder: Path, model: str | None = None) -> Fitted:
    """Open a bundle; nothing in it is run.

    Args:
        folder: The folder.
        model: The model that it was fitted for; None takes the bundle's own, or looks where the bundle says.

    Raises:
        PipelineError: A file is missing, damaged or leads out of the folder, values are out of range, or the model is
            another one or not here.
    """
    if not folder.is_dir():
        raise ManifestError(f"bundle {visible(str(folder))}: no such folder; name one that `boundaryflow bundle` wrote")
    bundle = read_bundle(folder)
    boundaries = {name: folder / BOUNDARIES / f"{name}.safetensors" for name in bundle.attributes}
    lacking = {VALUES, *(path.relative_to(folder).as_posix() for path in boundaries.values())} - bundle.files.keys()
    if lacking:
        raise ManifestError(f"bundle {folder}: {MANIFEST} does not list {min(lacking)}; fetch it again")
    for name, stated in bundle.files.items():
        _check_file(folder, name, Content(stated.size, stated.sha256))
    params = read_values(folder, bundle.version)
    if params.edit.mask is not None:
        line = next(about_segmenter(folder / SEGMENTER, params.edit.mask, params), None)
        if line is not None or SEGMENTER not in bundle.files:
            raise ManifestError(f"bundle {folder}: {line or f'lacks {SEGMENTER}, which edit.mask needs'}")
        mask = params.edit.mask.model_copy(update={"segmenter": str(folder / SEGMENTER)})
        params = params.model_copy(update={"edit": params.edit.model_copy(update={"mask": mask})})
    return Fitted(
        name=bundle.dataset,
        where=f"bundle {str(folder)!r}",
        geometry=params.ingest.geometry,
        is_guided=params.edit.method == "guided" and not params.paper_mode,
        run_seed=bundle.run_seed,
        boundaries=boundaries,
        preserved=[name for name, origin in bundle.attributes.items() if origin == "run"],
        opener=lambda: _opened(folder, bundle, params, model or _place(folder, bundle), boundaries),
    )


def faults_of(folder: Path, bundle: Bundle) -> list[str]:
    """What is wrong with the files that a bundle lists."""
    found: list[str] = []
    for name, stated in bundle.files.items():
        try:
            _check_file(folder, name, Content(stated.size, stated.sha256))
        except ManifestError as error:
            found.append(str(error).removeprefix(f"bundle {folder}: "))
    return found


def _check_file(folder: Path, name: str, stated: Content) -> None:
    path = folder / name
    try:
        if not path.resolve().is_relative_to(folder.resolve()):
            raise ManifestError(f"bundle {folder}: {name} is a link that leads out of it; fetch it again")
        is_whole = check_regular(path).st_size == stated.size and file_sha256(path) == stated.sha256
    except (FileNotFoundError, NotADirectoryError):
        raise ManifestError(f"bundle {folder}: {name} is missing; fetch it again") from None
    except RefusedFileError as error:
        raise ManifestError(f"bundle {folder}: {name} is {error.reason}; fetch it again") from None
    except RuntimeError:
        raise ManifestError(f"bundle {folder}: {name} is a link that leads to itself; fetch it again") from None
    if not is_whole:
        raise ManifestError(f"bundle {folder}: {name} is not the file that {MANIFEST} lists; fetch it again")


def _place(folder: Path, bundle: Bundle) -> str:
    """Where the model of a bundle is: in it, at the path from here that it names, or on the hub.

    Raises:
        CheckpointError: Nowhere.
    """
    if any(PurePosixPath(name).parts[0] == MODEL for name in bundle.files):
        return str(folder / MODEL)
    path = bundle.model.path
    if path is not None and not names_python_model(path) and Path(path).exists():
        return path
    if bundle.model.hub_id is not None:
        return bundle.model.hub_id
    where = f"{path} is not here" if path else "it does not say where it is"
    raise CheckpointError(
        f"bundle {folder}: its model ({bundle.model.sha256[:12]}) is not in it, and {where}; name the model (--model, "
        "or model=), or write the bundle anew --with-model"
    )


def _opened(
    folder: Path, bundle: Bundle, params: DatasetParams, source: str, files: Mapping[str, Path]
) -> tuple[EpsModel, EditSettings]:
    """The model and the settings of edits, after a check of each with the other and with the boundaries."""
    model = open_model(source, params.dtype)
    if model.sha256 != bundle.model.sha256:
        raise CheckpointError(
            f"bundle {folder}: was fitted for the model {bundle.model.sha256[:12]}, and {source} is "
            f"{model.sha256[:12]}; name the model that it was fitted for (--model, or model=)"
        )
    images = params.ingest
    if (images.channels, images.image_size) != (model.channels, model.image_size):
        raise ManifestError(
            f"bundle {folder}: is for images of {images.channels} x {images.image_size} pixels a side, its model for "
            f"{model.channels} x {model.image_size}; fetch it again"
        )
    settings = settings_of(params, bundle.inverted.model_dump(), bundle.observed.model_dump())
    last = max(settings.timesteps[-1], settings.t_mix or 0)
    if last >= model.schedule.num_train_timesteps:
        raise ManifestError(
            f"bundle {folder}: has the timestep {last}, its model {model.schedule.num_train_timesteps}; fetch it again"
        )
    num_steps = len(settings.timesteps) * settings.guided.num_noises
    if num_steps > _MAX_STEPS:
        raise ManifestError(f"bundle {folder}: an edit takes {num_steps:,} steps, more than {_MAX_STEPS:,}")
    num_features = check_features(model, settings.features, source)
    for name, path in files.items():
        boundaries = load_boundaries(path)
        if boundaries.attribute != name:
            raise BoundaryError(f"boundary {path}: is of {visible(boundaries.attribute)!r}; fetch the bundle again")
        for hyperplane in boundaries.all.values():
            hyperplane.check_model(model.sha256)
        for hyperplane in boundaries.along_path(
            settings.timesteps, model.sha256, settings.features.space, may_be_empty=True
        ):
            hyperplane.check_dimensions(num_features)
    return model, settings


def _card(
    dataset: str, params: DatasetParams, every: Mapping[str, Boundaries], fitted: Fitted, *, with_model: bool
) -> str:
    rows: list[str] = []
    for name, boundaries in every.items():
        best = most_telling(list(boundaries.all.values()))
        known, origin = best.calibration, "labels" if name in fitted.preserved else "words"
        rows.append(f"| {name} | {known.auc:.3f} | {best.t} | {known.num} | {len(boundaries.noised)} | {origin} |")
    path, hub_id = _reference(params.model)
    place = f"in `{MODEL}/`" if with_model else f"`{path or hub_id}`" if path or hub_id else "not included"
    licences = stated_licence(params.model) or ["its card states none, or is not here"]
    return _CARD.format(
        dataset=dataset,
        place=place,
        sha256=fitted.opened[0].sha256,
        licence="; ".join(visible(line).replace("|", "/") for line in licences),
        num=INGEST.read_facts(dataset)["num_ok"],
        source=params.ingest.source.kind,
        size=f"{params.ingest.channels} x {params.ingest.image_size} x {params.ingest.image_size}",
        method=params.edit.method,
        version=_version(),
        rows="\n".join(rows),
        first=next(iter(every)),
        elsewhere="" if with_model or hub_id else ', model="PATH_OF_THE_MODEL"',
    )


_CARD = """\
---
library_name: boundaryflow
tags: [image-editing, boundaryflow]
---

# Boundaries of {dataset}

Hyperplanes between a frozen diffusion model's features of images with an attribute and without, written by
`boundaryflow bundle` (version {version}). What it edits is synthetic; the licence of the model holds for it, too.

| | |
|---|---|
| model | {place} (sha256 `{sha256}`) |
| licence of the model, as its card states it | {licence} |
| data set | {dataset} ({source}): {num:,} images of {size} |
| edits | {method}; all values are in `params.yaml` |

| attribute | held-out AUC | at timestep | held-out images | noise levels | from |
|---|---|---|---|---|---|
{rows}

```python
import boundaryflow as bf

editor = bf.load("THIS_FOLDER"{elsewhere})
edited = editor.edit(picture, {{"{first}": +1}})
```
"""
