from __future__ import annotations

import io
import os
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from boundaryflow.errors import ManifestError
from boundaryflow.review.app import create_app
from boundaryflow.review.verdicts import Change, Verdicts
from boundaryflow.store.catalog.edit import EDIT, EDITS
from boundaryflow.store.catalog.evaluate import EVALUATE
from boundaryflow.store.catalog.label import LABEL
from boundaryflow.store.catalog.review import REVIEW, VERDICTS
from flows.prefect_server import SameOrigin
from tests.unit.review.conftest import write_run

HOST, TOKEN = "127.0.0.1:8123", "secret"


class _Page:
    """The server as a browser sees it, at the address with the secret."""

    def __init__(self, root: Path) -> None:
        app = SameOrigin(create_app("toy", root, TOKEN), HOST)
        self.client = TestClient(app, base_url=f"http://{HOST}")
        self.generation = self.get("api/facts").json()["generation"]

    def get(self, path: str, **query: Any) -> Any:
        return self.client.get(f"/{TOKEN}/{path}", params=query or None)

    def order(self, **query: Any) -> list[int]:
        answer = self.get("api/order", generation=self.generation, **query)
        assert answer.status_code == 200, answer.text
        return np.frombuffer(answer.content, "<i4").tolist()

    def rows(self, *cases: int) -> list[dict[str, Any]]:
        return self.get("api/cases", generation=self.generation, ids=",".join(map(str, cases))).json()

    def decide(self, *changes: dict[str, Any], **more: Any) -> Any:
        body = {"generation": self.generation, "changes": changes, **more}
        return self.client.post(f"/{TOKEN}/api/verdicts", json=body)


@pytest.fixture
def page(root: Path) -> _Page:
    return _Page(root)


def _pixel(data: bytes, x: int) -> int:
    with Image.open(io.BytesIO(data)) as picture:
        return np.asarray(picture.convert("L"))[8, x]


def test_only_who_has_the_address_is_answered(page: _Page) -> None:
    for path in ("/", "/api/facts", "/wrong/api/facts", f"//{TOKEN}/", f"/{TOKEN}x/", "/secr\u00e9t/"):
        assert page.client.get(path).status_code == 404, path
    assert page.client.post("/wrong/api/verdicts", json={}).status_code == 404
    answer = page.client.get(f"/{TOKEN}")  # sent on to the address with the slash
    assert "<title>Review" in answer.text
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert (answer.headers["referrer-policy"], answer.headers["cache-control"]) == ("no-referrer", "no-store")
    assert "access-control-allow-origin" not in answer.headers


