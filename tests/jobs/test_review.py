"""From a finished run over the review page to an export."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from boundaryflow.jobs.export import export_images
from boundaryflow.review.app import create_app


def test_export_has_the_very_picture_that_was_accepted(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    page = TestClient(create_app("avatars", Path(), "secret"), base_url="http://127.0.0.1:1/secret/")
    facts = page.get("api/facts").json()
    assert {edit["name"] for edit in facts["edits"]} == {"dark", "hat"}
    case = facts["num"] - 1
    (row,) = page.get("api/cases", params={"generation": facts["generation"], "ids": case}).json()
    changes = [{"case": case, "strength": 1, "verdict": "accepted"}, {"case": 0, "strength": 1, "verdict": "rejected"}]
    assert page.post("api/verdicts", json={"generation": facts["generation"], "changes": changes}).status_code == 200
    assert export_images("avatars", tmp_path / "out", accepted=True) == (1, 0)
    (written,) = (tmp_path / "out").rglob("*.png")
    assert written.relative_to(tmp_path / "out").as_posix() == f"{row['edit']}/1/{row['item']}.png"
    shown = page.get(f"picture/{facts['generation']}/{case}/1.png").content
    with Image.open(written) as exported, Image.open(io.BytesIO(shown)) as seen:
        np.testing.assert_array_equal(np.asarray(exported), np.asarray(seen))
