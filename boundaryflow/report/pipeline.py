"""The stage graph, the parameters and the provenance, read from DVC's and the project's own files."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any, cast

import yaml

from boundaryflow.config.yaml_file import read_generated_yaml
from boundaryflow.report.figures import stage_graph
from boundaryflow.report.inputs import Inputs

VERSIONS = (
    "torch", "torchvision", "diffusers", "safetensors", "clip-anytorch", "scikit-learn", "torchmetrics", "numpy",
    "pandas", "pyarrow", "pillow", "dvc", "prefect",
)  # fmt: skip
ITEM = re.compile(r"\$\{item(\.\w+)?\}")


def graph(root: Path, dataset: str, parameters: Mapping[str, Any]) -> dict[str, Any] | None:
    """The stages of dvc.yaml in order, the outputs that each reads, and each stage's parameters.

    Args:
        root: Folder of dvc.yaml.
        dataset: The data set, which replaces `${item}`.
        parameters: The data set's resolved parameters, one section per stage.
    """
    path = root / "dvc.yaml"
    if not path.exists():
        return None
    stages = _stages(path)
    bodies = {name: body.get("do", body) for name, body in stages.items()}
    outs = {name: _paths(body, ("outs", "metrics", "plots"), dataset) for name, body in bodies.items()}
    deps = {name: _paths(body, ("deps",), dataset) for name, body in bodies.items()}
    feeds = {b: [a for a in bodies if a != b and _touch(outs[a], deps[b])] for b in bodies}
    order = list(TopologicalSorter({b: sorted(sources) for b, sources in sorted(feeds.items())}).static_order())
    order.sort(key=lambda name: _depth(name, feeds))
    meanings = {name: str(body.get("desc", "")) for name, body in bodies.items()}
    cards = [
        {"name": name, "meaning": meanings[name], "values": _flat(parameters.get(name, {})), "outs": outs[name]}
        for name in order
    ]
    arrows = [(a, b) for b in order for a in feeds[b]]
    nodes = [(name, meanings[name]) for name in order]
    general = {k: v for k, v in parameters.items() if k not in bodies}
    return {
        "chart": stage_graph(nodes, arrows, name="Stages and the outputs they read: " + " → ".join(order)),
        "cards": cards,
        "general": _flat(general),
    }


def _stages(path: Path) -> dict[str, dict[str, Any]]:
    """The stages of dvc.yaml or dvc.lock, by name."""
    content: dict[str, Any] = read_generated_yaml(path) or {}
    return content.get("stages", {})


def _depth(name: str, feeds: Mapping[str, Sequence[str]]) -> int:
    return 1 + max((_depth(source, feeds) for source in feeds[name]), default=0)


def _paths(body: Mapping[str, Any], kinds: Sequence[str], dataset: str) -> list[str]:
    entries: list[str | dict[str, Any]] = []
    for kind in kinds:
        entries += body.get(kind) or []
    names = [entry if isinstance(entry, str) else next(iter(entry)) for entry in entries]
    return [ITEM.sub(dataset, name) for name in names]


def _touch(outs: Sequence[str], deps: Sequence[str]) -> bool:
    """Whether a dependency is an output, or one contains the other."""
    return any((f"{dep}/").startswith(f"{out}/") or (f"{out}/").startswith(f"{dep}/") for out in outs for dep in deps)


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested parameters as dotted names and short texts."""
    pairs: list[tuple[str, str]] = []
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            pairs += _flat(cast("Mapping[str, Any]", value), f"{prefix}{key}.")
        else:
            pairs.append((f"{prefix}{key}", _text(value)))
    return pairs


def _text(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(_text(entry) for entry in cast("Sequence[Any]", value)) or "none"
    if value is None or value == {}:
        return "none"
    return str(value).lower() if isinstance(value, bool) else str(value)


def parameters_yaml(parameters: Mapping[str, Any]) -> str:
    """All resolved parameters, as they could be written in params.yaml."""
    return yaml.safe_dump(dict(parameters), sort_keys=False, allow_unicode=True, width=100)


def provenance(root: Path, inputs: Inputs) -> dict[str, list[tuple[str, str]]]:
    """Hashes and versions of the inputs, without facts of the machine or the time."""
    facts = inputs.facts
    hashes = [
        ("model, sha256", facts["invert"].get("model_sha256") or facts["mixing"].get("model_sha256")),
        ("images, cache key", facts["ingest"].get("cache_key")),
        ("inversion, cache key", facts["invert"].get("cache_key")),
        ("network dtype", facts["edit"].get("dtype") or facts["invert"].get("dtype")),
    ]
    return {
        "hashes": [(name, str(value)) for name, value in hashes if value],
        "locked": _locked(root / "dvc.lock", inputs.dataset),
        "versions": _pinned(root / "constraints.txt"),
    }


def _locked(path: Path, dataset: str) -> list[tuple[str, str]]:
    """Output and its hash in dvc.lock, for every stage of the data set except the report."""
    if not path.exists():
        return []
    mine = [
        body for name, body in _stages(path).items() if name.endswith(f"@{dataset}") and not name.startswith("report@")
    ]
    return sorted((out["path"], str(out.get("md5", ""))) for body in mine for out in body.get("outs", []))


def _pinned(path: Path) -> list[tuple[str, str]]:
    if not path.exists():
        return []
    pairs = [line.split("#")[0].strip().split("==") for line in path.read_text(encoding="utf-8").splitlines()]
    pinned = {pair[0].strip().lower(): pair[1].strip() for pair in pairs if len(pair) == 2}
    return [(name, pinned[name]) for name in VERSIONS if name in pinned]
