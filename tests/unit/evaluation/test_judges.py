"""Judges: written, read back, and refused when they are not what they should be."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from boundaryflow.errors import CheckpointError
from boundaryflow.evaluation.judges import JudgeNet, SegmenterNet, save_judge
from boundaryflow.evaluation.panel import load_judges
from tests.hostile.corpus_models import JUDGES, judge


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


REASONS = {
    "extra": r"the first is more: \(3,\), must be left out",
    "image_size_0": "image_size is 0, must be a whole number of 1 to",
    "image_size_true": "image_size is True",
    "missing": r"the first is head.bias: missing, must be \(2,\)",
    "names_5": "no list of names",
    "names_fewer": "it names 1 outputs and has 2",
    "names_numbers": "no list of names",
    "nan": "tensor head.bias is not of finite floating-point numbers",
    "outputs_1e10": "num_outputs is 10000000000, must be",
    "shape": r"the first is head.bias: \(3,\), must be \(2,\)",
    "whole_numbers": "tensor head.bias is not of finite floating-point numbers",
    "widths_100k": "widths must be as many multiples of 8",
    "widths_1e9": r"must be \(8000000000, 3, 3, 3\)",
    "widths_7": "widths must be as many multiples of 8",
    "widths_none": "widths must be as many multiples of 8",
    "widths_word": "widths must be as many multiples of 8",
}


@pytest.mark.parametrize("case", sorted(JUDGES))
def test_impossible_judge_is_refused_in_one_line(tmp_path: Path, case: str) -> None:
    (tmp_path / "attributes.safetensors").write_bytes(JUDGES[case]())
    with pytest.raises(CheckpointError, match=REASONS[case]) as caught:
        load_judges(tmp_path)
    assert "\n" not in str(caught.value)


def test_sound_judge_of_the_same_kind_is_read(tmp_path: Path) -> None:
    (tmp_path / "attributes.safetensors").write_bytes(judge({}))
    assert load_judges(tmp_path).probabilities(torch.rand(1, 3, 4, 4)).tolist() == [[0.5, 0.5]]


def test_missing_damaged_or_other_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such file"):
        load_judges(tmp_path)
    write_judges(tmp_path)
    path = tmp_path / "attributes.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-8])
    with pytest.raises(CheckpointError, match="not a complete safetensors file"):
        load_judges(tmp_path)
    path.write_bytes((tmp_path / "identity.safetensors").read_bytes())
    with pytest.raises(CheckpointError, match="kind is 'embed', must be 'classify'"):
        load_judges(tmp_path)
