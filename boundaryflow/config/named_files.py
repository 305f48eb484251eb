"""Files that params.yaml names: are they there, and do they suit the images?"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from boundaryflow.config.ingest import FileSplit, Split
from boundaryflow.config.label_rules import ColumnRule
from boundaryflow.config.label_sources import ClassifierSource
from boundaryflow.config.sections import DatasetParams, MaskParams
from boundaryflow.config.wording import nearest
from boundaryflow.errors import CheckpointError
from boundaryflow.files import MAX_SETTINGS_BYTES, RefusedFileError, read_bytes
from boundaryflow.formats.tensor_headers import parse_json_object, read_header
from boundaryflow.store.catalog.raw import RAW

_JUDGES = ("attributes.safetensors", "identity.safetensors", "segmenter.safetensors")


def unfit_files(root: Path, name: str, dataset: DatasetParams) -> Iterator[str]:
    """Lines `key: what is wrong`, the key within the data set."""
    source, evaluate = dataset.label.source, dataset.evaluate
    folders = (("model", dataset.model), ("evaluate.judges", evaluate.judges))
    mask = dataset.edit.mask
    files = (
        ("edit.mask.segmenter", None if mask is None else mask.segmenter),
        ("label.source.weights", source.network),
        ("evaluate.clip", evaluate.clip),
    )
    beside = _beside_images(dataset)
    absent: set[str] = set()
    for key, value in (*folders, *beside, *files):
        raw = RAW.folder(name) if (key, value) in beside else None
        line = None if value is None else _missing(root, raw, key, value)
        if line:
            absent.add(key)
            yield f"{key}: {line}"
    if "model" not in absent and (root / dataset.model).is_dir():
        yield from _about_model(root / dataset.model, dataset)
    if "model" not in absent and (root / dataset.model).is_file():
        yield from _about_checkpoint(root / dataset.model, dataset)
    if mask is not None and "edit.mask.segmenter" not in absent:
        yield from about_segmenter(root / mask.segmenter, mask, dataset)
    if evaluate.judges is not None and "evaluate.judges" not in absent:
        yield from _about_judges(root / evaluate.judges, dataset)
    if isinstance(source, ClassifierSource) and "label.source.weights" not in absent:
        yield from _about_classifier(root, source, dataset)


def files_beside_images(dataset: DatasetParams) -> list[str]:
    """Paths and patterns, within data/raw/NAME, of what labels and splits are read from."""
    return [path for _, path in _beside_images(dataset)]


def _beside_images(dataset: DatasetParams) -> list[tuple[str, str]]:
    split = dataset.ingest.split
    found = [("ingest.split.path", split.path)] if isinstance(split, FileSplit) else []
    if isinstance(split, Split) and split.groups is not None:
        found += [(f"ingest.split.groups.source.{key}", path) for key, path in split.groups.source.files()]
    return [*found, *((f"label.source.{key}", path) for key, path in dataset.label.source.files())]


def _missing(root: Path, raw: Path | None, key: str, value: str) -> str | None:
    if value.startswith("~"):
        return f"{value} begins with ~, which is not expanded; write the path out"
    if raw is not None:
        return _missing_beside_images(root, raw, value)
    if key == "model" and value.rpartition(":")[0].endswith(".py"):
        path = value.rpartition(":")[0]
        return None if (root / path).is_file() else f"{path} does not exist; give FILE.py:FUNCTION"
    if key in ("model", "evaluate.judges"):
        if (root / value).is_dir() or (key == "model" and (root / value).is_file()):
            return None
        owner = value.partition("/")[0]
        if key == "model" and not _looks_like_path(value) and value.count("/") == 1 and not (root / owner).exists():
            return None  # the id of a model on the hub
        hint = "or a hub id like owner/name" if key == "model" else "or null"
        what = "is not a folder" if (root / value).exists() else "does not exist"
        return f"{value} {what}; give an existing path, {hint}"
    if key == "edit.mask.segmenter" and not (root / value).is_file():
        return f"{value} is not a file; give a segmenter, or set edit.mask to null"
    if _looks_like_path(value) and not (root / value).exists():
        return f"{value} does not exist; give an existing path"
    return None


def _missing_beside_images(root: Path, raw: Path, value: str) -> str | None:
    path = raw / value
    if (root / path).is_file():
        return None
    if not set("*?[") & set(value):
        what = "is a folder; give the file in it" if (root / path).is_dir() else "does not exist; give a path"
        return f"{path} {what} within {raw}"
    found = any(file.is_file() for file in (root / raw).glob(value))
    return None if found else f"no file fits {path}; give a path or pattern within {raw}"


def _looks_like_path(value: str) -> bool:
    """Hub ids and OpenAI's model names are not files."""
    return value.startswith((".", "/", "data/")) or Path(value).suffix == ".pt"


