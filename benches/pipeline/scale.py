"""What grows with the number of images and should not: memory, planning, and what ingest takes beside decoding.

    python -m benches.pipeline.scale PART ARGUMENTS

Each part prints one line of JSON.
"""

from __future__ import annotations

import io
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from benches.alone import alone
from benches.bars import Bar, bar
from benches.checkout import ROOT, copy_checkout
from benches.pipeline import daily
from boundaryflow.runtime.metering import cost_path
from boundaryflow.sources.images import decode_image
from boundaryflow.store.shards import plan_shards
from boundaryflow.store.tables import read_table, write_table
from tests.small_project import write_project

ROWS = (1_000, 10_000, 100_000)
NUM_JPEGS, JPEG_SIDE, INGEST_SIDE = 10_000, 512, 256
NUM_PLANNED = 1_000_000
LABELS: dict[str, Any] = {
    "source": {"kind": "csv", "path": "labels.csv", "file_column": "file"},
    "attributes": {"bright": {"column": None}},
}
STAGES = ("ingest", "label", "mixing", "invert", "observe", "boundary", "edit", "evaluate")


def memory(num: int) -> dict[str, Any]:
    """What the stages take on so many tiny pictures, with a tiny network, and what people run afterwards."""
    with tempfile.TemporaryDirectory(dir=ROOT / "out") as name:
        root = _tiny(copy_checkout(Path(name)), num)
        found: dict[str, Any] = {"num": num}
        for stage in ("params", "listing", *STAGES):
            found[stage] = run_stage(root, stage)
        command = [sys.executable, "-m", "dvc", "commit", "--quiet", "--force"]
        subprocess.run(
            [*command, *(f"{stage}@avatars" for stage in ("params", "listing", *STAGES))], cwd=root, check=True
        )
        return found | daily.measure(root)


def _tiny(root: Path, num: int) -> Path:
    """A project on a folder of pictures of 16 x 16 pixels, each with a label."""
    write_project(
        root, ingest__source={"kind": "folder"}, ingest__shard_size=256, ingest__split={"val": 0.05, "test": 0.5},
        label=LABELS, edit__edits={"bright": {"bright": "flip"}}, edit__max_images=num, edit__method="single_step",
        invert__num_steps=2, observe__max_images=500, boundary__max_per_class=500, evaluate__counterfactuals=False,
    )  # fmt: skip
    raw = root / "data/raw/avatars"
    raw.mkdir(parents=True, exist_ok=True)
    chance = np.random.default_rng(0)
    rows: list[tuple[str, int]] = []
    for number in range(num):
        has = number % 2
        pixels = chance.integers(0, 128, (16, 16, 3), np.uint8) + np.uint8(127 * has)
        Image.fromarray(pixels).save(raw / f"{number:06d}.png", compress_level=0)
        rows.append((f"{number:06d}.png", has))
    pd.DataFrame(rows, columns=["file", "bright"]).to_csv(raw / "labels.csv", index=False)
    return root


