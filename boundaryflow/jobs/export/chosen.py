"""Which edited pictures are exported, and whether their names are fit for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from boundaryflow.errors import ManifestError
from boundaryflow.review.verdicts import accepted_only
from boundaryflow.store.catalog.edit import EDIT, EDITS
from boundaryflow.store.catalog.evaluate import EVALUATE, PER_IMAGE
from boundaryflow.store.outbox_record import is_within
from boundaryflow.text import visible


def choose(
    dataset: str,
    root: Path,
    *,
    edits: Sequence[str],
    strengths: Sequence[float],
    weakest: float | None,
    method: str | None,
    accepted: bool,
) -> tuple[pd.DataFrame, int]:
    """Rows of `EDITS`, and the number of pictures that are left out; see `export_images`."""
    folder = EDIT.folder(dataset, root)
    path = folder / EDITS.file
    if not path.is_file():
        raise ManifestError(f"{path}: nothing was edited yet; run `boundaryflow run --dataset {dataset}` first")
    manifest = EDITS.read(folder)
    chosen = _only(manifest, "method", [_method(dataset, root, method, accepted=accepted)], path)
    chosen = _only(chosen, "edit", edits, path)
    chosen = _only(chosen, "strength", strengths, path)
    num_left_out = 0
    if accepted:
        chosen, num_left_out = accepted_only(chosen, dataset, root)
    if weakest is not None:
        num_pairs = len(chosen[["item_id", "edit"]].drop_duplicates())
        chosen = _weakest(chosen, weakest, EVALUATE.folder(dataset, root), dataset)
        num_left_out = num_pairs - len(chosen)
    if chosen.empty and weakest is None:
        raise ManifestError(f"{path}: none of the {num_left_out} accepted pictures is among these; review them again")
    if chosen.empty and weakest is not None:
        raise ManifestError(
            f"{path}: at none of the strengths does the judge give any image's edit a probability of {weakest:g}; ask "
            "for less, or edit with greater edit.strengths"
        )
    return chosen, num_left_out


def check_names(stems: Mapping[str, str], sources: Mapping[str, str], at: str) -> None:
    """Refuse two images whose edits would have the same name, and names that lead out of where they are written.

    Args:
        stems: Item to the name of its edits, without suffix.
        sources: Item to the name of its file.
        at: What is exported, for messages.

    Raises:
        ManifestError: There are such.
    """
    owners: dict[str, str] = {}
    for item in sorted(stems):
        source = sources.get(item, "")
        other = owners.setdefault(stems[item], item)
        if other != item:
            raise ManifestError(
                f"{at}: the edits of {sources.get(other, '')} and {source} would have the same name; export with "
                "--names item"
            )
        if not is_within(f"{stems[item]}."):
            raise ManifestError(f"{at}: the edits of {visible(source)} cannot have its name; export with --names item")


def _method(dataset: str, root: Path, method: str | None, *, accepted: bool) -> str:
    """The method whose pictures are exported."""
    own: str = EDIT.read_facts(dataset, root)["method"]
    if accepted and method not in (None, own):
        raise ManifestError(
            f"export {dataset}: pictures of {method} are not reviewed, only those of {own}; leave --method out"
        )
    return method or own


def _only(manifest: pd.DataFrame, column: str, wanted: Sequence[str] | Sequence[float], path: Path) -> pd.DataFrame:
    known = sorted(manifest[column].unique().tolist())
    for value in wanted:
        if value not in known:
            listed = ", ".join(str(entry) for entry in known)
            raise ManifestError(f"{path}: there is no {column} {value}; there are {listed}")
    return manifest[manifest[column].isin(list(wanted))] if wanted else manifest


def _weakest(chosen: pd.DataFrame, probability: float, evaluated: Path, dataset: str) -> pd.DataFrame:
    """Per image and edit, the picture with the smallest strength above 0 that reaches this probability."""
    again, path = f"run `boundaryflow run --dataset {dataset}` first", evaluated / PER_IMAGE.file
    if not path.is_file():
        raise ManifestError(f"{path}: no edit was judged yet; {again}")
    judged = PER_IMAGE.read(evaluated)
    if "target_probability" not in judged:
        raise ManifestError(
            f"{path}: no judge decided whether edits succeeded; name judges in evaluate.judges, and {again}"
        )
    keys = ["item_id", "edit", "method", "strength"]
    known = chosen[chosen["strength"] != 0].merge(
        judged[[*keys, "target_probability"]], on=keys, how="left", indicator="found"
    )
    if (known["found"] != "both").any():
        raise ManifestError(f"{path}: is older than these edits; {again}")
    unjudged = sorted(set(known.loc[known["target_probability"].isna(), "edit"]))
    if unjudged:
        raise ManifestError(f"{path}: the judge does not measure edit {unjudged[0]}; choose others with --edit")
    sure = known[known["target_probability"] >= probability].drop(columns=["target_probability", "found"])
    return sure.sort_values("strength", key=abs, kind="stable").drop_duplicates(["item_id", "edit"])