def test_another_host_or_origin_is_refused(page: _Page) -> None:
    for headers in (
        {"Host": "localhost:8123"},
        {"Host": "evil.example"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
    ):
        assert page.client.get(f"/{TOKEN}/api/facts", headers=headers).status_code == 403
        assert page.client.post(f"/{TOKEN}/api/verdicts", headers=headers, json={}).status_code == 403
    assert page.client.get(f"/{TOKEN}/api/facts", headers={"Origin": f"http://{HOST}"}).status_code == 200


def test_page_asks_for_nothing_from_elsewhere(page: _Page) -> None:
    for name in ("", "style.css", "script.js"):
        text = page.get(name).text.replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?:|url\(|@import|src=\"//", text), name
    assert page.get("../app.py").status_code == 404
    assert page.get("static/script.js").status_code == 404
    assert page.get("docs").status_code == 404


def test_facts_tell_edits_strengths_and_measures(page: _Page) -> None:
    facts = page.get("api/facts").json()
    assert (facts["num"], facts["size"], facts["strengths"]) == (6, 16, [0.0, 1.0, 2.0])
    assert facts["edits"] == [{"name": "hat", "num": 3}, {"name": "smile", "num": 3}]
    assert list(facts["measures"]) == ["success", "probability", "uncertainty", "drift"]
    assert sum(facts["measures"]["drift"]["counts"]) == 6
    assert facts["counts"] == {"open": 6, "accepted": 0, "rejected": 0}


def test_cases_come_page_by_page_in_the_order_that_was_asked_for(page: _Page) -> None:
    assert page.order() == [0, 1, 2, 3, 4, 5]
    order = page.order(sort="probability", descending="1", edit="smile", mode="1")
    assert order == [3, 4, 5]
    first, second = page.rows(*order[:2])
    assert (first["item"], first["edit"], first["source"]) == ("aaaa", "smile", "aaaa.jpg")
    assert first["measures"]["probability"] == [0.0, 0.9, 0.95]
    assert second["measures"]["uncertainty"] == pytest.approx([0.2, 0.8, 0.6])
    assert page.order(sort="uncertainty", descending="1", edit="hat", mode="1") == [1, 2, 0]


def test_filters_leave_what_is_asked_for(page: _Page) -> None:
    assert page.order(success="0.5..1", mode="2") == [0, 1, 3, 4]
    assert page.order(success="0.5..1", mode="1") == [0, 3]
    assert page.order(drift="0.105..0.115", mode="1") == [1, 4]
    assert page.order(find="bbbb.j") == [1, 4]
    assert page.order(find="BBBB") == []
    page.decide({"case": 4, "strength": 2, "verdict": "accepted"}, {"case": 0, "strength": 1, "verdict": "rejected"})
    assert page.order(state="accepted") == [4]
    assert page.order(state=["accepted", "rejected"]) == [0, 4]
    assert page.order(strength="1.5..3", mode="1") == [4]  # shown at the strength of its verdict
    assert page.order(sort="when", descending="1")[-1] in (1, 2, 3, 5)


def test_strength_shown_is_the_best_of_the_edit_or_the_weakest_that_succeeds(page: _Page) -> None:
    assert [(row["best"], row["weakest"]) for row in page.rows(0, 1, 2)] == [(2, 1), (2, 2), (2, 2)]
    assert page.order(sort="strength", mode="weakest") == [0, 3, 1, 2, 4, 5]


def test_strip_is_the_input_and_then_every_strength(page: _Page) -> None:
    answer = page.get(f"strip/{page.generation}/4.webp")
    assert answer.headers["content-type"] == "image/webp"
    assert "immutable" in answer.headers["cache-control"]
    with Image.open(io.BytesIO(answer.content)) as picture:
        assert picture.size == (64, 16)
    assert [_pixel(answer.content, x) for x in (8, 24, 40, 56)] == [201, 10, 11, 12]
    assert _pixel(page.get(f"picture/{page.generation}/4/2.png").content, 0) == 12
    assert _pixel(page.get(f"picture/{page.generation}/4/input.png").content, 0) == 201


def test_large_pictures_are_made_smaller_in_a_strip_alone(root: Path) -> None:
    write_run(root, side=256)
    page = _Page(root)
    assert (page.get("api/facts").json()["size"], page.get("api/facts").json()["exact"]) == (256, False)
    with Image.open(io.BytesIO(page.get(f"strip/{page.generation}/4.webp").content)) as picture:
        assert picture.size == (4 * 192, 192)
    with Image.open(io.BytesIO(page.get(f"picture/{page.generation}/4/1.png").content)) as picture:
        assert picture.size == (256, 256)


def test_neighbours_are_those_of_the_same_edit_nearest_by_features(page: _Page, root: Path) -> None:
    assert page.get("api/near", generation=page.generation, case=3).json() == {"known": True, "cases": [4, 5]}
    shutil.rmtree(LABEL.folder("toy", root))
    assert _Page(root).get("api/near", generation=page.generation, case=3).json() == {"known": False, "cases": []}


def test_verdicts_are_written_and_read(page: _Page, root: Path) -> None:
    state = page.decide(
        {"case": 1, "strength": 1, "verdict": "accepted"}, {"case": 5, "verdict": "rejected"}, mode="1"
    ).json()
    assert state["counts"] == {"open": 4, "accepted": 1, "rejected": 1}
    table = VERDICTS.read(REVIEW.folder("toy", root))
    assert table[["item_id", "edit", "strength", "verdict"]].to_numpy().tolist() == [
        ["bbbb", "hat", 1.0, "accepted"],
        ["cccc", "smile", 1.0, "rejected"],
    ]
    assert [(row["state"], row["at"]) for row in _Page(root).rows(1, 5, 0)] == [
        ("accepted", 1),
        ("rejected", 1),
        ("open", -1),
    ]
    assert page.decide({"case": 1, "verdict": None}).json()["counts"]["accepted"] == 0


def test_another_reviewers_verdict_shows_in_the_state(page: _Page, root: Path) -> None:
    before = page.get("api/state").json()
    Verdicts(REVIEW.folder("toy", root)).put(
        [Change("aaaa", "hat", 1.0, "accepted"), Change("gone", "hat", 1.0, "accepted")]
    )
    after = page.get("api/state").json()
    assert (after["counts"]["accepted"], after["gone"]) == (1, 1)
    assert after["stamp"] != before["stamp"]


def test_verdicts_outlive_a_run_that_changes_the_edits(page: _Page, root: Path) -> None:
    page.decide(*({"case": case, "strength": 1, "verdict": "accepted"} for case in range(6)))
    write_run(root, edits=("smile",), items=("bbbb", "cccc"))
    os.utime(EDIT.folder("toy", root) / EDITS.file, (1, 1))  # whatever the clock's resolution
    assert page.get("api/cases", generation=page.generation, ids="0").status_code == 409
    assert page.decide({"case": 0, "strength": 1, "verdict": "rejected"}).status_code == 409
    again = _Page(root)
    state = page.get("api/state").json()
    assert (state["counts"], state["gone"]) == ({"open": 0, "accepted": 2, "rejected": 0}, 4)
    again.decide({"case": 0, "strength": 2, "verdict": "rejected"})
    write_run(root)
    assert page.get("api/state").json()["counts"] == {"open": 0, "accepted": 5, "rejected": 1}


def test_run_that_is_replacing_the_edits_is_waited_for(page: _Page, root: Path) -> None:
    (EDIT.folder("toy", root) / EDITS.file).unlink()
    answer = page.get("api/state")
    assert (answer.status_code, "nothing was edited yet" in answer.text) == (503, True)
    write_run(root)
    assert page.get("api/state").status_code == 200


def test_shard_that_is_gone_is_one_line_and_not_the_end(page: _Page, root: Path) -> None:
    next((EDIT.folder("toy", root) / "smile").glob("shard-*")).unlink()
    answer = page.get(f"strip/{page.generation}/3.webp")
    assert (answer.status_code, "run `boundaryflow run`" in answer.text) == (404, True)
    assert page.get(f"strip/{page.generation}/0.webp").status_code == 200


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("api/cases", {"ids": "6"}),
        ("api/cases", {"ids": "-1"}),
        ("api/cases", {"ids": "1e3"}),
        ("api/cases", {"ids": "\u0663"}),
        ("api/cases", {"ids": "9" * 400}),
        ("api/cases", {"ids": "1," * 9000}),
        ("api/cases", {"ids": "../../x"}),
        ("api/order", {"sort": "__class__"}),
        ("api/order", {"edit": "../hat"}),
        ("api/order", {"state": "gone"}),
        ("api/order", {"drift": "1"}),
        ("api/order", {"drift": "a..b"}),
        ("api/order", {"mode": "3"}),
        ("api/order", {"mode": "index"}),
        ("api/near", {"case": "-1"}),
        ("api/near", {"case": "99999999999999999999"}),
        ("strip/{generation}/-1.webp", {}),
        ("strip/{generation}/6.webp", {}),
        ("strip/{generation}/..%2f..%2fx.webp", {}),
        ("picture/{generation}/0/3.png", {}),
        ("picture/{generation}/0/-1.png", {}),
        ("picture/{generation}/0/\u0663.png", {}),
        ("picture/{generation}/0/..%2finput.png", {}),
    ],
)
def test_hostile_question_is_refused(page: _Page, path: str, query: dict[str, str]) -> None:
    more = {"generation": page.generation, **query} if path.startswith("api/") else {}
    assert page.get(path.format(generation=page.generation), **more).status_code in (404, 422)


