"""Outputs of a labelling network for a data set's images, stored in shards: a run computes only those of new images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from boundaryflow.evaluation.panel import Judges, judge_files, load_judges
from boundaryflow.files import file_sha256
from boundaryflow.labelling.clip_labels import ClipLabeller, load_clip
from boundaryflow.pixels import to_model_range
from boundaryflow.runtime.device import device
from boundaryflow.runtime.fingerprints import code_hash
from boundaryflow.runtime.sharding import run_sharded
from boundaryflow.store.fingerprint import fingerprint
from boundaryflow.store.shard_files import in_batches
from boundaryflow.store.shards import ShardTask, load_items
from boundaryflow.store.tables import read_json

_BATCH = 256  # features read at once
_CALL = 32  # images in every network call: the last bits of a feature depend on the batch size
Kind = Literal["clip", "classifier"]


@lru_cache(maxsize=1)
def _open_clip(weights: str, _content: str, where: torch.device) -> ClipLabeller:
    """Loaded once per process, and again if the file's content has changed, as Dask workers outlive a run."""
    return load_clip(weights, where)


@lru_cache(maxsize=1)
def _open_classifiers(weights: str, _content: str, where: torch.device) -> Judges:
    """Loaded once per process, and again if the files' content has changed."""
    return load_judges(Path(weights), where)


def run_shard(task: ShardTask, *, ingested: str, weights: str, content: str, kind: Kind) -> dict[str, Tensor]:
    """Features [n,d] float32 of the images that one shard lacks: of CLIP, or probabilities by classifiers."""
    pixels = load_items(Path(ingested), task.missing, ["pixels"])["pixels"]
    padded = F.pad(pixels, (0, 0, 0, 0, 0, 0, 0, -len(pixels) % _CALL))
    if kind == "clip":
        network = _open_clip(weights, content, device()).image_features
    else:
        network = _open_classifiers(weights, content, device()).probabilities
    features = [network(to_model_range(some, (0.0, 1.0))).cpu() for some in padded.split(_CALL)]
    return {"features": torch.cat(features)[: len(pixels)]}


@dataclass(frozen=True)
class ImageFeatures:
    """The features of a data set's images.

    Attributes:
        ingested: Folder of the pixels.
        out: Folder of the shards of features.
        weights: Weights of CLIP (see `labelling.clip_labels.load_clip`), or a folder of judges with classifiers.
        shard_size: See `boundaryflow.store.shards.plan_shards`.
        kind: Which of the two.
    """

    ingested: Path
    out: Path
    weights: str
    shard_size: int
    kind: Kind

    @property
    def clip(self) -> ClipLabeller:
        """CLIP on this machine's device, loaded once per process."""
        return _open_clip(self.weights, self._content, device())

    @property
    def classifiers(self) -> Judges:
        """The classifiers on this machine's device, loaded once per process."""
        return _open_classifiers(self.weights, self._content, device())

    @cached_property
    def _content(self) -> str:
        """Hash of the weights, or their name if that is not the path of a file or folder."""
        path = Path(self.weights)
        if self.kind == "classifier":
            return fingerprint(files={file.name: file_sha256(file) for file in judge_files(path)})
        return file_sha256(path) if path.is_file() else self.weights

    def update(self, item_ids: Sequence[str]) -> int:
        """Compute the missing features of these images; returns for how many images they were computed."""
        cache_key = fingerprint(
            stage="label",
            code=code_hash("boundaryflow.runtime.image_features"),
            weights=self._content,
            kind=self.kind,
            upstream=read_json(self.ingested / "ingest.json")["cache_key"],
        )
        network = {"weights": self.weights, "content": self._content, "kind": self.kind}
        context = {"ingested": str(self.ingested), **network}
        return run_sharded("label", self.out, item_ids, cache_key, self.shard_size, run_shard, context)

    def read(self, item_ids: Sequence[str]) -> Iterator[tuple[list[int], Tensor]]:
        """Features, some images at a time: their positions in `item_ids`, and [b,d]."""
        place = {item: position for position, item in enumerate(item_ids)}
        for batch in in_batches(self.out, item_ids, _BATCH):
            yield [place[item] for item in batch], load_items(self.out, batch, ["features"])["features"]