def _about_model(root: Path, dataset: DatasetParams) -> Iterator[str]:
    """What `boundaryflow.models` would find; the weights themselves are read when they are needed."""
    folder = next((root / part for part in ("unet_ema", "unet") if (root / part / "config.json").exists()), root)
    try:
        config, sidecar = _json(folder / "config.json"), folder / "boundaryflow.json"
        fold = int(_json(sidecar).get("pixel_unshuffle", 1)) if sidecar.exists() else 1
        side, channels = int(config["sample_size"]) * fold, int(config["in_channels"]) // fold**2
    except FileNotFoundError:
        yield f"model: {dataset.model} has no config.json; give a diffusers folder"
    except (RefusedFileError, OSError, ArithmeticError, ValueError, TypeError, KeyError):
        yield f"model: {dataset.model} does not say its image size (sample_size, in_channels of config.json)"
    else:
        yield from _about_geometry("model", dataset.model, side, channels, dataset)


def _about_checkpoint(path: Path, dataset: DatasetParams) -> Iterator[str]:
    """What a checkpoint file is; takes seconds, which a run that could not begin would cost, too."""
    from boundaryflow.models.checkpoints import open_checkpoint

    try:
        found = open_checkpoint(path)
    except CheckpointError as error:
        yield f"model: {str(error).removeprefix('model ')}"
    else:
        side = found.image_size
        if found.architecture.assumes_size and side != dataset.ingest.image_size:
            yield (
                f"ingest.image_size: is {dataset.ingest.image_size}, but nothing in {dataset.model} (model) says the "
                f"size of its images, and {side} was taken for granted; write the true one into {dataset.model}.json, "
                f'such as {{"image_size": {dataset.ingest.image_size}}}; '
                f"`boundaryflow inspect {dataset.model} --try PICTURES` measures which fits"
            )
            side = dataset.ingest.image_size
        yield from _about_geometry("model", dataset.model, side, found.channels, dataset)


def _about_judges(folder: Path, dataset: DatasetParams) -> Iterator[str]:
    known, faults = _known_by("evaluate.judges", folder, str(dataset.evaluate.judges), dataset)
    yield from faults or _about_verdicts(known, dataset)


def _about_classifier(root: Path, source: ClassifierSource, dataset: DatasetParams) -> Iterator[str]:
    key = "label.source.weights"
    if not (root / source.weights).is_dir():
        yield f"{key}: {source.weights} is not a folder; give one with classifiers, as evaluate.judges"
        return
    known, faults = _known_by(key, root / source.weights, source.weights, dataset)
    yield from faults
    for name, rule in dataset.label.attributes.items() if not faults else ():
        column = (rule.column or name) if isinstance(rule, ColumnRule) else None
        if column is not None and column not in known:
            yield f"label.attributes.{name}: {source.weights} does not know {column!r}{nearest(column, known)}"


def _known_by(key: str, folder: Path, shown: str, dataset: DatasetParams) -> tuple[list[str], list[str]]:
    """Attributes that the classifiers of a folder know; and what is wrong with the folder."""
    known: list[str] = []
    for file in _JUDGES:
        if not (folder / file).exists():
            continue
        try:
            about = _header(folder / file)
            config = about["config"]
            side, channels = int(config["image_size"]), int(config["channels"])
            known = [str(name) for name in about["names"]] if file == _JUDGES[0] else known
        except (OSError, ValueError, TypeError, KeyError):
            return [], [f"{key}: {shown}/{file} is damaged, or not a judge; fetch it again, or give null"]
        wrong = list(_about_geometry(key, f"{shown}/{file}", side, channels, dataset))
        if wrong:
            return [], wrong
    declared, faults = _declared_judges(key, folder, dataset)
    if not faults and not known and not declared:
        faults = [
            f"{key}: {shown} has no {_JUDGES[0]}, and declares no classifier (NAME.judge.json); give a folder with "
            "judges, or null"
        ]
    return [*declared, *known], faults