@pytest.mark.parametrize(
    "change",
    [
        {"case": -1, "verdict": "accepted"},
        {"case": 6, "verdict": "accepted"},
        {"case": 10**30, "verdict": "accepted"},
        {"case": "../x", "verdict": "accepted"},
        {"case": 0, "strength": 3, "verdict": "accepted"},
        {"case": 0, "strength": -1, "verdict": "accepted"},
        {"case": 0, "verdict": "perhaps"},
        {"case": 0},
    ],
)
def test_hostile_verdict_is_refused_and_nothing_is_written(page: _Page, root: Path, change: dict[str, Any]) -> None:
    assert page.decide({"case": 1, "verdict": "accepted"}, change).status_code in (404, 422)
    assert not REVIEW.folder("toy", root).exists()


def test_body_of_unknown_or_excessive_size_is_refused(page: _Page) -> None:
    where = f"/{TOKEN}/api/verdicts"
    assert page.client.post(where, content=b" " * (2**20 + 1)).status_code == 413
    assert page.client.post(where, content=iter([b"{}"])).status_code == 413
    assert page.client.post(where, content=b"{", headers={"Content-Type": "application/json"}).status_code == 422


def test_unjudged_edits_are_shown_without_measures(root: Path) -> None:
    shutil.rmtree(EVALUATE.folder("toy", root))
    page = _Page(root)
    assert page.get("api/facts").json()["measures"] == {}
    assert page.order(mode="weakest") == [0, 1, 2, 3, 4, 5]
    assert page.rows(0)[0]["measures"] == {}


def test_nothing_edited_is_one_line(root: Path) -> None:
    edits = EDITS.read(EDIT.folder("toy", root))
    EDITS.write(EDIT.folder("toy", root), pd.DataFrame(edits.assign(method="single_step")))
    with pytest.raises(ManifestError, match="holds no edited image, so there is nothing to review"):
        create_app("toy", root, TOKEN)
    with pytest.raises(ManifestError, match="nothing was edited yet; run `boundaryflow run --dataset other` first"):
        create_app("other", root, TOKEN)
