"""The counterfactual benchmark: held-out faces, every attribute flipped the way it is not, by every method.

    make bench NAME=quality                       many hours on two cores
    make bench NAME=quality ARGS="--images 32 --sizes 1000 --ours-only --seeds 0 --mix-steps 12"

Every face is edited on one attribute, so that no face counts twice. Rows are compared at one target
success, which every strength of a row is measured for. Edits are kept in out/bench_quality: what
was cut off goes on, and `--only` makes those of a few rows at a time. `--add` measures a few rows and puts
them among the committed ones. Writes benches/results/quality.json, the tables in docs/quality.md and
docs/performance.md, and docs/images/quality.png.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from benches import machine, page
from benches.quality.calls import Counted
from benches.quality.edits import Made, Plan, every_edit
from benches.quality.guided import Guided
from benches.quality.measure import correlation_difference, judge, judge_features, set_distances
from benches.quality.pictures import Faces, Latents
from benches.quality.summary import bars, curve, front_table, matched_level, tables
from benches.quality.timing import seconds_per_call
from boundaryflow.avatars import ATTRIBUTES
from boundaryflow.config import load_params
from boundaryflow.diffusion import EpsModel
from boundaryflow.evaluation.panel import load_judges
from boundaryflow.labelling.clip_labels import load_clip
from boundaryflow.runtime.device import device
from boundaryflow.runtime.frozen_model import open_model

ROOT = Path(__file__).parents[1]
KEEP = ROOT / "out/bench_quality"
RESULT, PAGE = ROOT / "benches/results/quality.json", ROOT / "docs/quality.md"
PERFORMANCE = ROOT / "docs/performance.md"
PICTURE = ROOT / "docs/images/quality.png"


def settings_of(dataset: str) -> dict[str, Any]:
    """What params.yaml says of the default method on a data set."""
    params = load_params(ROOT).data[dataset].model_dump(mode="json")
    observe = {key: params["observe"][key] for key in ("t_max", "num_steps", "features")}
    boundary = {key: params["boundary"][key] for key in ("min_auc", "neighbours")}
    return {"guided": params["edit"]["guided"], "boundary": boundary, **observe}


def measure(
    plan: Plan, keep: Path, only: Sequence[str] | None, skip: Sequence[str], before: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """All rows at every size, the default one also at the sizes in `ours_only`.

    Args:
        plan: What is measured.
        keep: Folder of the edits, so that a run that was cut off goes on.
        only: Measure these rows; None is all.
        skip: Leave these rows out.
        before: A result of the same plan, whose other rows are taken over; None measures all.
    """
    weights = ROOT / "data/pretrained"
    model = open_model(str(weights / "avatars64"), "auto")
    test, settings = Faces.draw(2, plan.images), settings_of("avatars")
    facts = {**asdict(plan), **settings}
    if before is not None and before["settings"] != json.loads(json.dumps(facts)):
        sys.exit(f"--add: {RESULT.relative_to(ROOT)} was measured with other settings; measure all rows again")
    edits = every_edit(plan, model, test, settings, keep, only, skip)
    made = sorted(edits, key=lambda part: part.size in plan.ours_only)
    judges = load_judges(weights / "avatars64_judges", device())
    clip = load_clip(str(weights / "avatars64_clip/clip.pt"), device())
    features = judge_features(weights / "avatars64_judges")
    rows: dict[str, Any] = dict(before["rows"]) if before else {}
    timed = {part.row.name for part in made} | {name_of(key) for key in rows}
    per_call = seconds_per_call(model, test, settings, plan.t_mix, plan.mix_steps, timed)
    for key, of_row in merged(made).items():
        parts = [part for part in made if part.key == key]
        found = {names: judge(judges, test.take(faces), names, edited) for names, (faces, edited) in of_row.items()}
        singles = {names[0]: of for names, of in found.items() if len(names) == 1}
        sets = [(test.take(of_row[name,][0]), (name,), of_row[name,][1], of["success"]) for name, of in singles.items()]
        calls = float(np.mean([part.calls for part in parts]))
        rows[key] = {
            "what": parts[0].row.what, "strengths": parts[0].row.strengths, "num_train": parts[0].size,
            "is_baseline": parts[0].row.is_baseline,
            "calls": round(calls, 1),
            "attributes": singles,
            "pairs": {" and ".join(names): of for names, of in found.items() if len(names) > 1},
            "cd": mean_correlation_difference(judges.attributes, singles),
            **set_distances(clip.image_features, features, sets),
        }  # fmt: skip
        print(f"{key}: success {curve(singles, 'success')}", flush=True)
    order = list(per_call)
    rows = dict(
        sorted(rows.items(), key=lambda row: (row[1]["num_train"] in plan.ours_only, order.index(name_of(row[0]))))
    )
    for key, row in rows.items():
        row["seconds"] = round(row["calls"] * per_call[name_of(key)], 3)
    return {
        "machine": machine.facts(),
        "settings": facts,
        "strength_0_max_difference": strength_0_difference(model, test, settings),
        "rows": rows,
        "picture": draw_picture(test, rows, made, plan, before),
    }


def name_of(key: str) -> str:
    """A row's name without the number of faces that it was fitted on."""
    return key.split(", n=")[0]


