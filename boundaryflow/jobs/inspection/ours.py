"""Files that this project wrote: boundaries, shards, judges, tables, facts of a stage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from safetensors import SafetensorError

from boundaryflow.boundary import load_boundaries
from boundaryflow.config.bundle import MANIFEST, read_bundle
from boundaryflow.errors import ManifestError
from boundaryflow.evaluation.declared import RUNTIMES, SUFFIX, find_declarations, read_declaration
from boundaryflow.evaluation.foreign import DeclaredNet, open_network, shape_of
from boundaryflow.evaluation.judges import FILES, read_judge
from boundaryflow.evaluation.panel import load_judges
from boundaryflow.files import file_sha256
from boundaryflow.formats.tensor_files import read_about
from boundaryflow.jobs.bundle import MODEL, faults_of
from boundaryflow.store.catalog import CATALOG
from boundaryflow.store.shards import read_shard
from boundaryflow.store.tables import read_json, table_schema

_FACTS = tuple(output.facts for output in CATALOG.values() if output.facts)


def about(path: Path) -> dict[str, Any] | None:
    """A file or a stage's folder of this project; None for anything else.

    Raises:
        PipelineError: It is one, and damaged.
    """
    if path.is_dir():
        return _about_bundle(path) or _about_judges(path) or _about_folder(path)
    if path.name.endswith(SUFFIX):
        return _about_declared(path)
    if path.suffix.lower() in RUNTIMES:
        return _about_foreign(path)
    if path.suffix == ".safetensors":
        return _about_tensors(path)
    if path.suffix == ".parquet":
        return _about_table(path)
    return None


def _about_bundle(path: Path) -> dict[str, Any] | None:
    if not (path / MANIFEST).is_file():
        return None
    bundle = read_bundle(path)
    model, features = bundle.model, bundle.observed.features
    is_inside = any(name.startswith(f"{MODEL}/") for name in bundle.files)
    return {
        "what": "a bundle: boundaries and settings for a model",
        "data set": bundle.dataset,
        "attributes": sorted(bundle.attributes),
        "from words": sorted(name for name, origin in bundle.attributes.items() if origin == "words"),
        "model": "in the bundle" if is_inside else model.path or model.hub_id or "not included",
        "model_sha256": model.sha256,
        "noise levels": len(bundle.observed.timesteps),
        "features": features.layer or "middle block",
        "format": bundle.format,
        "written by": f"boundaryflow {bundle.version}",
        "files": len(bundle.files),
        "files as listed": faults_of(path, bundle) or "all, by size and SHA-256",
    }


def _about_tensors(path: Path) -> dict[str, Any] | None:
    try:
        header = read_about(path)
    except (SafetensorError, OSError):
        return None  # reading it as a checkpoint reports the error
    schema = str(header.get("schema", ""))
    if schema.startswith("boundar"):
        return _about_boundary(path)
    if schema.startswith("shard"):
        shard = read_shard(path)
        tensors = {name: f"{tensor.dtype} {list(tensor.shape)}" for name, tensor in shard.tensors.items()}
        return {
            "what": "a shard, whole",
            "items": len(shard.item_ids),
            "cache_key": shard.cache_key,
            "tensors": tensors,
        }
    for kind in FILES:
        if header.get("kind") == kind:
            _net, config, names = read_judge(path, kind)
            return {"what": f"a judge ({kind})", "knows": names, **config}
    return None


def _about_judges(path: Path) -> dict[str, Any] | None:
    files = [path / file for file in FILES.values() if (path / file).exists()]
    if not files and not find_declarations(path):
        return None
    judges = load_judges(path)
    return {
        "what": "judges",
        "who decides": judges.deciding,
        "identity": judges.embedder is not None,
        "parts": list(judges.segmenter.parts) if judges.segmenter else [],
    }


def _about_declared(path: Path) -> dict[str, Any]:
    declared = DeclaredNet(read_declaration(path)).declaration
    outputs = {name: ", ".join(map(str, places)) for name, places in declared.attributes.items()}
    return {
        "what": f"a judge ({declared.kind}) from elsewhere",
        "network": declared.network.name,
        "input size": list(declared.input_size),
        "channel order": declared.order,
        "range": list(declared.value_range),
        "outputs": outputs,
    }


def _about_foreign(path: Path) -> dict[str, Any]:
    """The inputs and outputs of a network, from which its declaration is written."""
    net = open_network(path)
    ports = {"takes": net.inputs, "gives": net.outputs}
    return {
        "what": f"a network ({path.suffix.lower()[1:]}); {path.stem}{SUFFIX} beside it makes a judge of it",
        "sha256": file_sha256(path),
        **{word: {port.name: f"{port.dtype} {shape_of(port)}" for port in of} for word, of in ports.items()},
    }


def _about_boundary(path: Path) -> dict[str, Any]:
    boundaries = load_boundaries(path)
    hyperplanes = boundaries.all
    first = next(iter(hyperplanes.values()))
    facts: dict[str, Any] = {
        "what": "a boundary",
        "attribute": first.attribute,
        "timestep": first.t,
        "model sha256": first.model_sha256,
    }
    for name, boundary in hyperplanes.items():
        calibration = vars(boundary.calibration)
        facts[f"{name}-space" if name == boundary.space else f"noised, {name}"] = {
            "dimensions": boundary.normal.numel(),
            "intercept": float(boundary.intercept),
            "pattern": "unknown" if boundary.pattern is None else "known",
            **{name.replace("_", " "): value for name, value in calibration.items()},
        }
    return facts


def _about_table(path: Path) -> dict[str, Any] | None:
    try:
        schema, units = table_schema(path)
        found = pq.ParquetFile(path)
    except (pa.ArrowInvalid, OSError):
        return None  # reading it as a table of labels reports the error
    if schema is None:
        return None
    columns = {
        field.name: f"{field.type}, {units[field.name]}" if field.name in units else str(field.type)
        for field in found.schema_arrow
    }
    return {"what": f"a table of this project ({schema})", "rows": found.metadata.num_rows, "columns": columns}


def _about_folder(path: Path) -> dict[str, Any] | None:
    shards = sorted(path.glob("shard-*.safetensors"))
    facts = next((path / name for name in _FACTS if (path / name).is_file()), None)
    if facts is None and not shards:
        return None
    found: dict[str, Any] = {"what": "a folder of a stage"}
    if shards:
        broken = [shard.name for shard in shards if not _is_whole(shard)]
        found |= {"shards": len(shards), "damaged shards": broken}
    if facts is not None:
        found[facts.stem] = read_json(facts)
    return found


def _is_whole(path: Path) -> bool:
    try:
        read_shard(path)
    except ManifestError:
        return False
    return True
