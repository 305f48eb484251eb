"""CLIP through clip-anytorch: what is loaded, what is refused, what the numbers mean."""

from __future__ import annotations

import hashlib
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import clip.model
import pytest
import torch

from boundaryflow.errors import CheckpointError, LabelError
from boundaryflow.labelling.clip_labels import ClipLabeller, load_clip
from tests.conftest import ROOT
from tests.hostile.corpus_models import TORCH


def tiny_clip(vision_layers: int | tuple[int, ...] = (1, 1, 1, 1), patch: int | None = None) -> clip.model.CLIP:
    """Random weights; a vision transformer where a patch size is given."""
    torch.manual_seed(0)
    return clip.model.CLIP(
        embed_dim=16,
        image_resolution=32,
        vision_layers=vision_layers,
        vision_width=64 if patch else 4,
        vision_patch_size=patch,
        context_length=77,
        vocab_size=49408,
        transformer_width=64,
        transformer_heads=1,
        transformer_layers=1,
    ).eval()


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny CLIP in the form of OpenAI's state dicts."""
    path = tmp_path_factory.mktemp("clip") / "clip.pt"
    torch.save({name: tensor.half() for name, tensor in tiny_clip().state_dict().items()}, path)
    return path


@pytest.mark.parametrize("patch", [None, 8], ids=["convolutions", "transformer"])
def test_archive_of_openais_format_gives_the_features_of_its_network(tmp_path: Path, patch: int | None) -> None:
    """Traced, in half precision where clip-anytorch's own converter has it, with its three numbers beside it."""
    network = tiny_clip((1, 1, 1, 1) if patch is None else 2, patch)
    clip.model.convert_weights(network)
    network.float()  # what half precision has rounded, so that it can be traced on a processor
    for name, value in (("input_resolution", 32), ("context_length", 77), ("vocab_size", 49408)):
        vars(network).pop(name, None)
        network.register_buffer(name, torch.tensor(value))
    pixels = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(3))
    tokens = clip.tokenize(["a smiling face", "a hat"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(network, (pixels, tokens))
        torch.jit.save(traced, tmp_path / "net.pt")
        images, texts = torch.jit.load(tmp_path / "net.pt")(pixels, tokens)
    labeller = load_clip(str(tmp_path / "net.pt"))
    model = labeller._model  # noqa: SLF001 - the labeller resizes and normalises what it is given
    found_images, found_texts = model(pixels, tokens)
    torch.testing.assert_close(found_images, images)
    torch.testing.assert_close(found_texts, texts)
    assert (labeller.image_size, labeller.num_features) == (32, 16)
    assert {tensor.dtype for tensor in model.parameters()} == {torch.float32}


def test_shipped_weights_give_the_features_of_clip_anytorch() -> None:
    path = ROOT / "data/pretrained/avatars64_clip/clip.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = ClipLabeller(clip.load(str(path), device="cpu")[0], "cpu")
    ours, images = load_clip(str(path)), torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(4))
    torch.testing.assert_close(ours.image_features(images), theirs.image_features(images), atol=0, rtol=0)
    torch.testing.assert_close(ours.text_feature(["a hat"]), theirs.text_feature(["a hat"]), atol=0, rtol=0)


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_model_name_is_downloaded_by_clip_and_read_by_us(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that lies where clip-anytorch looks first, with the hash that it asks for; no network."""
    cache = tmp_path / ".cache/clip"
    cache.mkdir(parents=True)
    shutil.copy(weights, cache / "RN50.pt")
    monkeypatch.setenv("HOME", str(tmp_path))
    url = f"https://example.invalid/{hashlib.sha256(weights.read_bytes()).hexdigest()}/RN50.pt"
    monkeypatch.setitem(clip.clip._MODELS, "RN50", url)
    assert load_clip("RN50").num_features == 16
    monkeypatch.setitem(clip.clip._MODELS, "RN50", "https://127.0.0.1:9/0/RN50.pt")
    with (
        pytest.warns(UserWarning, match="does not match"),
        pytest.raises(CheckpointError, match="clip RN50: cannot be downloaded"),
    ):
        load_clip("RN50")


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


def _cut(state: dict[Any, Any], name: str) -> dict[Any, Any]:
    return {key: value for key, value in state.items() if key != name}


WRONG: dict[str, tuple[Callable[[dict[Any, Any]], dict[Any, Any]], str]] = {
    "nan": (lambda s: {**s, "ln_final.bias": torch.full((64,), torch.nan)}, "ln_final.bias holds NaN or infinity"),
    "whole numbers": (lambda s: {**s, "ln_final.bias": torch.zeros(64).int()}, "ln_final.bias is of torch.int32"),
    "no weights": (lambda s: {"a": torch.zeros(1)}, "no CLIP state dict"),
    "missing": (lambda s: _cut(s, "ln_final.bias"), r"first is ln_final.bias: missing, must be \(64,\)"),
    "missing size": (lambda s: _cut(s, "text_projection"), "tensor 'text_projection' is missing"),
    "extra": (lambda s: {**s, "more": torch.zeros(2)}, r"first is more: \(2,\), must be left out"),
    "scalar": (lambda s: {**s, "text_projection": torch.tensor(1.0)}, "a tensor has too few dimensions"),
    "other shape": (lambda s: {**s, "text_projection": torch.zeros(64, 9)}, "tensors do not fit"),
    "no width": (lambda s: {**s, "ln_final.weight": torch.zeros(0)}, "its tensors do not form a network"),
    "int key": (lambda s: {**s, 3: torch.zeros(2)}, "first is 3"),
    "words": (
        lambda s: {**s, "token_embedding.weight": torch.zeros(20_000_000, 0)},
        "20,000,000 words, must be within 49,408 and 49,408",
    ),
    "context": (lambda s: {**s, "positional_embedding": torch.zeros(99, 64)}, "99 tokens in a text"),
    "large pictures": (
        lambda s: {**s, "visual.attnpool.positional_embedding": torch.zeros(65 * 65 + 1, 1)},
        "2,080 pixels a side",
    ),
}


@pytest.mark.parametrize("case", sorted(WRONG))
def test_wrong_state_dict_is_refused_in_one_line(weights: Path, tmp_path: Path, case: str) -> None:
    change, reason = WRONG[case]
    torch.save(change(torch.load(weights, weights_only=True)), tmp_path / "net.pt")
    with pytest.raises(CheckpointError, match=reason) as caught:
        load_clip(str(tmp_path / "net.pt"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        ("script_writes", "is missing"),
        ("script_loops", "is missing"),
        ("pickle_calls", "wants to call posix.system; nothing in it was run"),
        ("pickle_calls_as_script", "wants to call posix.system; nothing in it was run"),
    ],
)
def test_code_in_a_file_is_never_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str, reason: str) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    (tmp_path / "net.pt").write_bytes(TORCH[case]())
    with pytest.raises(CheckpointError, match=reason):
        load_clip("net.pt")
    assert [path.name for path in tmp_path.iterdir()] == ["net.pt"]


def test_file_that_is_cut_or_not_there_is_refused(weights: Path, tmp_path: Path) -> None:
    (tmp_path / "cut.pt").write_bytes(weights.read_bytes()[:5000])
    for name, reason in (
        ("cut.pt", "not a complete checkpoint"),
        ("none.pt", "neither a file nor a model name; names are"),
    ):
        with pytest.raises(CheckpointError, match=reason):
            load_clip(str(tmp_path / name))
