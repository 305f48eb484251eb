"""The paper's five set-ups: true architectures at reduced width, made-up pictures in the true layout."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from boundaryflow.config import activate_dataset, copy_entry, filled, load_params, ready_entries
from boundaryflow.diffusion import invert, timestep_path
from boundaryflow.models import load_model
from boundaryflow.pixels import to_model_range
from boundaryflow.store.shards import load_items
from boundaryflow.store.tables import read_table, write_table
from tests.layouts import Shapes, ddpm_layout, iddpm_layout, random_state
from tests.small_project import ROOT, run_here

DDPM256 = ddpm_layout(32, (1, 1, 2, 2, 4, 4), 2, (4,))
NETWORKS: dict[str, Shapes] = {
    "celeba64": ddpm_layout(32, (1, 2, 2, 2, 4), 2, (2,)),
    "celebahq256": DDPM256,
    "church256": DDPM256,
    "bedroom256": DDPM256,
    "afhqdog256": iddpm_layout(32, (1, 1, 2, 2, 4, 4), 1, (4,), resblock_updown=True),
}
# The 40 names of CelebA in their order (METHOD_FACTS 5.4: Male is the 21st, Smiling the 32nd, Young the 40th).
_NAMES = (
    "5_o_Clock_Shadow Arched_Eyebrows Attractive Bags_Under_Eyes Bald Bangs Big_Lips Big_Nose Black_Hair Blond_Hair "
    "Blurry Brown_Hair Bushy_Eyebrows Chubby Double_Chin Eyeglasses Goatee Gray_Hair Heavy_Makeup High_Cheekbones Male "
    "Mouth_Slightly_Open Mustache Narrow_Eyes No_Beard Oval_Face Pale_Skin Pointy_Nose Receding_Hairline Rosy_Cheeks "
    "Sideburns Smiling Straight_Hair Wavy_Hair Wearing_Earrings Wearing_Hat Wearing_Lipstick Wearing_Necklace "
    "Wearing_Necktie Young"
)
NAMES = _NAMES.split()
NUM = 24


def pictures(width: int, height: int, kind: str = "JPEG") -> Iterator[bytes]:
    for index in range(NUM):
        random = np.random.default_rng(index)  # each picture is brighter than the one before
        pixels = (random.integers(0, 256, (8, 8, 3)) * (index + 1) / NUM).astype(np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC).save(buffer, kind)
        yield buffer.getvalue()


def signs(index: int) -> list[str]:
    return ["1" if (index + at) % 2 else "-1" for at in range(len(NAMES))]


def put_celeba64(raw: Path) -> None:
    with zipfile.ZipFile(raw / "img_align_celeba.zip", "w") as archive:
        for index, data in enumerate(pictures(178, 218), 1):
            archive.writestr(f"img_align_celeba/{index:06d}.jpg", data)
    rows = [f"{i:06d}.jpg " + " ".join(f"{v:>2}" for v in signs(i)) for i in range(1, NUM + 1)]
    (raw / "list_attr_celeba.txt").write_text("\n".join([str(NUM), " ".join(NAMES), *rows]) + "\n")
    parts = [f"{i:06d}.jpg {0 if i <= 12 else 1 if i <= 18 else 2}" for i in range(1, NUM + 1)]
    (raw / "list_eval_partition.txt").write_text("\n".join(parts) + "\n")


def put_celebahq256(raw: Path) -> None:
    (raw / "CelebA-HQ-img").mkdir()
    for index, data in enumerate(pictures(300, 300)):
        (raw / f"CelebA-HQ-img/{index}.jpg").write_bytes(data)
    rows = [f"{i}.jpg  " + " ".join(signs(i)) for i in range(NUM)]  # two spaces after the name, as published
    (raw / "CelebAMask-HQ-attribute-anno.txt").write_text("\n".join([str(NUM), " ".join(NAMES), *rows]) + "\n")


def put_lsun(raw: Path, category: str) -> None:
    for part in ("train", "val"):
        folder = str(raw / f"{category}_{part}_lmdb")
        with lmdb.open(folder, map_size=2**24) as database, database.begin(write=True) as at:
            for index, data in enumerate(pictures(300, 256, "WEBP")):
                if (index < 18) == (part == "train"):
                    at.put(f"{index:040x}".encode(), data)


def put_church256(raw: Path) -> None:
    put_lsun(raw, "church_outdoor")


def put_bedroom256(raw: Path) -> None:
    put_lsun(raw, "bedroom")


def put_afhqdog256(raw: Path) -> None:
    for index, data in enumerate(pictures(300, 300)):
        path = raw / ("train" if index < 18 else "val") / "dog" / f"flickr_dog_{index:06d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


@pytest.fixture(autouse=True)
def _however_rare(monkeypatch: pytest.MonkeyPatch) -> None:
    """No attribute is left out as too rare: what CLIP says of 24 pictures of nothing is luck."""
    monkeypatch.setattr("stages.label.too_rare", lambda *_: {})


def prepare(folder: Path, name: str) -> Path:
    """A project with one ready entry, its pictures, and its network at a quarter of the width."""
    raw = folder / "data/raw" / name
    raw.mkdir(parents=True)
    globals()[f"put_{name}"](raw)
    (folder / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    copy_entry(folder / "params.yaml", name, ready_entries(ROOT)[name])
    activate_dataset(folder / "params.yaml", name)
    params = yaml.safe_load((folder / "params.yaml").read_text())
    entry = params["data"][name] = filled(params["defaults"], params["data"][name])
    checkpoint = folder / entry["model"]
    checkpoint.parent.mkdir(parents=True)
    state: Any = random_state(NETWORKS[name])
    if name == "celeba64":
        state = [{f"module.{key}": value for key, value in state.items()}, {}, 1, 2, state]
    torch.save(state, checkpoint)
    # What needs the internet, or the true size of the data, is exchanged; the rest of the entry stays as it is.
    clip = str(ROOT / "data/pretrained/avatars64_clip/clip.pt")
    if entry["label"]["source"]["kind"] == "clip":
        entry["label"]["source"]["weights"] = clip
    entry["evaluate"]["clip"] = None
    entry["dtype"] = "float32"
    entry["boundary"]["min_confidence"] = 0.5
    params["datasets"] = [name]
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    return folder


def test_there_is_an_entry_for_each_of_the_five() -> None:
    assert set(ready_entries(ROOT)) == set(NETWORKS)


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_entry_runs_up_to_the_inversion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    project = prepare(tmp_path, name)
    run_here(project, monkeypatch, "ingest", "label", dataset=name)
    entry = load_params(project).dataset(name)
    manifest = read_table(project / f"data/ingest/{name}/manifest.parquet", schema="manifest/1")
    assert (manifest["status"] == "ok").sum() == NUM
    assert manifest["split"].value_counts().get("test", 0) >= 1
    if entry.ingest.split != load_params(ROOT).data["avatars"].ingest.split:
        assert (manifest["split"] == "test").sum() == 6  # those that the partition or the folder says
    labels = read_table(project / f"data/label/{name}/labels.parquet", schema="labels/1")
    assert list(labels.columns) == ["item_id", *entry.label.attributes]
    assert labels.drop(columns="item_id").notna().all(axis=None)
    if "old" in labels:
        assert ((labels["old"] + labels["young"]) == 1).all()
    model = load_model(project / entry.model)
    assert (model.image_size, model.channels) == (entry.ingest.image_size, 3)
    pixels = load_items(project / f"data/ingest/{name}", manifest["item_id"].tolist()[:1], ["pixels"])["pixels"]
    inversion = invert(model, to_model_range(pixels), timestep_path(500, 2))
    assert bool(torch.isfinite(inversion.x_mix).all())


def say_bright(labels: Path, ingested: Path) -> None:
    """The brighter half of each split has every attribute: CLIP's word on pictures of nothing is luck."""
    table = read_table(labels, schema="labels/1")
    splits = read_table(ingested / "manifest.parquet", schema="manifest/1").set_index("item_id")["split"]
    pixels = load_items(ingested, table["item_id"].tolist(), ["pixels"])["pixels"]
    brightness = table.assign(brightness=pixels.float().mean((1, 2, 3)).numpy())["brightness"]
    of_split = brightness.groupby(table["item_id"].map(splits))
    for name in table.columns.drop("item_id"):
        table[name] = (brightness > of_split.transform("median")).astype(np.float32)
    write_table(labels, table, schema="labels/1")


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_entry_runs_to_its_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    project = prepare(tmp_path, name)
    params = yaml.safe_load((project / "params.yaml").read_text())
    entry = params["data"][name] = filled(params["defaults"], params["data"][name])
    entry["mixing"].update(rule="fixed", fixed_t=400, num_images=8, num_sampled=2, num_steps=3)
    entry["invert"].update(num_steps=3)
    entry["boundary"].update(num_bootstraps=2)
    entry["edit"].update(max_images=8, strengths=[0.0, 1.0])
    if not isinstance(entry["ingest"]["split"], dict) or "path" not in entry["ingest"]["split"]:
        entry["ingest"]["split"]["val"] = 0.3
    (project / "params.yaml").write_text(yaml.safe_dump(params))
    run_here(project, monkeypatch, "ingest", "label", dataset=name)
    say_bright(project / f"data/label/{name}/labels.parquet", project / f"data/ingest/{name}")
    run_here(project, monkeypatch, "mixing", "invert", "boundary", "edit", "evaluate", "report", dataset=name)
    assert (project / f"data/report/{name}/index.html").is_file()