def make_edits(plan: Plan, keep: Path, only: Sequence[str]) -> None:
    """Make and keep the edits of some rows; see `measure`."""
    model = open_model(str(ROOT / "data/pretrained/avatars64"), "auto")
    for _ in every_edit(plan, model, Faces.draw(2, plan.images), settings_of("avatars"), keep, only):
        pass


def mean_correlation_difference(names: Sequence[str], measured: dict[str, Any]) -> list[float]:
    """[K] CD, the mean over the edited attributes; `names` are those of the judges."""
    by_attribute = [
        [correlation_difference(np.array(changes), names.index(name)) for changes in of["changes"]]
        for name, of in measured.items()
    ]
    return np.mean(by_attribute, 0).round(4).tolist()


def merged(made: Iterable[Made]) -> dict[str, dict[tuple[str, ...], tuple[list[int], Tensor]]]:
    """Rows to what is flipped to the faces [N] and their edits [N,K,3,64,64], those of all seeds together."""
    found: dict[str, dict[tuple[str, ...], tuple[list[int], Tensor]]] = {}
    for part in made:
        faces, edited = found.setdefault(part.key, {}).get(part.attributes, ([], part.edited[:0]))
        found[part.key][part.attributes] = [*faces, *part.faces], torch.cat([edited, part.edited])
    return found


def strength_0_difference(model: EpsModel, test: Faces, settings: dict[str, Any]) -> float:
    """How far an edit of strength 0 is from its input, in model range; the number of faces to fit on plays no part."""
    latents = Latents(model, Faces.draw(0, 64), Faces.draw(1, 64), settings["features"])
    some = test.take(range(min(16, len(test.ids))))
    still = Guided(Counted(model), latents, 64, {**settings, "boundary": {"min_auc": 0.5, "neighbours": 0}}).edit(
        some, ["hat"], [0.0]
    )[:, 0]
    return float((still - some.x_0).abs().max())


