"""A finished run in the files that the stages write: three items, two edits, three strengths, 16 x 16 pixels."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from boundaryflow.store.catalog.edit import EDIT, EDITS
from boundaryflow.store.catalog.evaluate import EVALUATE, PER_IMAGE
from boundaryflow.store.catalog.ingest import INGEST, MANIFEST
from boundaryflow.store.catalog.label import LABEL
from boundaryflow.store.shards import ShardTask, complete_shard
from boundaryflow.store.tables import write_json

ITEMS, STRENGTHS = ("aaaa", "bbbb", "cccc"), (0.0, 1.0, 2.0)


def write_run(
    root: Path, edits: tuple[str, ...] = ("hat", "smile"), items: tuple[str, ...] = ITEMS, side: int = 16
) -> None:
    """Pictures, tables and measures. The picture of item i at strength k is 10 i + k all over, its input 200 + i."""
    shard, ids = "shard-0of1-0123456789ab.safetensors", tuple(items)
    task = ShardTask(INGEST.folder("toy", root) / shard, "key", ids, ("",) * len(ids), (), ids)
    numbers = torch.tensor([ITEMS.index(item) for item in items])
    complete_shard(task, {"pixels": (200 + numbers).to(torch.uint8)[:, None, None, None].expand(-1, 3, side, side)})
    MANIFEST.write(
        INGEST.folder("toy", root), pd.DataFrame({"item_id": items, "source": [f"{item}.jpg" for item in items]})
    )
    features = torch.tensor([[1.0, 0.0], [0.9, 0.1], [-1.0, 0.3]])[numbers]
    task = ShardTask(LABEL.folder("toy", root) / shard, "key", ids, ("",) * len(ids), (), ids)
    complete_shard(task, {"features": features})
    rows, judged = [], []
    for edit in edits:
        values = (10 * numbers[:, None] + torch.arange(len(STRENGTHS))).to(torch.uint8)
        task = ShardTask(EDIT.folder("toy", root) / edit / shard, "key", ids, ("",) * len(ids), (), ids)
        complete_shard(task, {"edited": values[:, :, None, None, None].expand(-1, -1, 3, side, side)})
        for row, item in enumerate(items):
            for k, strength in enumerate(STRENGTHS):
                probability = [[0.0, 0.9, 0.95], [0.1, 0.4, 0.7], [0.0, 0.2, 0.3]][ITEMS.index(item)][k]
                rows.append((item, edit, "guided", strength, k, json.dumps({edit: 1}), f"{edit}/{shard}", row))
                judged.append((item, edit, "guided", strength, probability > 0.5, probability, 0.1 * k + 0.01 * row))
    columns = ["item_id", "edit", "method", "strength"]
    EDITS.write(
        EDIT.folder("toy", root),
        pd.DataFrame(rows, columns=[*columns, "strength_index", "targets", "shard", "row"]),
    )
    write_json(EDIT.facts_path("toy", root), {"method": "guided"})
    table = pd.DataFrame(judged, columns=[*columns, "target_success", "target_probability", "drift"])
    PER_IMAGE.write(EVALUATE.folder("toy", root), table.astype({"drift": np.float32}))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A checkout with the run."""
    write_run(tmp_path)
    return tmp_path
