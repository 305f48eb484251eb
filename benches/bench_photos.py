"""The methods on photographs that no network here was trained on: CelebA's pictures 008501 to 010000.

    make bench NAME=photos ARGS="CELEBA [--judges FOLDER] [--recognition] [--images 210] [--grid FILE.png]"

CELEBA is the folder of training/faces; FOLDER has judges from elsewhere, with declarations (docs/datasets.md). The
hyperplanes are fitted to CelebA's own labels. Each picture is edited in one attribute, by every row, and judged by the
built-in judge, which was trained on other photographs, and by those of FOLDER. Edits are kept in out/bench_photos: what
was cut off goes on. `--rows` measures some rows and takes over the committed numbers of the others. Writes
benches/results/photos.json and the tables of docs/photos.md. Pictures of people are written there and to FILE alone,
which must lie outside of the repository.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from benches import machine, page
from benches.bench_quality import ROOT, settings_of
from benches.kept import kept
from benches.photos.measure import deliver, measure_edit, same_person
from benches.photos.recognition import FaceRecognition, distances
from benches.photos.tables import BUILT_IN, ELSEWHERE, OURS, bars, tables
from benches.quality.calls import Counted
from benches.quality.guided import Guided
from benches.quality.pictures import Edit, Latents, Pictures
from benches.quality.rows import all_rows
from boundaryflow.diffusion import EpsModel
from boundaryflow.evaluation.panel import Judges, load_judges
from boundaryflow.pixels import to_u8
from boundaryflow.runtime.device import device
from boundaryflow.runtime.fingerprints import code_hash
from boundaryflow.runtime.frozen_model import open_model
from training.faces.pictures import NUM_TRAIN, read_celeba

RESULT, PAGE = ROOT / "benches/results/photos.json", ROOT / "docs/photos.md"
KEEP = ROOT / "out/bench_photos"
COLUMNS = {
    "smiling": "Smiling", "mouth_open": "Mouth_Slightly_Open", "eyeglasses": "Eyeglasses", "beard": "No_Beard",
    "bangs": "Bangs", "blond_hair": "Blond_Hair", "male": "Male",
}  # fmt: skip
"""Attributes that are edited; `beard` is the opposite of CelebA's column."""
HELD_OUT = 200  # to calibrate on
FEW = 100  # labels of the row with few
STRENGTHS = (0.0, 0.5, 0.75, 1.0, 1.25, 1.5)
NO_RESIDUAL = {"gain": 1.0, "preserve": 3.0, "preserve_residual": 0.0, "num_iterations": 2, "stride": 1}
"""The guided edit before features were preserved that no label describes: four times the network calls."""
MIN_PROBABILITY = 0.8
"""As the job `glasses` of params.yaml has it, and its labeller."""
DELIVERED = f"guided, weakest strength of which the labeller is sure ({MIN_PROBABILITY:g})"
BASELINES = ("single step", "paper, as released", "paper, cleaned")


@dataclass(frozen=True)
class PhotoRow:
    """One row of the table.

    Attributes:
        edit: (pictures, attributes) to [N,K,C,H,W] in model range.
        strengths: K, rising; units are the row's own.
        code: The modules that make the edits.
        num_images: Photographs that are edited; the first of those of every attribute.
        num_train: Photographs to fit on.
        settings: What else the edits depend on.
        kept_as: The row whose edits these are, if another's.
        delivered_by: Of each picture only the edit that `bulk-edit` with `MIN_PROBABILITY` would deliver, by this
            labeller; None is every edit.
    """

    edit: Edit
    strengths: tuple[float, ...]
    code: tuple[str, ...]
    num_images: int
    num_train: int
    settings: Mapping[str, Any]
    kept_as: str | None = None
    delivered_by: Judges | None = None


