"""The report: a whole page from made-up stage outputs, the same bytes each time, and nothing from outside."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from boundaryflow.avatars import ATTRIBUTES, render, sample_avatars
from boundaryflow.errors import ManifestError, ParamsError
from boundaryflow.report.figures import Line, line_chart, ticks
from boundaryflow.report.grids import counterfactual, drawn
from boundaryflow.report.inputs import read_inputs
from boundaryflow.report.numbers import estimates, shown_metrics, shown_strengths, with_clean_success
from boundaryflow.report.pipeline import graph, provenance
from boundaryflow.store.tables import read_table, write_table
from stages.report import draw_readme, run
from tests.report.report_data import DVC_YAML, PARAMETERS, write_inputs

SETTINGS: dict[str, Any] = {"parameters": PARAMETERS, **PARAMETERS["report"]}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("project")
    write_inputs(root / "data")
    (root / "dvc.yaml").write_text(DVC_YAML)
    (root / "constraints.txt").write_text("torch==2.15.0\nnumpy==2.4.1  # pinned\n")
    (root / "dvc.lock").write_text(
        "stages:\n  ingest@avatars:\n    cmd: x\n    outs:\n    - {path: data/ingest/avatars, md5: abc.dir}\n"
        "  report@avatars:\n    cmd: x\n    outs:\n    - {path: data/report/avatars, md5: self.dir}\n"
    )
    return root


@pytest.fixture
def project(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "project"))


@pytest.fixture(scope="module")
def page(made: Path) -> str:
    return run("avatars", root=made, **SETTINGS).read_text(encoding="utf-8")


def _bytes_of(folder: Path) -> Mapping[str, str]:
    files = (f for f in sorted(folder.rglob("*")) if f.is_file())
    return {str(f.relative_to(folder)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


def test_page_has_every_section(page: str) -> None:
    sections = re.findall(r'<section id="([a-z]+)"', page)
    assert sections == [
        "edits", "strengths", "numbers", "curves", "failures", "mixing", "boundaries", "data", "pipeline", "provenance",
    ]  # fmt: skip
    assert "t_mix = 500" in page
    assert "12.25" in page
    assert ">KID" not in page
    assert "raw images to pixels of one size" in page
    assert "truncated: 812 of 4096 bytes" in page
    assert "cut&lt;off&gt;.jpg" in page
    assert "abc.dir" in page
    assert "self.dir" not in page


def test_page_speaks_of_the_method_that_made_the_edits(page: str, project: Path) -> None:
    assert "edit.eps_scale" in page
    assert "Followed from" not in page
    shutil.rmtree(project / "data")
    write_inputs(project / "data", methods={"guided": 1.0})
    guided = run("avatars", root=project, **SETTINGS).read_text(encoding="utf-8")
    assert "edit.eps_scale" not in re.sub(r"(?s)<section id=\"(pipeline|provenance)\".*", "", guided)
    assert "1 a typical member of the other side" in guided
    assert "Where a single step would edit: t_mix = 500" in guided
    assert "Followed from timestep 300 down, where noised images have an AUC of 0.74, to 0 with 0.95." in guided


def test_page_shows_the_method_that_edits_are_compared_with(project: Path) -> None:
    shutil.rmtree(project / "data")
    write_inputs(project / "data", methods={"guided": 1.0, "single_step": 0.4})
    path = run("avatars", root=project, **SETTINGS)
    html = path.read_text(encoding="utf-8")
    assert "Where the single step edits: t_mix = 500" in html
    assert "the row <b>single step</b> is the paper's method" in html
    ours = read_inputs(project, "avatars")
    theirs = ours.compared
    assert theirs is not None
    assert (ours.method, theirs.method) == ("guided", "single_step")
    best, _rule = shown_strengths(theirs.per_image, theirs.edit_names, theirs.strengths)
    for edit in ("beard", "hat"):
        assert f"<td>single step, {best[edit]:g}</td>" in html
        pictures = re.findall(rf'<figure class="compared"><img src="(images/{edit}\.single_step/[^"]+)"', html)
        assert len(pictures) == SETTINGS["num_grid"]
        for picture in pictures:
            item, index = Path(picture).stem.split("-")
            with Image.open(path.parent / picture) as shown:
                there = theirs.edited(edit, [item])[0, int(index)]
                np.testing.assert_array_equal(np.asarray(shown), there.transpose(1, 2, 0))
            assert theirs.strengths[int(index)] == best[edit]
    assert len(re.findall(r"</span><small>single step ", html)) >= 4  # a tile each


def test_page_of_guided_edits_alone_tells_of_their_boundaries(project: Path) -> None:
    shutil.rmtree(project / "data")
    write_inputs(project / "data", methods={"guided": 1.0})
    for name, schema in (("boundary/avatars/boundaries", "boundaries/1"), ("boundary/avatars/scores", "scores/1"),
                         ("mixing/avatars/curves", "curves/1")):  # fmt: skip
        path = project / "data" / f"{name}.parquet"
        write_table(path, read_table(path, schema=schema)[:0], schema=schema)
    html = run("avatars", root=project, **SETTINGS).read_text(encoding="utf-8")
    assert '<section id="mixing"' not in html
    assert "Hyperplanes between noised images, which guided edits follow" in html
    assert "Followed from timestep 300 down" in html


@pytest.mark.parametrize(
    ("features", "words"),
    [
        (None, "the bottleneck h of the network"),
        ({"layer": None, "pool": None}, "the bottleneck h of the network"),
        ({"layer": "mid_block", "pool": None}, "the output of the network&#39;s layer mid_block"),
        ({"layer": "up_blocks.1", "pool": 4}, "the output of the network&#39;s layer up_blocks.1, averaged to 4 x 4"),
    ],
    ids=["earlier version", "bottleneck", "layer", "pooled layer"],
)
def test_page_says_which_features_the_hyperplanes_of_guided_edits_lie_in(
    features: dict[str, Any] | None, words: str, project: Path
) -> None:
    shutil.rmtree(project / "data")
    write_inputs(project / "data", methods={"guided": 1.0})
    path = project / "data/edit/avatars/edit.json"
    facts = {key: value for key, value in json.loads(path.read_text()).items() if key != "features"}
    path.write_text(json.dumps(facts if features is None else {**facts, "features": features}))
    html = run("avatars", root=project, **SETTINGS).read_text(encoding="utf-8")
    assert f"The hyperplanes that guided edits follow lie in {words}" in html


def test_page_opens_offline(page: str, made: Path) -> None:
    assert not re.search(r"https?://|//cdn|@import|url\(", page)
    folder = made / "data/report/avatars"
    wanted = set(re.findall(r'src="([^"]+)"', page))
    for frames in re.findall(r'data-frames="(images[^"]+)"', page):
        wanted |= set(frames.split("|"))
    there = {str(file.relative_to(folder)) for file in folder.rglob("*.png")}
    assert {unquote(name) for name in wanted} <= there
    assert all(re.search(r'alt="', tag) for tag in re.findall(r"<img [^>]+>", page))


def test_run_twice_gives_same_bytes(project: Path) -> None:
    folder = run("avatars", root=project, **SETTINGS).parent
    first = _bytes_of(folder)
    (folder / "images/input/0123456789abcdef.png").write_bytes(b"from an older run")
    (folder / "notes.txt").write_bytes(b"of the user")
    run("avatars", root=project, **SETTINGS)
    assert (folder / "notes.txt").exists()
    (folder / "notes.txt").unlink()
    assert _bytes_of(folder) == first


def test_missing_inputs_leave_their_sections_out(project: Path) -> None:
    for name in ("evaluate", "mixing", "boundary", "label", "invert"):
        shutil.rmtree(project / "data" / name)
    (project / "data/ingest/avatars/factors.parquet").unlink()
    for name in ("dvc.yaml", "dvc.lock", "constraints.txt"):
        (project / name).unlink()
    html = run("avatars", root=project, **SETTINGS).read_text()
    assert re.findall(r'<section id="([a-z]+)"', html) == ["edits", "strengths", "data", "provenance"]
    assert "opens at the largest strength" in html
    assert "truth" not in re.sub(r"<(style|script)>.*?</\1>", "", html, flags=re.S).lower()


def test_without_edits_says_what_to_run(project: Path) -> None:
    shutil.rmtree(project / "data/edit")
    with pytest.raises(ManifestError, match=r"edit.avatars.manifest\.parquet: no such file; run `boundaryflow run`"):
        run("avatars", root=project, **SETTINGS)


def test_readme_picture_is_labelled_grid_and_repeats(project: Path) -> None:
    path = draw_readme("avatars", project / "docs/images/edits.png", seed=0, root=project)
    first = path.read_bytes()
    with Image.open(path) as picture:
        assert picture.width > 2 * 128
        assert picture.height > 3 * 128
    assert draw_readme("avatars", path, seed=0, root=project).read_bytes() == first
    with pytest.raises(ParamsError, match=r"must end in \.png"):
        draw_readme("avatars", project / "edits.jpg", seed=0, root=project)


def test_drawn_stays_the_same_when_items_join() -> None:
    few, many = [f"{k:016x}" for k in range(50)], [f"{k:016x}" for k in range(80)]
    before, after = drawn(few, 50, seed=1, purpose="x"), drawn(many, 30, seed=1, purpose="x")
    kept = [item for item in after if item in few]
    assert kept == before[: len(kept)]
    assert drawn(reversed(few), 10, seed=1, purpose="x") == before[:10]
    assert drawn(few, 10, seed=2, purpose="x") != before[:10]


def test_counterfactual_is_the_renderers_own_picture() -> None:
    (avatar,) = sample_avatars(1, np.random.default_rng(0))
    factors = pd.DataFrame([{"item_id": "a", **avatar.attributes, **avatar.factors}]).set_index("item_id")
    truth = counterfactual(factors, "a", {"hat": 1, "beard": -1}, 32)
    assert truth is not None
    expected = render(avatar.with_attribute("hat", True).with_attribute("beard", False), 32)
    assert truth.tobytes() == expected.tobytes()
    assert counterfactual(factors, "a", {"four": 1}, 32) is None
    assert counterfactual(None, "a", {ATTRIBUTES[0]: 1}, 32) is None


def _per_image() -> pd.DataFrame:
    rows = [("hat", 0.0, False, 0), ("hat", 1.0, True, 0), ("hat", 2.0, True, 1), ("hat", 3.0, True, 0)]
    return pd.DataFrame(rows, columns=["edit", "strength", "target_success", "num_others_flipped"])


def test_best_strength_has_enough_target_success_and_nearest_to_1_wins_tie() -> None:
    table = with_clean_success(_per_image())
    best, rule = shown_strengths(table, ["hat"], [0.0, 1.0, 2.0, 3.0])
    assert best == {"hat": 1.0}
    assert "target success" in rule
    assert shown_strengths(None, ["hat"], [0.0, 1.0, 3.0])[0] == {"hat": 3.0}
    stated = {"2": {"clean_success_low": 0.0, "clean_success_high": 0.79, "clip_fd": 1.5, "clip_kd": None}}
    found, distances = estimates(table, shown_metrics(table), {"edits": {"hat": stated}})
    clean = found["hat", 2.0]["clean_success"]
    assert (clean.mean, clean.low, clean.high, clean.num) == (0.0, 0.0, 0.79, 1)
    assert np.isnan(found["hat", 1.0]["clean_success"].low)  # nobody drew it: not drawn here either
    assert [metric.column for metric in distances] == ["clip_fd"]
    assert found["hat", 2.0]["clip_fd"].mean == 1.5


def test_without_judge_recovery_chooses() -> None:
    table = pd.DataFrame({"edit": "hat", "strength": [0.0, 1.0, 2.0], "counterfactual_recovery": [0.0, -0.1, -0.5]})
    assert shown_strengths(with_clean_success(table), ["hat"], [0.0, 1.0, 2.0])[0] == {"hat": 1.0}


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0.0, 1.0, [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]), (-1.0, 1.0, [-1.0, -0.5, 0.0, 0.5, 1.0]), (2.0, 2.0, [2.0])],
)
def test_ticks_are_round(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high) == expected


def test_line_chart_breaks_at_unknown_values_and_escapes() -> None:
    line = Line([0, 1, 2, 3], [0.0, 1.0, float("nan"), 1.0], "<b>", "c1")
    svg = str(line_chart([line], name='"q"', x_label="x", y_label="y"))
    assert svg.count("<polyline") == 2
    assert "&lt;b&gt;" in svg
    assert "<b>" not in svg
    assert "nan" not in svg


def test_graph_follows_dvc_yaml(made: Path) -> None:
    found = graph(made, "avatars", PARAMETERS)
    assert found is not None
    assert [card["name"] for card in found["cards"]] == [
        "ingest", "label", "mixing", "invert", "boundary", "edit", "evaluate",
    ]  # fmt: skip
    mixing = next(card for card in found["cards"] if card["name"] == "mixing")
    assert mixing["values"] == [("rule", "separability"), ("tolerance", "0.02")]
    assert found["general"] == [("model", "data/pretrained/avatars64"), ("dtype", "auto"), *_report_values()]


def _report_values() -> list[tuple[str, str]]:
    return [(f"report.{key}", str(value)) for key, value in PARAMETERS["report"].items()]  # no such stage in DVC_YAML


def test_provenance_comes_from_files(made: Path) -> None:
    found = provenance(made, read_inputs(made, "avatars"))
    assert found["versions"] == [("torch", "2.15.0"), ("numpy", "2.4.1")]
    assert found["locked"] == [("data/ingest/avatars", "abc.dir")]
    assert ("model, sha256", "cd" * 32) in found["hashes"]