def _declared_judges(key: str, folder: Path, dataset: DatasetParams) -> tuple[list[str], list[str]]:
    """Attributes that networks from elsewhere judge, each of which is opened and tried; and what is wrong with one."""
    if not any(folder.glob("*.judge.json")):
        return [], []
    from boundaryflow.evaluation.panel import open_declared  # torch, which takes seconds

    try:
        nets = open_declared(folder)
    except CheckpointError as error:
        return [], [f"{key}: {str(error).removeprefix('judge ')}"]
    known: list[str] = []
    for net in nets:
        side = net.declaration.image_size or dataset.ingest.image_size
        faults = list(_about_geometry(key, str(net.declaration.path), side, dataset.ingest.channels, dataset))
        if faults:
            return [], faults
        known += net.declaration.attributes
    return known, []


def about_segmenter(path: Path, mask: MaskParams, dataset: DatasetParams) -> Iterator[str]:
    """Lines `key: what is wrong` about the segmenter of a mask, and the parts that the mask names."""
    key = "edit.mask.segmenter"
    try:
        about = _header(path)
        config, known = about["config"], [str(name) for name in about["names"]]
        side, channels, kind = int(config["image_size"]), int(config["channels"]), str(about["kind"])
    except (OSError, ValueError, TypeError, KeyError):
        yield f"{key}: {mask.segmenter} is damaged, or not a segmenter; fetch it again, or set mask: null"
        return
    if kind != "segment":
        yield f"{key}: {mask.segmenter} judges ({kind}), must be a segmenter; give {_JUDGES[-1]} of some judges"
        return
    yield from _about_geometry(key, mask.segmenter, side, channels, dataset)
    for attribute, parts in mask.parts.items():
        for part in parts:
            if part not in known:
                yield f"edit.mask.parts.{attribute}: {mask.segmenter} knows no part {part!r}{nearest(part, known)}"


def _header(path: Path) -> dict[str, Any]:
    """What a judge says of itself.

    Raises:
        ValueError, KeyError, TypeError, OSError: It is none, or is damaged.
    """
    try:
        about = read_header(path).about
    except SafetensorError as error:
        raise ValueError(str(error)) from None
    config, names, kind = about["config"], about["names"], about["kind"]
    num = config["num_parts" if kind == "segment" else "num_outputs"]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise TypeError("names is not a list of strings")
    if kind != "embed" and len(names) != num:
        raise ValueError(f"names {len(names)} of {num} outputs")
    return about


def _json(path: Path) -> dict[str, Any]:
    return parse_json_object(read_bytes(path, MAX_SETTINGS_BYTES))


def _about_geometry(key: str, where: str, side: int, channels: int, dataset: DatasetParams) -> Iterator[str]:
    ingest = dataset.ingest
    for name, value, own in (("image_size", ingest.image_size, side), ("channels", ingest.channels, channels)):
        if value != own:
            way_out = f"set it to {own}" if key == "model" else "give others, or null"
            yield f"ingest.{name}: is {value}, but {where} ({key}) is for {own}; {way_out}"


def _about_verdicts(known: list[str], dataset: DatasetParams) -> Iterator[str]:
    """An edit whose attributes no judge knows goes unjudged; one that is half known would be judged wrongly."""
    judges, edits = dataset.evaluate.judges, dataset.edit.edits
    if not any(attribute in known for targets in edits.values() for attribute in targets):
        yield f"evaluate.judges: {judges} judges {', '.join(known)}, and no edit changes any of these; give null"
        return
    for name, targets in edits.items():
        unknown = [attribute for attribute in targets if attribute not in known]
        if unknown and len(unknown) < len(targets):
            yield (
                f"edit.edits.{name}: {judges} does not judge {unknown[0]!r}, only the rest of the edit; split it, or "
                "set evaluate.judges to null"
            )
