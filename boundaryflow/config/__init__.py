"""The only reader of params.yaml: every value that changes a result, checked before anything runs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from boundaryflow.config.agreement import disagreements, job_disagreements
from boundaryflow.config.annotations import (
    Annotations,
    CelebaSource,
    CsvSource,
    FolderLabels,
    ImageFolderLabels,
    JsonLabels,
    LongSource,
    NameLabels,
    PairLabels,
    ParquetLabels,
    TableLabels,
    WebDatasetLabels,
)
from boundaryflow.config.base import MAX_STRENGTH, alike, is_name
from boundaryflow.config.defaults import DEFAULTS, TAKEN_WHOLE, as_stated, filled, is_default
from boundaryflow.config.delivery import DeliveryParams, NamedDeliveryParams, delivery_of
from boundaryflow.config.guard import GuardParams, quarantine_of, unmeasurable
from boundaryflow.config.image_sources import AvatarSource, FolderSource, ListedSource, ParquetSource, RemoteSource
from boundaryflow.config.ingest import CropBox, FileSplit, Groups, Split
from boundaryflow.config.label import LabelParams
from boundaryflow.config.label_rules import (
    AttributeRule,
    ColumnRule,
    CombinedRule,
    PromptRule,
    ThresholdRule,
    ValueRule,
)
from boundaryflow.config.label_sources import ClassifierSource, ClipSource, ProbeSource, TruthSource
from boundaryflow.config.named_files import files_beside_images, unfit_files
from boundaryflow.config.params import AugmentParams, BulkEditParams, EqualTarget, IndependentTarget, Params
from boundaryflow.config.sections import DatasetParams
from boundaryflow.config.wording import told
from boundaryflow.config.yaml_file import as_written, read_text, read_yaml
from boundaryflow.errors import ParamsError
from boundaryflow.files import write_bytes
from boundaryflow.text import masked_values

__all__ = [
    "MAX_STRENGTH",
    "Annotations",
    "AttributeRule",
    "AugmentParams",
    "AvatarSource",
    "BulkEditParams",
    "CelebaSource",
    "ClassifierSource",
    "ClipSource",
    "ColumnRule",
    "CombinedRule",
    "CropBox",
    "CsvSource",
    "DatasetParams",
    "DeliveryParams",
    "EqualTarget",
    "FileSplit",
    "FolderLabels",
    "FolderSource",
    "Groups",
    "GuardParams",
    "ImageFolderLabels",
    "IndependentTarget",
    "JsonLabels",
    "LabelParams",
    "ListedSource",
    "LongSource",
    "NameLabels",
    "NamedDeliveryParams",
    "PairLabels",
    "Params",
    "ParquetLabels",
    "ParquetSource",
    "ProbeSource",
    "PromptRule",
    "RemoteSource",
    "Split",
    "TableLabels",
    "ThresholdRule",
    "TruthSource",
    "ValueRule",
    "WebDatasetLabels",
    "activate_dataset",
    "alike",
    "copy_entry",
    "delivery_of",
    "described",
    "files_beside_images",
    "filled",
    "is_name",
    "load_params",
    "quarantine_of",
    "ready_entries",
    "written_out",
]


def load_params(root: Path = Path(), *, check_files: bool = True) -> Params:
    """Read and check params.yaml, and for the data sets in its list the files that it names.

    Args:
        root: The checkout.
        check_files: False leaves out the files, which takes seconds where a model is a checkpoint.

    Raises:
        ParamsError: One line per mistake: file, key, value, rule, nearest valid name.
    """
    path = root / "params.yaml"
    try:
        content = read_yaml(path)
    except FileNotFoundError:
        raise ParamsError(f"{path}: no such file; run the command in the folder that has it") from None
    if not isinstance(content, dict):
        raise ParamsError(f"{path}: must have the keys datasets, run_seed and data at its top; copy the shipped one")
    stated = content.get("data")
    defaults, stated = _defaults(path, content), stated if isinstance(stated, dict) else {}
    content = {key: value for key, value in content.items() if key != DEFAULTS}
    content |= {"data": {name: filled(defaults, entry) for name, entry in stated.items()}} if stated else {}

    def refusal(lines: list[str]) -> ParamsError:
        return _refusal(path, list(dict.fromkeys(as_stated(line, defaults, stated) for line in lines)))

    by_itself = _about_defaults(defaults, next(iter(stated.values()), None))
    try:
        params = TypeAdapter(Params).validate_python(content)
    except ValidationError as error:
        raise refusal([*told(error.errors(), Params), *by_itself]) from None
    lines = by_itself + [
        f"data.{name}.{line}" for name, dataset in params.data.items() for line in disagreements(dataset)
    ]
    lines += [*job_disagreements(params, root), *unmeasurable(root, params, check_files=check_files)]
    for name in params.datasets if check_files and not lines else ():
        lines += [f"data.{name}.{line}" for line in unfit_files(root, name, params.data[name])]
    if lines:
        raise refusal(lines)
    return params


def _about_defaults(defaults: dict[str, Any], entry: Any) -> list[str]:
    """What is wrong with the defaults themselves, also where no data set takes them.

    Args:
        defaults: Section `defaults` of params.yaml.
        entry: A data set, which lends what they leave out.
    """
    if not isinstance(entry, dict):
        return []
    try:
        DatasetParams.model_validate(filled(filled(defaults, entry), defaults))
    except ValidationError as error:
        lines = told(error.errors(), DatasetParams)
        return [f"{DEFAULTS}.{line}" for line in lines if is_default(line.partition(":")[0].split("."), defaults, {})]
    return []


def _defaults(path: Path, content: dict[str, Any]) -> dict[str, Any]:
    if DEFAULTS not in content:
        raise ParamsError(f"{path}: {DEFAULTS}: is missing, and DVC needs it; write `{DEFAULTS}: {{}}` if it has none")
    found = content[DEFAULTS]
    if not isinstance(found, dict):
        raise ParamsError(f"{path}: {DEFAULTS}: must be a mapping, such as that of the shipped params.yaml")
    return found


def written_out(root: Path, name: str) -> list[tuple[str, Any, str]]:
    """Every value of a data set of params.yaml: its key with dots, the value, and the section that states it.

    Raises:
        ParamsError: See `load_params`.
    """
    params, path = load_params(root, check_files=False), root / "params.yaml"
    content = read_yaml(path)
    defaults, entry = _defaults(path, content), content["data"].get(name, {})
    found: list[tuple[str, Any, str]] = []

    def walk(values: Mapping[str, Any], keys: tuple[str, ...]) -> None:
        for key, value in values.items():
            here = (*keys, key)
            nested = isinstance(value, Mapping) and key not in TAKEN_WHOLE
            if nested and value:
                walk(value, here)
            else:
                home = DEFAULTS if is_default(here, defaults, entry) else f"data.{name}"
                found.append((".".join(here), value, home))

    walk(masked_values(params.dataset(name).model_dump(mode="json")), ())
    return found


def _refusal(path: Path, lines: list[str]) -> ParamsError:
    return ParamsError("\n".join(f"{path}: {line}" for line in lines))


def ready_entries(root: Path = Path()) -> dict[str, Path]:
    """Data sets that examples/ describes, ready to be copied into params.yaml."""
    return {path.stem: path for path in sorted((root / "examples").glob("*.yaml"))}


def described(params: Params, name: str, root: Path = Path()) -> DatasetParams:
    """A data set of params.yaml, or one that examples/ has ready.

    Raises:
        ParamsError: There is none of this name.
    """
    ready = ready_entries(root)
    if name in params.data:
        return params.data[name]
    if name in ready:
        try:
            defaults = _defaults(root / "params.yaml", read_yaml(root / "params.yaml"))
            return DatasetParams.model_validate(filled(defaults, read_yaml(ready[name])))
        except ValidationError as error:
            raise _refusal(ready[name], told(error.errors(), DatasetParams)) from None
    known = sorted({*params.data, *ready})
    near = get_close_matches(name, known, 1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)};"
    raise ParamsError(f"--dataset {name}: params.yaml has no data.{name}; {hint} docs/datasets.md says how to add one")


def copy_entry(path: Path, name: str, entry: Path) -> None:
    """Add a ready entry to the end of params.yaml, comments and all.

    Raises:
        ParamsError: `data` is not the last section of params.yaml.
    """
    text = read_text(path)
    last = re.findall(r"^(\w+):", text, re.MULTILINE)[-1:]
    if last != ["data"]:
        raise ParamsError(f"{path}: the section data must be the last one; move it, or copy {entry} into it by hand")
    lines = read_text(entry).splitlines()
    body = "".join(f"    {line}\n" if line else "\n" for line in lines)
    _rewrite(path, f"{text.rstrip()}\n\n  {as_written(name)}:\n{body}")


def activate_dataset(path: Path, name: str) -> None:
    """Add a data set to the list `datasets` of params.yaml, leaving all else as it is written.

    Raises:
        ParamsError: The list is not written on one line.
    """
    text = read_text(path)
    found = re.search(r"^datasets:[ \t]*\[(?P<names>[^\]\n]*)\]", text, re.MULTILINE)
    if found is None:
        raise ParamsError(
            f"{path}: datasets: must be written on one line, such as datasets: [avatars]; add {name} by hand"
        )
    names = ", ".join([*(n for n in (n.strip() for n in found["names"].split(",")) if n), as_written(name)])
    _rewrite(path, f"{text[: found.start()]}datasets: [{names}]{text[found.end() :]}")


def _rewrite(path: Path, text: str) -> None:
    """Write params.yaml with the line endings that it has; a link stays one."""
    ends = "\r\n" if b"\r\n" in path.read_bytes() else "\n"
    write_bytes(path, "".join(line + ends for line in text.splitlines()).encode(), follow=True)
