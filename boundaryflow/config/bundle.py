"""The settings of a bundle: bundle.json says what it holds, params.yaml has every value of the data set."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import AfterValidator, BaseModel, Field, ValidationError, model_validator

from boundaryflow.config.agreement import disagreements
from boundaryflow.config.base import Layer, Name, Section
from boundaryflow.config.sections import DatasetParams
from boundaryflow.config.wording import told
from boundaryflow.config.yaml_file import read_yaml
from boundaryflow.errors import ManifestError, ParamsError
from boundaryflow.files import MAX_SETTINGS_BYTES, RefusedFileError, read_bytes
from boundaryflow.formats.tensor_headers import parse_json_object
from boundaryflow.store.outbox_record import is_within
from boundaryflow.text import masked_values

MANIFEST, VALUES = "bundle.json", "params.yaml"
_MAX_TIMESTEPS = 1000


def _within(path: str) -> str:
    if not is_within(path):
        raise ValueError("must be a path within the folder, without .. and control characters")
    return path


def _ascending(timesteps: list[int]) -> list[int]:
    if sorted(set(timesteps)) != timesteps:
        raise ValueError("must ascend")
    return timesteps


Within = Annotated[str, AfterValidator(_within)]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Timestep = Annotated[int, Field(ge=0, le=10**6)]


class BundledModel(Section):
    """Which model the boundaries belong to, and where it was: in a checkout, on the hub, or in the bundle itself."""

    sha256: Sha256
    path: Within | None
    hub_id: Annotated[str, Field(max_length=300, pattern=r"^[A-Za-z0-9_-]+/[A-Za-z0-9_.-]+(@[A-Za-z0-9_.-]+)?$")] | None


class BundledPath(Section):
    """The inversion that the boundaries at the mixing step saw; see `EditSettings`."""

    t_mix: Timestep | None
    num_steps: int = Field(ge=2, le=1000)
    noise_until: Timestep
    order: Literal[1, 2]


class BundledFeatures(Section):
    """See `boundaryflow.diffusion.Features`."""

    layer: Layer | None
    pool: int | None = Field(ge=1, le=1024)

    @model_validator(mode="after")
    def _of_a_layer(self) -> BundledFeatures:
        if self.pool is not None and self.layer is None:
            raise ValueError("pool|must be null where no layer is named")
        return self


class BundledNoiseLevels(Section):
    """The path of the guided edit, and the features that the hyperplanes lie in."""

    timesteps: Annotated[list[Timestep], Field(min_length=1, max_length=_MAX_TIMESTEPS), AfterValidator(_ascending)]
    features: BundledFeatures


class BundledFile(Section):
    """Size and hash of a file."""

    size: int = Field(ge=0)
    sha256: Sha256


class Bundle(Section):
    """Content of bundle.json.

    `attributes` says where boundaries come from: from a run, whose edits preserve all such attributes, or from words.
    """

    format: Literal["bundle/1"]
    version: str
    dataset: Name
    run_seed: int = Field(ge=0)
    model: BundledModel
    inverted: BundledPath
    observed: BundledNoiseLevels
    attributes: dict[Name, Literal["run", "words"]] = Field(min_length=1, max_length=10_000)
    files: dict[Within, BundledFile] = Field(max_length=100_000)


def bundle_bytes(content: Bundle) -> bytes:
    """Content of bundle.json."""
    return (json.dumps(content.model_dump(mode="json"), indent=2, sort_keys=True) + "\n").encode()


def values_bytes(params: DatasetParams) -> bytes:
    """Content of params.yaml: every value, without secrets."""
    values = masked_values(params.model_dump(mode="json"))
    return yaml.safe_dump(values, allow_unicode=True, sort_keys=False, width=1000).encode()


def read_bundle(folder: Path) -> Bundle:
    """Read and check bundle.json.

    Raises:
        ManifestError: It is missing or damaged, of another version, or has a value out of range.
    """
    path = folder / MANIFEST
    try:
        content = parse_json_object(read_bytes(path, MAX_SETTINGS_BYTES))
    except FileNotFoundError:
        raise ManifestError(
            f"bundle {folder}: has no {MANIFEST}; name a folder that `boundaryflow bundle` wrote"
        ) from None
    except RefusedFileError as error:
        raise ManifestError(f"bundle {path}: {error.reason}; fetch it again") from None
    except ValueError as error:
        raise ManifestError(f"bundle {path}: {error}; fetch it again") from None
    return _checked(path, Bundle, content, str(content.get("version", "")))


def read_values(folder: Path, version: str) -> DatasetParams:
    """Read and check params.yaml.

    Args:
        folder: The bundle.
        version: Version of this project that wrote it, for messages.

    Raises:
        ManifestError: It is damaged, or has values that this version does not know or that do not agree.
    """
    path = folder / VALUES
    try:
        content = read_yaml(path)
    except ParamsError as error:
        raise ManifestError(f"bundle {error}; fetch it again") from None
    params = _checked(path, DatasetParams, content, version)
    line = next(disagreements(params), None)
    if line is not None:
        raise ManifestError(f"bundle {path}: {line}")
    return params


_Checked = TypeVar("_Checked", bound=BaseModel)


def _checked(path: Path, kind: type[_Checked], content: Any, version: str) -> _Checked:
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        first = told(error.errors(), kind)[0]
        written = f" (written by boundaryflow {version:.20})" if version else ""
        raise ManifestError(f"bundle {path}: {first}{written}; write it anew with `boundaryflow bundle`") from None
