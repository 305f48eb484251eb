"""CLIP through clip-anytorch: what is loaded, what is refused, what the numbers mean."""

from __future__ import annotations

from pathlib import Path

import clip.model
import pytest
import torch

from boundaryflow.errors import CheckpointError, LabelError
from boundaryflow.labelling import load_clip


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny CLIP with random weights, in the form of OpenAI's state dicts."""
    torch.manual_seed(0)
    model = clip.model.CLIP(
        embed_dim=16,
        image_resolution=32,
        vision_layers=(1, 1, 1, 1),
        vision_width=4,
        vision_patch_size=None,
        context_length=77,
        vocab_size=49408,
        transformer_width=64,
        transformer_heads=1,
        transformer_layers=1,
    )
    path = tmp_path_factory.mktemp("clip") / "clip.pt"
    torch.save({name: tensor.half() for name, tensor in model.state_dict().items()}, path)
    return path


def test_features_are_unit_vectors_and_grey_is_three_equal_channels(weights: Path) -> None:
    labeller = load_clip(str(weights))
    grey = torch.rand(3, 1, 32, 32, generator=torch.Generator().manual_seed(1))
    features = labeller.image_features(grey)
    assert features.shape == (3, 16)
    torch.testing.assert_close(features.norm(dim=1), torch.ones(3))
    torch.testing.assert_close(labeller.image_features(grey.expand(-1, 3, -1, -1)), features)
    assert labeller.image_features(torch.rand(2, 3, 48, 48)).shape == (2, 16)


def test_swapping_the_sides_turns_the_probability_around(weights: Path) -> None:
    labeller = load_clip(str(weights))
    features = labeller.image_features(torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(2)))
    smiling, frowning = ["a smiling face", "a happy face"], ["a frowning face"]
    forth = labeller.probabilities(features, smiling, frowning)
    torch.testing.assert_close(forth + labeller.probabilities(features, frowning, smiling), torch.ones(4))
    logits = torch.logit(forth)
    difference = labeller.text_feature(smiling) - labeller.text_feature(frowning)
    torch.testing.assert_close(logits, (features @ difference) / 0.07, rtol=1e-3, atol=1e-4)


def test_templates_are_averaged_like_prompts_and_temperature_divides_cosines(weights: Path) -> None:
    labeller = load_clip(str(weights))
    together = labeller.text_feature(["a cat", "a dog"], ["{}", "a photo of {}."])
    written_out = labeller.text_feature(["a cat", "a photo of a cat.", "a dog", "a photo of a dog."])
    torch.testing.assert_close(together, written_out)
    features = labeller.image_features(torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(2)))
    odds = labeller.log_odds(features, ["a cat"], ["a dog"], templates=["a {}"], temperature=0.5)
    cosines = [features @ labeller.text_feature([f"a a {name}"]) for name in ("cat", "dog")]
    torch.testing.assert_close(odds, (cosines[0] - cosines[1]) / 0.5)
    own = labeller.log_odds(features, ["a cat"], ["a dog"])  # CLIP starts at a temperature of 0.07
    torch.testing.assert_close(
        labeller.log_odds(features, ["a cat"], ["a dog"], temperature=0.07), own, rtol=1e-3, atol=1e-3
    )
    with pytest.raises(LabelError, match="is too long for context length 77; shorten the prompt or its template"):
        labeller.text_feature(["cat " * 100])


class Evil:
    def __reduce__(self) -> tuple[object, ...]:
        return print, ("this must never be printed",)


def test_refused_files_are_one_clear_line(weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evil, cut, other = tmp_path / "evil.pt", tmp_path / "cut.pt", tmp_path / "other.pt"
    torch.save({"token_embedding.weight": Evil()}, evil)
    cut.write_bytes(weights.read_bytes()[:5000])
    torch.save({"a": torch.zeros(1)}, other)
    for path, reason in (
        (evil, "holds more than tensors"),
        (cut, "not a torch archive"),
        (other, "no CLIP state dict"),
        (tmp_path / "none.pt", "neither a file nor a model name; names are RN50"),
    ):
        with pytest.raises(CheckpointError, match=reason) as caught:
            load_clip(str(path))
        assert "\n" not in str(caught.value)
    assert "never be printed" not in capsys.readouterr().out
