"""The methods on real handwriting, where no truth is known: fours and nines swapped, strokes thicker and thinner.

    make bench NAME=digits ARGS=FOLDER           FOLDER as for training.digits.unpack
    make bench NAME=digits ARGS="FOLDER --check" the default alone, beside what is committed; writes nothing

The shipped judge knows fours and nines only, and is content with a seven. So two judges that no
method was tuned on look at the edits: a classifier of all ten digits (a support vector machine on
pixels), and the measured width of the pen. Writes benches/results/digits.json, its table in
docs/quality.md and docs/images/quality_digits.png.
"""

from __future__ import annotations

import argparse
import io
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from sklearn.svm import SVC
from torch import Tensor

from benches import machine, page
from benches.bench_quality import PAGE, ROOT, settings_of
from benches.quality.pictures import Latents, Pictures
from benches.quality.rows import OURS, all_rows
from boundaryflow.runtime.frozen_model import open_model
from training.digits.unpack import digits_in, stroke_width, with_margin

RESULT, PICTURE = ROOT / "benches/results/digits.json", ROOT / "docs/images/quality_digits.png"
FOUR, NINE = 4, 9
THIN, THICK = 2.9, 3.0  # pixels, as in params.yaml
HELD_OUT = 200  # digits to calibrate on
TUNED_ON = 48  # digits after those, on which certainty and passes of params.yaml were chosen; not measured on


