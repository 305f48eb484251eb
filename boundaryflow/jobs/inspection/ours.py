"""Files that this project wrote: boundaries, shards, judges, tables, facts of a stage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from safetensors import SafetensorError

from boundaryflow.boundary import load_boundaries
from boundaryflow.errors import ManifestError
from boundaryflow.evaluation.judges import FILES, read_judge
from boundaryflow.formats.tensor_files import read_about
from boundaryflow.store.shards import read_shard
from boundaryflow.store.tables import read_json, table_schema

_FACTS = ("ingest.json", "label.json", "mixing.json", "invert.json", "observe.json", "edit.json", "metrics.json")


def about(path: Path) -> dict[str, Any] | None:
    """A file or a stage's folder of this project; None for anything else.

    Raises:
        PipelineError: It is one, and damaged.
    """
    if path.is_dir():
        return _about_folder(path)
    if path.suffix == ".safetensors":
        return _about_tensors(path)
    if path.suffix == ".parquet":
        return _about_table(path)
    return None


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