def draw_picture(
    test: Faces, rows: dict[str, Any], made: Sequence[Made], plan: Plan, before: Mapping[str, Any] | None
) -> Tensor:
    """[3,H,W] two faces for each attribute, the first two of a seed: the input, every row, the truth.

    A row is shown at the strength whose success is nearest above the matched one, else at its strongest. Strips of
    rows that were not made now are taken from the committed picture.
    """
    size = max(plan.sizes)
    level, edits = matched_level(rows, size), merged(made)
    shown = {name: plan.edited_on(name, plan.seeds[0])[:2] for name in ATTRIBUTES}
    committed = committed_strips(before, size)
    strips = [torch.cat([(test.x_0[i] + 1) / 2 for name in ATTRIBUTES for i in shown[name]], 2)]
    for key in shown_rows(rows, size):
        if key not in edits:
            strips.append(committed[key])
            continue
        success = curve(rows[key]["attributes"], "success")
        at = next((k for k, value in enumerate(success) if value >= level - 1e-9), len(success) - 1)
        cells = [edited[:2, at].float() / 255 for edited in (edits[key][name,][1] for name in ATTRIBUTES)]
        strips.append(torch.cat([face for of_attribute in cells for face in of_attribute], 2))
    truths = [test.take(faces).counterfactuals([name])[0] for name, faces in shown.items()]
    strips.append(torch.cat([face for of_attribute in truths for face in of_attribute], 2))
    return torch.cat(strips, 1)


def shown_rows(rows: Mapping[str, Any], size: int) -> list[str]:
    """The rows of the picture, in its order."""
    return [key for key, row in rows.items() if row["num_train"] in (None, size)]


def committed_strips(before: Mapping[str, Any] | None, size: int) -> dict[str, Tensor]:
    """Row to its strip [3,64,W] of the committed picture."""
    if before is None:
        return {}
    pixels = torch.from_numpy(np.array(Image.open(PICTURE).convert("RGB"))).permute(2, 0, 1).float() / 255
    names = shown_rows(before["rows"], size)
    strips = pixels.split(pixels.shape[1] // (len(names) + 2), 1)[1:-1]
    return dict(zip(names, strips, strict=True))


def write(found: dict[str, Any]) -> None:
    """Write the JSON, the page's tables and the picture."""
    picture: Tensor = found.pop("picture")
    found["bars"] = bars(found["rows"], max(found["settings"]["sizes"]), found["strength_0_max_difference"])
    RESULT.write_text(json.dumps(found) + "\n")
    pixels = (picture * 255).round().byte().permute(1, 2, 0).numpy()
    Image.fromarray(pixels).save(PICTURE)
    size = max(found["settings"]["sizes"])
    page.fill(PAGE, "table", tables(found["rows"], found["bars"], size))
    page.fill(PERFORMANCE, "front", front_table(found["rows"], size))


def main() -> None:
    """Measure, write, and say where."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, default=192, help="faces to edit, each on one attribute")
    parser.add_argument("--sizes", type=int, nargs="+", default=[200, 1000], help="faces to fit on")
    parser.add_argument(
        "--ours-only",
        type=int,
        nargs="*",
        default=[100, 4000],
        help="the same, only the default and the first seed",
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of the faces to fit on, in turns")
    parser.add_argument("--t-mix", type=int, default=299, help="mixing step of the single-step rows")
    parser.add_argument("--mix-steps", type=int, default=40, help="timesteps up to the mixing step")
    some = parser.add_mutually_exclusive_group()
    some.add_argument("--only", nargs="+", metavar="ROW", help="make the edits of these rows, and measure nothing")
    some.add_argument("--add", nargs="+", metavar="ROW", help="measure these rows, and take over the committed others")
    parser.add_argument("--skip", nargs="+", default=[], metavar="ROW", help="leave these rows out")
    asked = parser.parse_args()
    plan = Plan(
        asked.images, tuple(asked.sizes), tuple(asked.ours_only), tuple(asked.seeds), asked.t_mix, asked.mix_steps
    )
    if asked.only is not None:
        make_edits(plan, KEEP, asked.only)
        return
    before = json.loads(RESULT.read_text()) if asked.add else None
    found = measure(plan, KEEP, asked.add, asked.skip, before)
    write(found)
    for bar in found["bars"]:
        met = "met" if bar["met"] else "NOT met"
        print(f"{met:7} {bar['name']}: {bar['value']} {bar['interval']} {bar['direction']} {bar['limit']}")
    print(f"written: {RESULT.relative_to(ROOT)}, {PAGE.relative_to(ROOT)}, {PICTURE.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