def run_stage(root: Path, stage: str) -> dict[str, float]:
    """Run a stage in a process of its own; what it took."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "BOUNDARYFLOW_PROGRESS": "off"}
    environment |= {"DVC_STAGE": stage, "DVC_ROOT": str(root)}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", f"stages.{stage}", "avatars"], cwd=root, env=environment, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    cost = json.loads(cost_path(root, stage).read_text())
    return {"seconds": cost["seconds"], "cpu_s": round(cpu_s, 3), "peak_mib": cost["peak_mib"]}


def ingest(num: int) -> dict[str, Any]:
    """Seconds of stage ingest for so many JPEGs, and of nothing but decoding them on all cores."""
    with tempfile.TemporaryDirectory(dir=ROOT / "out") as name:
        root = Path(name)
        write_project(
            root, ingest__source={"kind": "folder"}, ingest__shard_size=64, ingest__image_size=INGEST_SIDE,
            label=LABELS, edit__edits={"bright": {"bright": "flip"}}, evaluate__counterfactuals=False,
        )  # fmt: skip
        config = root / "data/pretrained/tiny/config.json"  # ingest wants a model of the size that it is to make
        config.write_text(json.dumps({**json.loads(config.read_text()), "sample_size": INGEST_SIDE // 2}))
        files = _jpegs(root / "data/raw/avatars", num)
        (root / "data/raw/avatars/labels.csv").write_text("file,bright\n")
        geometry: dict[str, Any] = {"size": INGEST_SIDE, "channels": 3, "fit": "crop", "background": (255, 255, 255)}

        def decode(path: Path) -> None:
            decode_image(path.read_bytes(), **geometry)

        def decode_all() -> float:
            started = time.perf_counter()
            with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
                for _ in pool.map(decode, files):
                    pass
            return time.perf_counter() - started

        run_stage(root, "listing")
        before = decode_all()
        whole = run_stage(root, "ingest")["seconds"]
        return {"num": num, "stage_s": whole, "decode_s": (before + decode_all()) / 2}


def _jpegs(folder: Path, num: int) -> list[Path]:
    """Pictures with as much detail as photographs have; all differ."""
    folder.mkdir(parents=True, exist_ok=True)
    chance = np.random.default_rng(0)
    coarse = [Image.fromarray(chance.integers(0, 255, (48, 48, 3), np.uint8)) for _ in range(16)]
    buffers: list[bytes] = []
    for picture in coarse:
        buffer = io.BytesIO()
        picture.resize((JPEG_SIDE, JPEG_SIDE), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
        buffers.append(buffer.getvalue())
    files = [folder / f"{number:06d}.jpg" for number in range(num)]
    for number, file in enumerate(files):
        file.write_bytes(buffers[number % 16] + number.to_bytes(4, "big"))  # what follows the picture's end is not read
    return files


def planning(num: int) -> dict[str, Any]:
    """Seconds from a manifest of so many rows to the shards to write."""
    with tempfile.TemporaryDirectory(dir=ROOT / "out") as name:
        path = Path(name) / "manifest.parquet"
        items = [f"{number * 2654435761 % 2**64:016x}" for number in range(num)]
        write_table(path, pd.DataFrame({"item_id": items, "status": "ok"}), schema="manifest/1")

        def plan() -> dict[str, Any]:
            manifest = read_table(path, schema="manifest/1")
            wanted = sorted(manifest.loc[manifest["status"] == "ok", "item_id"])
            return {"num_shards": len(plan_shards(Path(name) / "shards", wanted, "bench", 64).tasks)}

        return {"num": num, **daily.measured(plan)}


def start_s(*arguments: str) -> float:
    """Seconds of a Python process, the median of nine."""
    seconds: list[float] = []
    for _ in range(9):
        started = time.perf_counter()
        subprocess.run([sys.executable, *arguments], cwd=ROOT, check=True, capture_output=True)
        seconds.append(time.perf_counter() - started)
    return round(statistics.median(seconds), 3)


def help_s() -> float:
    """Seconds of `boundaryflow --help`."""
    return start_s("-m", "flows.cli", "--help")


def measure() -> dict[str, Any]:
    """All parts, each in a process of its own."""
    found: dict[str, Any] = {"memory": [_alone("memory", num) for num in ROWS]}
    found |= {"ingest": _alone("ingest", NUM_JPEGS), "planning": _alone("planning", NUM_PLANNED)}
    return found | {"help": {"seconds": help_s()}}


def _alone(part: str, num: int) -> dict[str, Any]:
    found = alone("benches.pipeline.scale", part, num)
    print(part, found, flush=True)
    return found


def bars(found: dict[str, Any]) -> list[Bar]:
    """What is asked of it."""
    few, many = found["memory"][0], found["memory"][-1]
    more = many["num"] - few["num"]
    grown = {stage: (many[stage]["peak_mib"] - few[stage]["peak_mib"]) * 2**20 / more for stage in STAGES}
    worst = max(grown, key=lambda stage: grown[stage])
    ratio = max(many[stage]["peak_mib"] / few[stage]["peak_mib"] for stage in STAGES)
    return [
        bar("`--help`, s", found["help"]["seconds"], 0.5, "<="),
        bar(f"peak memory of a stage at {many['num']:,} rows, by that at {few['num']:,}", ratio, 1.5, "<="),
        bar(f"memory that a further row takes in the worst stage ({worst}), bytes", grown[worst], 5000, "<="),
        bar(f"ingest of {found['ingest']['num']:,} JPEGs, by decoding them on all cores",
            found["ingest"]["stage_s"] / found["ingest"]["decode_s"], 1.3, "<="),
        bar(f"{found['planning']['num']:,} rows planned, s", found["planning"]["seconds"], 10, "<="),
    ]  # fmt: skip


def main(arguments: Sequence[str]) -> None:
    """Measure a part."""
    part, num = arguments
    (ROOT / "out").mkdir(exist_ok=True)
    print(json.dumps({"memory": memory, "ingest": ingest, "planning": planning}[part](int(num))))


if __name__ == "__main__":
    main(sys.argv[1:])