def drawn(archive: Path, digits: list[int], num_each: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """[N,32,32] the first of each digit, and [N] which they are, the digits in turns."""
    found: dict[int, list[NDArray[np.uint8]]] = {digit: [] for digit in digits}
    for _name, digit, data in digits_in(archive, digits):
        if len(found[digit]) < num_each:
            pixels = np.asarray(Image.open(io.BytesIO(data)))
            found[digit].append(np.asarray(Image.open(io.BytesIO(with_margin(pixels)))))
    short = [f"{digit} ({len(of)})" for digit, of in found.items() if len(of) < num_each]
    if short:
        raise SystemExit(f"{archive}: fewer than {num_each} pictures of {', '.join(short)}; ask for fewer")
    return np.stack([found[d][i] for i in range(num_each) for d in digits]), np.tile(digits, num_each)


def pictures_of(pixels: NDArray[np.uint8], digit: NDArray[np.int64]) -> Pictures:
    """Fours and nines as the methods see them."""
    widths = np.array([stroke_width(picture) for picture in pixels])
    x_0 = torch.from_numpy(pixels.astype(np.float32) / 127.5 - 1)[:, None]
    has = {"four_vs_nine": digit == FOUR, "thick": widths > (THIN + THICK) / 2}
    return Pictures(x_0, has, [f"digits-{i}" for i in range(len(pixels))])


def judge(ten: SVC, test: Pictures, attribute: str, edited: Tensor) -> dict[str, list[float]]:
    """Success, damage and change by strength; [N,K,1,32,32] edited."""
    found: dict[str, list[float]] = {name: [] for name in ("success", "kept", "width_change", "rmse")}
    four, before = test.has["four_vs_nine"], pixels_of(test.x_0)
    old_width = np.array([stroke_width(picture) for picture in before])
    for of_strength in edited.unbind(1):
        after = pixels_of(of_strength)
        digit, width = ten.predict(flat(after)), np.array([stroke_width(picture) for picture in after])
        if attribute == "thick":
            success = np.where(test.has["thick"], width < THIN, width > THICK)
            kept = digit == np.where(four, FOUR, NINE)
        else:
            success, kept = digit == np.where(four, NINE, FOUR), np.isin(digit, (FOUR, NINE))
        found["success"].append(float((success & kept).mean()))
        found["kept"].append(float(kept.mean()))
        found["width_change"].append(float(np.abs(width - old_width).mean()))
        found["rmse"].append(float(np.sqrt(((after - before.astype(float)) ** 2).mean((1, 2))).mean() / 255))
    return {name: [round(value, 4) for value in values] for name, values in found.items()}


def pixels_of(x: Tensor) -> NDArray[np.uint8]:
    """[N,32,32] from model range."""
    return ((x[:, 0].clamp(-1, 1) + 1) * 127.5).round().byte().cpu().numpy()


def flat(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """[N,1024] for the classifier of ten digits."""
    return pixels.reshape(len(pixels), -1) / 255


def measure(folder: Path, num_images: int, num_train: int, t_mix: int, only: str | None = None) -> dict[str, Any]:
    """Every row on both edits, or one row."""
    settings = settings_of("digits")
    known, known_digit = drawn(folder / "train.tar.gz", list(range(10)), 800)
    ten = SVC(gamma="scale", C=10.0).fit(flat(known[:6000]), known_digit[:6000])
    accuracy = float((ten.predict(flat(known[6000:])) == known_digit[6000:]).mean())
    known_to_methods = num_train + HELD_OUT
    first = known_to_methods + TUNED_ON
    pixels, digit = drawn(folder / "test.tar.gz", [FOUR, NINE], (first + num_images) // 2)
    every = pictures_of(pixels, digit)
    test = every.take(range(first, len(pixels)))
    model = open_model(str(ROOT / "data/pretrained/digits32"), "auto")
    held_out = every.take(range(num_train, known_to_methods))
    latents = Latents(model, every.take(range(num_train)), held_out, settings["features"])
    rows: dict[str, Any] = {}
    edits: dict[str, dict[str, Tensor]] = {}
    for row in all_rows(model, latents, num_train, t_mix, settings):
        if only not in (None, row.name):
            continue
        started = time.monotonic()
        edits[row.name] = {attribute: row.edit(test, [attribute]) for attribute in test.has}
        rows[row.name] = {
            "strengths": row.strengths,
            "seconds": round(time.monotonic() - started, 1),
            "edits": {attribute: judge(ten, test, attribute, edits[row.name][attribute]) for attribute in test.has},
        }
        print(row.name, {name: of["success"] for name, of in rows[row.name]["edits"].items()}, flush=True)
    return {
        "machine": machine.facts(),
        "settings": {"images": num_images, "train": num_train, "t_mix": t_mix, **settings},
        "judge_of_ten_accuracy": round(accuracy, 4),
        "rows": rows,
        "picture": picture(test, rows, edits),
    }


def best(of_edit: dict[str, list[float]]) -> int:
    """The strength with the largest success; of equals the one that changes least."""
    return min(range(len(of_edit["success"])), key=lambda k: (-of_edit["success"][k], of_edit["rmse"][k]))


def picture(test: Pictures, rows: dict[str, Any], edits: dict[str, dict[str, Tensor]]) -> NDArray[np.uint8]:
    """[H,W] the first twelve digits of each edit: the input, then every row at its best strength."""
    strips = [np.concatenate([*pixels_of(test.x_0[:12]), *pixels_of(test.x_0[:12])], 1)]
    for name, row in rows.items():
        shown = [pixels_of(edits[name][edit][:12, best(of)]) for edit, of in row["edits"].items()]
        strips.append(np.concatenate([image for of_edit in shown for image in of_edit], 1))
    return np.concatenate(strips, 0)


def table(found: dict[str, Any]) -> str:
    """The page's table."""
    names = list(next(iter(found["rows"].values()))["edits"])
    header = ["row", *(f"{name}: {what}" for name in names for what in ("success", "digit kept", "RMSE to the input"))]
    rows = [
        [name, *(f"{of[what][best(of)]:.2f}" for of in row["edits"].values() for what in ("success", "kept", "rmse"))]
        for name, row in found["rows"].items()
    ]
    return page.markdown_table(header, rows)


def main() -> None:
    """Measure, write, and say where."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="with train.tar.gz and test.tar.gz")
    parser.add_argument("--images", type=int, default=96, help="digits to edit")
    parser.add_argument("--num-train", type=int, default=1000, help="digits to fit on")
    parser.add_argument("--t-mix", type=int, default=499, help="mixing step of the single-step rows")
    parser.add_argument("--check", action="store_true", help="measure the default alone, and write nothing")
    asked = parser.parse_args()
    found = measure(asked.folder, asked.images, asked.num_train, asked.t_mix, OURS if asked.check else None)
    if asked.check:
        print("committed:", table({"rows": {OURS: json.loads(RESULT.read_text())["rows"][OURS]}}), sep="\n")
        print("now:", table(found), sep="\n")
        return
    shown = Image.fromarray(found.pop("picture"))
    shown.resize((shown.width * 2, shown.height * 2), Image.Resampling.NEAREST).save(PICTURE, optimize=True)
    RESULT.write_text(json.dumps(found) + "\n")
    page.fill(PAGE, "digits", table(found))
    print(f"written: {RESULT.relative_to(ROOT)}, {PAGE.relative_to(ROOT)}, {PICTURE.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