def rows_of(
    model: EpsModel, latents: Latents, num_train: int, num_images: int, num_baseline: int, t_mix: int
) -> dict[str, PhotoRow]:
    """Mirrored photographs, the guided edit with many labels, with few and as it was, and the single-step methods.

    The first say what the judges see changed where nothing is edited. `DELIVERED` is what `bulk-edit` delivers of the
    guided edits.
    """
    settings = settings_of("faces")
    before = {**settings, "guided": {**settings["guided"], **NO_RESIDUAL}}
    mirrored = PhotoRow(lambda some, _: some.x_0.flip(-1)[:, None], (1.0,), (), num_images, 0, {})
    found = {"mirrored, not edited": mirrored}
    for name, labels, images, strengths, how in (
        (OURS, num_train, num_images, STRENGTHS, settings),
        (f"guided, {FEW} labels", FEW, num_baseline, (1.0,), settings),
        ("guided, attributes alone preserved", num_train, num_images, (1.0, 1.5), before),
    ):
        guided = Guided(Counted(model), latents, labels, how)

        def edit(
            pictures: Pictures, attributes: Sequence[str], by: Guided = guided, of: Sequence[float] = strengths
        ) -> Tensor:
            return by.edit(pictures, attributes, of)

        code = ("benches.quality.guided",)
        found[name] = PhotoRow(edit, strengths, code, images, labels, how)
    labeller = load_judges(ROOT / "data/pretrained/faces64_labeller", device())
    found[DELIVERED] = replace(found[OURS], kept_as=OURS, delivered_by=labeller)
    for row in all_rows(model, latents, num_train, t_mix, settings):
        if row.name in BASELINES:
            found[row.name] = PhotoRow(row.edit, row.strengths, row.code, num_baseline, num_train, row.settings)
    return found


def photographs(folder: Path, num_train: int, num_images: int) -> tuple[Pictures, Pictures, Pictures]:
    """To fit on, to calibrate on and to edit."""
    data = read_celeba(folder)
    first = NUM_TRAIN + num_train + HELD_OUT
    if num_train < 1 or num_images < 1 or first + num_images > len(data.pixels):
        most = len(data.pixels) - first
        raise SystemExit(f"photos: --images is {num_images}, must be 1 to {most} with --num-train {num_train}")
    has = {name: data.attributes[:, data.names.index(column)] for name, column in COLUMNS.items()}
    has["beard"] = ~has["beard"]
    every = Pictures(
        torch.from_numpy(data.pixels).float() / 127.5 - 1, has, [f"{k + 1:06d}" for k in range(len(data.pixels))]
    )
    ends = (NUM_TRAIN, NUM_TRAIN + num_train, first, first + num_images)
    to_fit, to_calibrate, to_edit = (every.take(range(a, b)) for a, b in zip(ends, ends[1:], strict=False))
    return to_fit, to_calibrate, to_edit


@cache
def _code_hash(code: tuple[str, ...]) -> str:
    """Of the files as they were when they were first asked for."""
    return code_hash(*code, "benches.quality.pictures")


def edits_of(name: str, row: PhotoRow, attribute: str, some: Pictures, model_sha256: str) -> tuple[Tensor, float]:
    """[N,K,3,H,W] uint8, and the seconds that it took: made, or found where the same code made them before."""
    cache_key = [
        name, row.strengths, row.num_train, attribute, some.ids, _code_hash(row.code), row.settings, model_sha256,
    ]  # fmt: skip

    def make() -> tuple[Tensor, dict[str, Any]]:
        started = time.monotonic()
        edited = to_u8(row.edit(some, [attribute]))
        return edited, {"seconds": time.monotonic() - started}

    edited, about = kept(KEEP, cache_key, make)
    return edited, about["seconds"]


def measure_row(
    name: str,
    row: PhotoRow,
    judges: Mapping[str, Judges],
    recognition: FaceRecognition | None,
    test: Pictures,
    model_sha256: str,
) -> tuple[dict[str, Any], dict[str, tuple[Pictures, Tensor]]]:
    """All attributes of a row, each on its own photographs, and their edits."""
    by_judge: dict[str, dict[str, Any]] = {judge: {} for judge in judges}
    recognised: dict[str, list[list[float]]] = {}
    shown: dict[str, tuple[Pictures, Tensor]] = {}
    delivered: dict[str, list[bool]] = {}
    strengths = [strength for strength in row.strengths if strength]
    seconds, difference = 0.0, 0.0
    for number, attribute in enumerate(COLUMNS):
        some = test.take(range(number, row.num_images, len(COLUMNS)))
        edited, took = edits_of(row.kept_as or name, row, attribute, some, model_sha256)
        seconds += took
        if row.strengths[0] == 0:
            difference = max(difference, float((edited[:, 0].float() - to_u8(some.x_0).float()).abs().max()))
            edited = edited[:, 1:]
        is_delivered = None
        if row.delivered_by is not None:
            edited, is_delivered = deliver(row.delivered_by, some, attribute, edited, strengths, MIN_PROBABILITY)
            delivered[attribute] = is_delivered.tolist()
        shown[attribute] = some, edited
        if recognition is not None:
            recognised[attribute] = distances(recognition, to_u8(some.x_0), edited, is_delivered)
        for judge, networks in judges.items():
            if attribute in networks.attributes:
                by_judge[judge][attribute] = measure_edit(networks, some, attribute, edited, is_delivered)
        success = {judge: [round(sum(k) / len(k), 2) for k in of[attribute]["success"]]
                   for judge, of in by_judge.items() if attribute in of}  # fmt: skip
        print(f"{name}, {attribute}: success {success}, {took:.0f} s", flush=True)
    facts: dict[str, Any] = {
        "is_ours": name.startswith(OURS) and not delivered,
        "strengths": [] if delivered else strengths,
        "num_images": row.num_images,
        "num_train": row.num_train,
        "seconds": round(seconds, 1),
        "judges": by_judge,
        "recognition": recognised,
    }
    if delivered:
        facts["delivered"] = delivered
    elif 0 in row.strengths:
        facts["strength_0_max_difference"] = difference
    return facts, shown


