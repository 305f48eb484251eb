"""Files that are damaged, disks that are full or cannot be written to, clocks that are wrong, images that change."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from boundaryflow.avatars import render, sample_avatars
from boundaryflow.errors import PipelineError
from boundaryflow.store.tables import read_table
from tests.faults.checkout import PERSISTENT
from tests.faults.tally import Tally, broken_shards
from tests.small_project import command, content, environment, run_here, run_stage, write_project

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]
READER = {"ingest": "invert", "invert": "boundary", "observe": "boundary", "edit": "evaluate"}


def _flip_payload(path: Path, _others: list[Path], rng: random.Random) -> None:
    data = bytearray(path.read_bytes())
    data[rng.randrange(len(data) * 3 // 4, len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)


def _flip_header(path: Path, _others: list[Path], rng: random.Random) -> None:
    data = bytearray(path.read_bytes())
    data[rng.randrange(0, 200)] ^= 1 << rng.randrange(8)
    path.write_bytes(data)


def _cut(path: Path, _others: list[Path], rng: random.Random) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: rng.randrange(len(data))])


def _empty(path: Path, _others: list[Path], _rng: random.Random) -> None:
    path.write_bytes(b"")


def _swap(path: Path, others: list[Path], rng: random.Random) -> None:
    path.write_bytes(rng.choice(others).read_bytes())


@pytest.mark.parametrize("stage", PERSISTENT)
@pytest.mark.parametrize("damage", [_flip_payload, _flip_header, _cut, _empty, _swap])
def test_damaged_shard_is_found_and_made_again(
    project: Path,
    stage: str,
    damage: Callable[[Path, list[Path], random.Random], None],
    tally: Tally,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    undisturbed, rng = content(project / "data"), random.Random(f"{stage} {damage.__name__}")
    for _ in range(3):
        shards = sorted((project / "data" / stage).rglob("shard-*.safetensors"))
        victim = rng.choice(shards)
        damage(victim, [path for path in shards if path != victim], rng)
        run_here(project, monkeypatch, stage)
        tally.count("damaged shard (bits flipped, cut, emptied, exchanged)", undisturbed, content(project / "data"))


@pytest.mark.parametrize("stage", PERSISTENT)
def test_damaged_shard_is_told_of_by_the_stage_that_reads_it(
    project: Path, stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = random.Random(stage)
    for victim in sorted((project / "data" / stage).rglob("shard-*.safetensors")):
        _flip_payload(victim, [], rng)
    for path in (project / "data" / READER[stage]).rglob("shard-*"):
        path.unlink()
    with pytest.raises(PipelineError, match=r"shard .*: its content and its header do not match; run"):
        run_here(project, monkeypatch, READER[stage])


TABLES = ("ingest/avatars/manifest.parquet", "label/avatars/labels.parquet", "edit/avatars/manifest.parquet",
          "ingest/avatars/ingest.json", "mixing/avatars/mixing.json", "invert/avatars/invert.json",
          "observe/avatars/observe.json", "boundary/avatars/hat.safetensors")  # fmt: skip
READERS_OF_TABLES = ("invert", "boundary", "evaluate", "invert", "invert", "edit", "edit", "edit")


@pytest.mark.parametrize(("table", "reader"), list(zip(TABLES, READERS_OF_TABLES, strict=True)), ids=TABLES)
def test_truncated_table_is_one_line_and_made_again(
    project: Path, table: str, reader: str, tally: Tally, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed, path = content(project / "data"), project / "data" / table
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(PipelineError, match=path.name.replace(".", r"\.")) as told:
        run_here(project, monkeypatch, reader)
    assert len(str(told.value).splitlines()) == 1
    run_here(project, monkeypatch, table.partition("/")[0], reader)
    tally.count("truncated Parquet, JSON or boundary file", undisturbed, content(project / "data"))


@pytest.fixture
def small_disk(project: Path) -> Iterator[Callable[..., None]]:
    """The latents of the project on a disk of their own; called with mount options it is mounted anew with them."""
    folder = project / "data/invert/avatars"
    shutil.rmtree(folder)
    folder.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], capture_output=True, text=True, check=False
    )
    if made.returncode:
        pytest.skip(f"needs a mount, which takes root: {made.stderr.strip()}")

    def remount(options: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{options}", folder], check=True)

    yield remount
    subprocess.run(["umount", folder], check=True)


def test_full_disk(finished: Path, project: Path, small_disk: Callable[..., None], tally: Tally) -> None:
    result = run_stage(project, "invert")
    assert result.returncode == 2, result.stderr
    assert "No space left on device; free some space (`boundaryflow gc` shows what can go)" in result.stderr
    assert "Traceback" not in result.stderr
    assert not list((project / "data/invert").rglob("*.tmp"))
    assert broken_shards(project / "data/invert") == []
    small_disk("size=64m")
    assert run_stage(project, "invert").returncode == 0
    tally.count("full disk", content(finished / "data"), content(project / "data"))


def test_folder_that_cannot_be_written_to(
    finished: Path, project: Path, small_disk: Callable[..., None], tally: Tally
) -> None:
    small_disk("size=64m,ro")
    result = run_stage(project, "invert")
    assert result.returncode == 2, result.stderr
    assert "Read-only file system; mount it for writing" in result.stderr
    assert "Traceback" not in result.stderr
    small_disk("size=64m,rw")
    assert run_stage(project, "invert").returncode == 0
    tally.count("read-only output folder", content(finished / "data"), content(project / "data"))


@pytest.mark.parametrize("then", [1.0, 4e9], ids=["1970", "2096"])
def test_clock_that_is_wrong(
    project: Path, then: float, tally: Tally, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    undisturbed = content(project / "data")
    for path in (project / "data").rglob("*"):
        os.utime(path, (then, then))
    monkeypatch.setattr("time.time", lambda: then)
    with caplog.at_level("INFO"):
        run_here(project, monkeypatch, *PERSISTENT)
    assert caplog.text.count(", 0 images to compute") == len(PERSISTENT)
    tally.count("clock moved by decades", undisturbed, content(project / "data"))


@pytest.mark.parametrize("stage", PERSISTENT)
def test_stage_started_twice_at_once(finished: Path, project: Path, stage: str, tally: Tally) -> None:
    for path in (project / "data" / stage).rglob("shard-*"):
        path.unlink()
    env = environment(DVC_STAGE=f"{stage}@avatars", DVC_ROOT=str(project))
    running = [subprocess.Popen(command(stage), cwd=project, env=env, stderr=subprocess.DEVNULL) for _ in range(2)]
    assert [process.wait() for process in running] == [0, 0]
    shutil.rmtree(project / ".dvc")
    tally.count("a stage started twice at once", content(finished / "data"), content(project / "data"))


def test_raw_image_that_is_changed_or_removed(
    tmp_path: Path, tally: Tally, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = write_project(tmp_path / "project", ingest__source={"kind": "folder"}, evaluate__counterfactuals=False,
                           label={"source": {"kind": "csv", "path": "labels.csv", "file_column": "file"},
                                  "attributes": {"hat": {"column": None}, "dark_skin": {"column": None}}})  # fmt: skip
    raw = folder / "data/raw/avatars"
    raw.mkdir(parents=True)
    faces = sample_avatars(40, np.random.default_rng(0))
    rows = ["file,hat,dark_skin"]
    for index, face in enumerate(faces):
        render(face, 16).save(raw / f"{index:02d}.png")
        rows.append(f"{index:02d}.png,{int(face.attributes['hat'])},{int(face.attributes['dark_skin'])}")
    (raw / "labels.csv").write_text("\n".join(rows) + "\n")
    run_here(folder, monkeypatch, "ingest", "label")
    undisturbed = content(folder / "data")
    victim, kept = raw / "07.png", (raw / "07.png").read_bytes()
    for change in (lambda: victim.unlink(), lambda: victim.write_bytes(kept[:100]), lambda: victim.write_bytes(b"")):
        change()
        with caplog.at_level("INFO"):
            run_here(folder, monkeypatch, "ingest")
        manifest = read_table(folder / "data/ingest/avatars/manifest.parquet", schema="manifest/1").set_index("source")
        assert "07.png" not in manifest.index or manifest.loc["07.png", "status"] == "bad"
        assert (manifest["status"] == "ok").sum() == 39, "no other image is lost"
        victim.write_bytes(kept)
        run_here(folder, monkeypatch, "ingest")
        tally.count("raw image removed or damaged, then restored", undisturbed, content(folder / "data"))


def test_memory_that_is_limited(project: Path, tally: Tally) -> None:
    undisturbed = content(project / "data/edit")
    for path in (project / "data/edit").rglob("shard-*"):
        path.unlink()
    script = (
        "import sys, torch, stages.edit, resource\n"
        "from boundaryflow.models.frozen import FrozenModel\n"
        "forward = FrozenModel._forward\n"
        "def limited(self, x_t, *rest, **options):\n"
        "    if len(x_t) > 4:\n"
        "        with open('/proc/self/statm') as file:\n"
        "            used = int(file.read().split()[0]) * resource.getpagesize()\n"
        "        resource.setrlimit(resource.RLIMIT_AS, (used + 2**20, resource.RLIM_INFINITY))\n"
        "        try:\n"
        "            torch.empty(2**28).fill_(0)\n"
        "        finally:\n"
        "            resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))\n"
        "    return forward(self, x_t, *rest, **options)\n"
        "FrozenModel._forward = limited\n"
        "sys.argv = ['edit', 'avatars']\n"
        "stages.edit.main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=project, env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "not enough memory for 32 images at once" in done.stderr
    assert "going on with 4" in done.stderr
    tally.count("memory limit", undisturbed, content(project / "data/edit"))
