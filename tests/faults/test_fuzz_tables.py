"""Mutated settings, tables and tensor files are read, or refused in one line: no crash, no hang, bounded memory."""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.faults
NUM, LIMIT_S, MEMORY_BYTES = 5200, 300, 6 * 2**30
SEED = 20
_INTERESTING = (
    b"\x00", b"\xff", b"\x80", b"{", b"[", b'"', b"\n", b",", b"-1", b"1e999", b"9" * 30, b"\xef\xbb\xbf", b"*a",
    b"&a ",
)  # fmt: skip


def mutated(data: bytes, rng: random.Random) -> bytes:
    """A few bytes changed, cut out, said twice, or put in."""
    body = bytearray(data)
    for _ in range(rng.randint(1, 6)):
        at, length = rng.randrange(len(body) + 1), rng.randint(1, 16)
        kind = rng.randrange(5)
        if kind == 0 and at < len(body):
            body[at] = rng.randrange(256)
        elif kind == 1:
            del body[at : at + length]
        elif kind == 2:
            body[at:at] = body[at : at + length] * rng.randint(1, 50)
        elif kind == 3:
            body[at:at] = rng.choice(_INTERESTING)
        else:
            del body[at : None if rng.random() < 0.2 else at + 1]
    return bytes(body)


def readers(folder: Path) -> Iterator[tuple[str, bytes, Callable[[Path], object]]]:
    """File name, a good file, and what reads it."""
    import torch

    from boundaryflow.boundary import Boundaries, Boundary, Calibration, load_boundaries, save_boundaries
    from boundaryflow.config import ColumnRule, CsvSource, JsonLabels, ParquetLabels, load_params
    from boundaryflow.config.yaml_file import read_yaml
    from boundaryflow.evaluation.judges import JudgeNet, save_judge
    from boundaryflow.evaluation.panel import load_judges
    from boundaryflow.formats.tensor_files import write_tensors
    from boundaryflow.jobs.inspection import tables
    from boundaryflow.labelling import read_celeba, read_hq_mapping
    from boundaryflow.sources.annotations import read_labels
    from boundaryflow.sources.parquet import ParquetPictures
    from boundaryflow.store.shards import read_shard
    from tests.hostile.corpus_labels import TABLES
    from tests.raw_data import encoded, write_parquet

    images = {f"id{i}": f"{i}.png" for i in range(12)}

    def labels(path: Path) -> object:
        source = CsvSource(kind="csv", path=path.name, file_column="file")
        tables.about(path)
        return read_labels(path.parent, source, {"hat": ColumnRule(column=None)}, images, partial=True)

    def json_labels(path: Path) -> object:
        source = JsonLabels(kind="json", path=path.name, file_column=None, per_picture=False)
        tables.about(path)
        return read_labels(path.parent, source, {"hat": ColumnRule(column=None)}, images, partial=True)

    def embedded(path: Path) -> object:
        pictures = ParquetPictures(path)
        names = {f"id{i}": f"e/{i:08d}" for i in range(6)}
        source = ParquetLabels(kind="parquet", path=path.name, image_column=None)
        read_labels(path.parent, source, {"hat": ColumnRule(column=None)}, names, partial=True)
        return [pictures.read(member.key) for member in pictures.members()]

    rows = [(f"{i}.png", i % 2) for i in range(12)]
    comma = "".join(f'"{name}",{hat}\n' for name, hat in rows)
    yield "params.yaml", (ROOT / "params.yaml").read_bytes(), lambda path: load_params(path.parent)
    yield "small.yaml", b"a: &a {x: 1, y: [1.5, 2024-01-01, yes]}\nb: *a\nc: {<<: *a, z: !!str 1}\n", read_yaml
    yield "l.csv", f"file,hat\n{comma}".encode(), labels
    yield "l.tsv", b"file\that\n" + b"".join(f"{name}\t{hat}\n".encode() for name, hat in rows), labels
    yield "l.jsonl", "".join(json.dumps({"file": name, "hat": hat}) + "\n" for name, hat in rows).encode(), labels
    yield "l.parquet", TABLES["Parquet, pandas metadata: a list"](folder / "good").read_bytes(), labels
    objects = {name: {"hat": hat} for name, hat in rows}
    yield "l.json", json.dumps(objects).encode(), json_labels
    good = write_parquet(folder / "good/e.parquet", [encoded(i) for i in range(6)], {"hat": [0, 1] * 3})
    yield "e.parquet", good.read_bytes(), embedded
    yield "celeba.txt", b"3\nhat beard\n000001.jpg 1 -1\n000002.jpg -1 -1\n000003.jpg 1 1\n", read_celeba
    yield "mapping.txt", b"idx orig_idx orig_file\n0 119613 119614.jpg\n1 99094 099095.jpg\n", read_hq_mapping
    yield "partition.txt", b"000001.jpg 0\n000002.jpg 1\n000003.jpg 2\n", tables.about
    hyperplane = Boundary(
        torch.tensor([0.6, 0.8]), 0.5, "h", 300, "hat", "0" * 64, Calibration(1.0, -1.0, 0.5, 0.9, 10)
    )
    found = Boundaries("hat", {"h": replace(hyperplane, normal=hyperplane.normal.clone())}, (hyperplane,))
    save_boundaries(folder / "good" / "b.safetensors", found)
    yield "b.safetensors", (folder / "good" / "b.safetensors").read_bytes(), load_boundaries
    config = {"channels": 3, "widths": [8], "image_size": 16, "num_outputs": 1}
    save_judge(folder / "good" / "judge", "classify", JudgeNet(3, [8], 16, 1, "classify"), config, ["hat"])
    yield (
        "attributes.safetensors",
        next((folder / "good").rglob("attributes.safetensors")).read_bytes(),
        (lambda path: load_judges(path.parent)),
    )
    write_tensors(folder / "good" / "s.safetensors", {"pixels": torch.zeros(2, 3, 4, 4)}, {"schema": "shard/1"})
    yield "s.safetensors", (folder / "good" / "s.safetensors").read_bytes(), read_shard


def fuzz(folder: Path) -> None:
    """In a process of its own, with its memory limited."""
    import resource
    import time

    from boundaryflow.errors import PipelineError

    rng, refused, longest = random.Random(SEED), 0, 0.0
    kinds = list(readers(folder))
    (folder / "now").mkdir()
    (folder / "now" / "data").symlink_to(ROOT / "data")  # what params.yaml names
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    for number in range(NUM):
        name, good, read = kinds[number % len(kinds)]
        path = folder / "now" / name
        path.write_bytes(mutated(good, rng))
        began = time.monotonic()
        try:
            read(path)
        except PipelineError as error:
            refused += 1
            told = str(error)
            lines = told.splitlines() if name == "params.yaml" else [told]  # a line per mistake
            assert all(len(line) < 1000 and line.isprintable() for line in lines), (number, name, told)
        except Exception as error:
            raise AssertionError(f"input {number} ({name}, seed {SEED}): {type(error).__name__}: {error}") from error
        longest = max(longest, time.monotonic() - began)
        path.unlink()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    sys.stdout.write(f"{NUM} inputs, {refused} refused, longest {longest:.1f} s, peak {peak} MiB")


def test_mutated_files_are_read_or_refused(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import sys, pathlib; from tests.faults.test_fuzz_tables import fuzz; "
               "fuzz(pathlib.Path(sys.argv[1]))", str(tmp_path)]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found = re.search(r"(\d+) inputs, (\d+) refused", done.stdout)
    assert found is not None
    assert int(found[2]) > NUM // 4
