"""Images drawn from noise, each with single attributes off and on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from boundaryflow.boundary import Boundaries, load_boundaries
from boundaryflow.diffusion import EpsModel
from boundaryflow.editing.editor import EditSettings
from boundaryflow.editing.sampling import GuidedSampler, Sampler, SingleStepSampler, drawn_noise
from boundaryflow.pixels import to_u8
from boundaryflow.runtime.device import device
from boundaryflow.runtime.editor import open_editor
from boundaryflow.runtime.fingerprints import code_hash, describe
from boundaryflow.runtime.frozen_model import open_model
from boundaryflow.runtime.memory import in_chunks
from boundaryflow.runtime.process import tick
from boundaryflow.runtime.sharding import run_sharded
from boundaryflow.store.fingerprint import fingerprint
from boundaryflow.store.shard_files import keep_only
from boundaryflow.store.shards import ShardTask


def open_sampler(
    model: EpsModel, settings: EditSettings, seed: int, preserved: Sequence[Boundaries], strength: float = 1.0
) -> Sampler:
    """The sampler of the chosen method, guided or single step, with its networks on this machine's device."""
    settings = _at(settings, strength)
    made_by = GuidedSampler if settings.is_guided else SingleStepSampler
    return made_by(model, settings, open_editor(model, settings, seed), seed, preserved)


def single_attributes(edits: Iterable[Iterable[str]]) -> list[str]:
    """The attributes that an edit changes alone, each once; of edits only what they change is taken."""
    alone = [list(targets) for targets in edits]
    return sorted({targets[0] for targets in alone if len(targets) == 1})


def off_and_on(
    model: EpsModel,
    settings: EditSettings,
    seed: int,
    ids: Sequence[str],
    boundaries: Sequence[Boundaries],
    preserved: Sequence[Boundaries],
) -> dict[str, Tensor]:
    """Draw some images, and change each attribute of each at strength 1.

    Args:
        model: The frozen model.
        settings: Of the edits.
        seed: Seed of all noise.
        ids: B of `boundaryflow.editing.sampling.sample_ids`.
        boundaries: Of the A attributes.
        preserved: Boundaries of the attributes that edits of others preserve.

    Returns:
        `drawn` [B,C,H,W] uint8, the images as drawn; `has` [B,A], whether they have each attribute by its hyperplane;
        `changed` [B,A,C,H,W] uint8, without the attribute where an image has it, else with it.
    """
    sampler = open_sampler(model, settings, seed, preserved)
    drawn = sampler.draw(drawn_noise(model, seed, ids).to(device()))
    has = sampler.has(drawn, ids, boundaries)
    signs = torch.where(has, -1.0, 1.0)
    changed = sampler.changed(drawn, ids, [([of], signs[:, [row]]) for row, of in enumerate(boundaries)])
    pictures = [to_u8(some, model.value_range).cpu() for some in (sampler.images(drawn), *changed)]
    return {"drawn": pictures[0], "has": has, "changed": torch.stack(pictures[1:], 1)}


def draw_samples(
    out: Path,
    items: Sequence[str],
    *,
    model: str,
    model_sha256: str,
    settings: EditSettings,
    seed: int,
    attributes: Sequence[str],
    preserved: Sequence[str],
    files: Mapping[str, Path],
    segmenter_sha256: str | None,
    shard_size: int,
) -> None:
    """Bring a folder of shards with the tensors of `off_and_on` up to date.

    Args:
        out: The folder.
        items: What it should have, of `boundaryflow.editing.sampling.sample_ids`; none empties it.
        model: See `boundaryflow.models.load_model`.
        model_sha256: Its hash.
        settings: Of the edits; their strengths do not matter.
        seed: Seed of all noise.
        attributes: What is changed.
        preserved: What the edits of others preserve.
        files: Attribute to the file of its boundaries.
        segmenter_sha256: Hash of the segmenter of `settings.mask`.
        shard_size: See `boundaryflow.store.shards.plan_shards`.
    """
    if not items:
        keep_only(out, ())
        return
    settings = _at(settings, 1.0)
    known = {attribute: load_boundaries(file) for attribute, file in sorted(files.items())}
    cache_key = fingerprint(
        stage="samples",
        code=code_hash(__name__),
        model=model_sha256,
        seed=seed,
        attributes=list(attributes),
        preserved=list(preserved),
        boundaries={attribute: describe(of, guided=settings.is_guided) for attribute, of in known.items()},
        segmenter=segmenter_sha256,
        **settings.used,
    )
    context = {"model": model, "settings": settings, "seed": seed, "attributes": list(attributes)}
    context |= {"preserved": list(preserved), "files": {attribute: str(file) for attribute, file in files.items()}}
    run_sharded("samples", out, items, cache_key, shard_size, draw_shard, context)


def draw_shard(
    task: ShardTask,
    *,
    model: str,
    settings: EditSettings,
    seed: int,
    attributes: Sequence[str],
    preserved: Sequence[str],
    files: Mapping[str, str],
) -> dict[str, Tensor]:
    """The images that one shard still lacks; see `draw_samples`."""
    net = open_model(model, settings.dtype)
    known = {attribute: load_boundaries(Path(file)) for attribute, file in files.items()}

    def draw_some(some: slice) -> dict[str, Tensor]:
        ids = task.missing[some]
        made = off_and_on(net, settings, seed, ids, [known[a] for a in attributes], [known[a] for a in preserved])
        tick(len(ids))
        return made

    parts = in_chunks(len(task.missing), draw_some, net)
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _at(settings: EditSettings, strength: float) -> EditSettings:
    """The settings with one strength, and deterministic, as the inversion was that the boundaries saw."""
    return replace(settings, strengths=[strength], eta=0.0)
