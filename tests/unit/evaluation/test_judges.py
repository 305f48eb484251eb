"""Judges: written, read back, and refused when they are not what they should be."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from boundaryflow.errors import CheckpointError
from boundaryflow.evaluation.judges import JudgeNet, SegmenterNet, load_judges, save_judge


def write_judges(folder: Path, *, all_three: bool = True) -> JudgeNet:
    torch.manual_seed(0)
    config = {"channels": 3, "widths": (8, 16), "image_size": 16, "num_outputs": 2}
    classifier = JudgeNet(3, (8, 16), 16, 2, "classify")
    save_judge(folder, "classify", classifier, config, ("hat", "beard"))
    if all_three:
        save_judge(folder, "embed", JudgeNet(3, (8, 16), 16, 5, "embed"), {**config, "num_outputs": 5}, ())
        segmenter = SegmenterNet(3, (8, 16), 4)
        save_judge(
            folder, "segment", segmenter, {"channels": 3, "widths": (8, 16), "image_size": 16, "num_parts": 4}, "abcd"
        )
    return classifier


def test_what_was_written_judges_the_same(tmp_path: Path) -> None:
    classifier = write_judges(tmp_path).eval()
    judges = load_judges(tmp_path)
    images = torch.rand(3, 3, 16, 16)
    assert judges.attributes == ("hat", "beard")
    torch.testing.assert_close(judges.probabilities(images), classifier(images).sigmoid().detach(), atol=2e-3, rtol=0)
    identity, parts = judges.identity(images), judges.parts(images)
    assert identity is not None
    assert parts is not None
    torch.testing.assert_close(identity.norm(dim=1), torch.ones(3))
    assert parts.shape == (3, 16, 16)


def test_only_the_classifier_is_needed(tmp_path: Path) -> None:
    write_judges(tmp_path, all_three=False)
    judges = load_judges(tmp_path)
    assert judges.identity(torch.rand(1, 3, 16, 16)) is None
    assert judges.parts(torch.rand(1, 3, 16, 16)) is None


def test_missing_damaged_or_other_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such file"):
        load_judges(tmp_path)
    write_judges(tmp_path)
    path = tmp_path / "attributes.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-8])
    with pytest.raises(CheckpointError, match="not a whole safetensors file"):
        load_judges(tmp_path)
    path.write_bytes((tmp_path / "identity.safetensors").read_bytes())
    with pytest.raises(CheckpointError, match="kind is 'embed', must be 'classify'"):
        load_judges(tmp_path)