def draw_grid(shown: Sequence[dict[str, tuple[Pictures, Tensor]]], path: Path) -> None:
    """Six pictures of each attribute: the input, then every row at its second strength, or its only one."""
    columns: list[Tensor] = []
    for attribute in COLUMNS:
        num = min(6, *(len(of[attribute][1]) for of in shown))
        strips = [torch.cat(list(to_u8(shown[0][attribute][0].x_0[:num])), 2)]
        for edited in (of[attribute][1] for of in shown):
            strips.append(torch.cat(list(edited[:num, min(1, edited.shape[1] - 1)]), 2))
        columns.append(torch.cat(strips, 1))
    Image.fromarray(torch.cat(columns, 1).permute(1, 2, 0).numpy()).save(path)


def main() -> None:
    """Measure, write, and say where."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("celeba", type=Path, help="folder of the archive and the attributes")
    parser.add_argument("--judges", type=Path, help="folder of judges from elsewhere")
    parser.add_argument("--recognition", action="store_true", help="also measure identity with dlib, if installed")
    parser.add_argument("--images", type=int, default=210, help="photographs to edit, each in one attribute")
    parser.add_argument("--baseline-images", type=int, default=210, help="the same for every row but the first")
    parser.add_argument("--num-train", type=int, default=1000, help="photographs to fit on")
    parser.add_argument("--t-mix", type=int, default=499, help="mixing step of the single-step rows")
    parser.add_argument("--rows", nargs="+", metavar="ROW", help="measure these, and take over the committed others")
    parser.add_argument("--grid", type=Path, help="picture of some edits, outside of the repository")
    asked = parser.parse_args()
    if asked.grid is not None and asked.grid.resolve().is_relative_to(ROOT):
        raise SystemExit(f"photos: --grid {asked.grid} lies in the repository, where no picture of a person belongs")
    committed: dict[str, Any] = json.loads(RESULT.read_text()) if asked.rows else {"rows": {}}
    to_fit, to_calibrate, test = photographs(asked.celeba, asked.num_train, asked.images)
    model = open_model(str(ROOT / "data/pretrained/faces64"), "auto")
    judges = {BUILT_IN: load_judges(ROOT / "data/pretrained/faces64_judges", device())}
    if asked.judges is not None:
        judges[ELSEWHERE] = load_judges(asked.judges, device())
    recognition = FaceRecognition() if asked.recognition else None
    settings = {"num_train": asked.num_train, "t_mix": asked.t_mix, **settings_of("faces")}
    latents = Latents(model, to_fit, to_calibrate, settings["features"])
    rows = rows_of(model, latents, asked.num_train, asked.images, min(asked.images, asked.baseline_images), asked.t_mix)
    if unknown := [name for name in asked.rows or () if name not in rows]:
        raise SystemExit(f"photos: --rows {unknown[0]!r} is not one of {', '.join(rows)}")
    described = {"images": asked.images, "attributes": list(COLUMNS), **settings}
    if asked.rows and committed["settings"] != described:
        raise SystemExit(f"photos: {RESULT.relative_to(ROOT)} was measured with other settings; leave --rows out")
    measured = {
        name: measure_row(name, row, judges, recognition, test, model.sha256)
        for name, row in rows.items()
        if not asked.rows or name in asked.rows
    }
    found: dict[str, Any] = {
        "machine": machine.facts(),
        "settings": described,
        "same_person": round(same_person(judges[BUILT_IN], to_fit), 4),
        "rows": {name: measured[name][0] if name in measured else committed["rows"][name] for name in rows},
    }
    found["bars"] = bars(found)
    if asked.grid is not None:
        draw_grid([shown for _, shown in measured.values()], asked.grid)
    RESULT.write_text(json.dumps(found) + "\n")
    page.fill(PAGE, "photos", tables(found))
    print(f"written: {RESULT.relative_to(ROOT)}, {PAGE.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
