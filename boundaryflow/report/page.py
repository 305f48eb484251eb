"""Renders all sections into one index.html that opens offline."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from boundaryflow.files import write_bytes
from boundaryflow.report import cards, pipeline, sections
from boundaryflow.report.comparison import read_comparison
from boundaryflow.report.grids import Pictures
from boundaryflow.report.inputs import Inputs
from boundaryflow.report.numbers import estimates, shown_metrics, shown_strengths

TEMPLATES = Path(__file__).parent / "templates"


def write_page(
    inputs: Inputs,
    out: Path,
    *,
    root: Path,
    parameters: Mapping[str, Any],
    seed: int,
    num_grid: int,
    num_strips: int,
    num_failures: int,
) -> Path:
    """Write index.html and its pictures, which replace those of an earlier report; other files stay.

    Args:
        inputs: Outputs of the stages.
        out: Folder of the report.
        root: Folder of dvc.yaml, dvc.lock and constraints.txt; each may be missing.
        parameters: Resolved parameters of the data set.
        seed: Seed of the draw of images.
        num_grid: Images per edit.
        num_strips: Images per edit shown at every strength.
        num_failures: Length of each list of failures.

    Returns:
        Path of index.html.
    """
    pictures = Pictures(inputs, out)
    metrics = [] if inputs.per_image is None else shown_metrics(inputs.per_image)
    found, distances = (
        ({}, []) if inputs.per_image is None else estimates(inputs.per_image, metrics, inputs.facts["evaluate"])
    )
    best, rule = shown_strengths(inputs.per_image, inputs.edit_names, inputs.strengths)
    compared = read_comparison(inputs, metrics)
    targets: Mapping[str, Mapping[str, str]] = inputs.facts["edit"].get("edits", {})
    context = {
        "dataset": inputs.dataset,
        "facts": _facts(inputs),
        "seed": seed,
        "rule": rule,
        "cards": cards.edit_cards(inputs, pictures, best, found, targets, compared, num_grid=num_grid, seed=seed),
        "compared": compared.title if compared else None,
        "guided": inputs.is_guided,
        "strengths": inputs.strengths,
        "strips": cards.strips(inputs, pictures, best, num_strips=num_strips, seed=seed),
        "samples": cards.samples(inputs, pictures),
        "metrics": [*metrics, *distances],
        "judged": any(metric.column == "target_success" for metric in metrics),
        "tiles": cards.overall(inputs, metrics),
        "table": cards.table(inputs, [*metrics, *distances], found, best, compared) if metrics else [],
        "curves": cards.response_curves(inputs, found, best),
        "failures": cards.failures(inputs, pictures, best, num_failures=num_failures),
        "mixing": sections.mixing(inputs),
        "boundaries": sections.boundaries(inputs),
        "graph": pipeline.graph(root, inputs.dataset, parameters),
        "parameters": pipeline.parameters_yaml(parameters),
        "images": sections.images(inputs),
        "labels": sections.labels(inputs),
        "provenance": pipeline.provenance(root, inputs),
    }
    path = _render(context, out)
    pictures.remove_former()
    return path


def _render(context: Mapping[str, Any], out: Path) -> Path:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    path = out / "index.html"
    write_bytes(path, environment.get_template("index.html.j2").render(context).encode())
    return path


def _facts(inputs: Inputs) -> list[tuple[str, str]]:
    """The facts under the title."""
    usable = inputs.manifest[inputs.manifest["status"] == "ok"]
    first = inputs.pixels([str(usable["item_id"].min())])[0] if len(usable) else None
    edited = inputs.edits["item_id"].nunique()
    split = f" of the {inputs.facts['edit']['split']} split" if "split" in inputs.facts["edit"] else ""
    facts = [
        ("images", f"{len(usable)}"),
        ("size", "" if first is None else f"{first.shape[-1]} px, {'grey' if first.shape[0] == 1 else 'RGB'}"),
        ("edits", f"{len(inputs.edit_names)}"),
        (f"edited images{split}", f"{edited}"),
        ("t_mix", "" if inputs.is_guided else str(inputs.facts["mixing"].get("t_mix", ""))),
    ]
    return [fact for fact in facts if fact[1]]
