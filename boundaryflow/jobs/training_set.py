"""A set for training code: pictures in a folder per group, with a table of labels and provenance."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd

from boundaryflow.jobs.delivery import facts_of
from boundaryflow.store.outbox import Outbox
from boundaryflow.store.tables import table_bytes

METADATA, SCHEMA = "metadata.parquet", "augmented/1"
_COLUMNS = ["file_name", "item_id", "source", "synthetic", "edit", "strength", "probability", "judged_by", "boundary"]
_UNITS = {
    "strength": "as edit.strengths in params.yaml; empty of images that were not edited",
    "probability": "labeller's probability of the requested change",
    "label_*": "1 has it, 0 does not, empty: unknown; edits have the labels of their source, except for the change",
}


def group_name(attributes: Sequence[str], group: Sequence[bool]) -> str:
    """Folder of a group, such as `hat-1_smiling-0`."""
    return "_".join(f"{name}-{int(has)}" for name, has in zip(attributes, group, strict=True))


class TrainingSet:
    """Writes pictures, then the table of all of them, then removes the pictures of an earlier set that are not in it.

    Args:
        box: Outbox to write to.
        facts: Facts of every picture: dataset, job, job_hash, model_sha256.
    """

    def __init__(self, box: Outbox, facts: Mapping[str, str]) -> None:
        self._box, self._facts = box, dict(facts)
        self._rows: list[dict[str, Any]] = []

    def put(
        self,
        file_name: str,
        file: Callable[[Mapping[str, str]], bytes],
        facts: Mapping[str, Any],
        labels: Mapping[str, int],
    ) -> None:
        """Write one picture.

        Args:
            file_name: Path within the set.
            file: From its facts to its file.
            facts: Provenance.
            labels: Attribute to 1 or 0.
        """
        row = {"file_name": file_name, **facts, **self._facts}
        self._box.write(file_name, file(facts_of({**row, "labels": dict(labels)})))
        self._rows.append({**row, **{f"label_{name}": value for name, value in labels.items()}})

    def commit(self) -> None:
        """Write the table of all pictures of `put`, then remove pictures of an earlier set."""
        table = pd.DataFrame(self._rows)
        labels = sorted(str(name) for name in table.columns if str(name).startswith("label_"))
        table = table.reindex(columns=[*_COLUMNS, *self._facts, *labels])
        table = table.sort_values("file_name", ignore_index=True).astype(
            {**dict.fromkeys(labels, "Int8"), "strength": "float64", "probability": "float64", "synthetic": "bool"}
        )
        self._box.write(METADATA, table_bytes(table, schema=SCHEMA, units=_UNITS))
        self._box.remove_others(set(table["file_name"]))
        self._rows = []
