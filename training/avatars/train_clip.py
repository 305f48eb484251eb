"""Train a tiny CLIP on avatars and captions made from their attributes, in OpenAI's architecture.

    python -m training.avatars.train_clip --cache CACHE

The file is a plain state dict that `clip.load(path)` of clip-anytorch takes. The vocabulary is
CLIP's own byte pairs; rows that no caption uses stay zero.
"""

from __future__ import annotations

import argparse
import itertools
import logging
import time
import warnings
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from boundaryflow.avatars import ATTRIBUTES
from training.avatars.faces import faces
from training.avatars.train_judges import pictures_01, roughen

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # clip-anytorch imports pkg_resources, which warns of its own end
    import clip
    from clip.model import CLIP

LOG = logging.getLogger(__name__)
NUM_FACES = 20_000
MEAN = torch.tensor((0.48145466, 0.4578275, 0.40821073))[:, None, None]
SD = torch.tensor((0.26862954, 0.26130258, 0.27577711))[:, None, None]

WORDS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "smiling": (("smiling", "happy", "with a smile", "who smiles"), ("frowning", "sad", "with a frown", "not smiling")),
    "eyeglasses": (
        ("with eyeglasses", "wearing glasses", "with glasses", "wearing eyeglasses"),
        ("without eyeglasses", "without glasses", "wearing no glasses", "with no eyeglasses"),
    ),
    "beard": (("with a beard", "bearded", "who has a beard"), ("without a beard", "clean-shaven", "with no beard")),
    "hat": (("with a hat", "wearing a hat", "in a hat"), ("without a hat", "wearing no hat", "with no hat")),
    "blond_hair": (
        ("with blond hair", "blond", "with blonde hair", "fair-haired"),
        ("with dark hair", "dark-haired", "with brown hair"),
    ),
    "long_hair": (("with long hair", "long-haired"), ("with short hair", "short-haired")),
    "mouth_open": (
        ("with an open mouth", "whose mouth is open", "with the mouth open"),
        ("with a closed mouth", "whose mouth is closed", "with the mouth closed"),
    ),
    "dark_skin": (("with dark skin", "dark-skinned"), ("with light skin", "light-skinned", "with pale skin")),
}
NOUNS = ("face", "person", "portrait of a person", "cartoon face", "head")
AFTER = ("with", "without", "wearing", "who", "whose", "in", "not")


def caption(wanted: dict[str, bool], rng: np.random.Generator) -> str:
    """A description that mentions some attributes, in words picked at random."""
    before, after = [], []
    for attribute in rng.permutation(list(wanted)):
        phrase = str(rng.choice(WORDS[str(attribute)][0 if wanted[str(attribute)] else 1]))
        (after if phrase.split()[0] in AFTER else before).append(phrase)
    text = " ".join(["a", *before, str(rng.choice(NOUNS)), " and ".join(after)]).strip()
    return text if rng.random() < 0.5 else f"a photo of {text}"


def build_clip() -> nn.Module:
    """OpenAI's CLIP with a narrow ResNet for pictures and a narrow transformer for words."""
    model = CLIP(
        embed_dim=128,
        image_resolution=64,
        vision_layers=(1, 1, 1, 1),
        vision_width=16,
        vision_patch_size=None,
        context_length=77,
        vocab_size=49408,
        transformer_width=64,
        transformer_heads=1,
        transformer_layers=2,
    )
    nn.init.normal_(model.token_embedding.weight, std=0.02)
    return model


def tokens_used() -> Tensor:
    """Every token that a caption can hold."""
    phrases = itertools.chain(*(itertools.chain(*pair) for pair in WORDS.values()))
    texts = [f"a photo of a {phrase} {noun} and face" for phrase in phrases for noun in NOUNS]
    return clip.tokenize(texts).unique()


def encode_text(model: nn.Module, texts: list[str]) -> Tensor:
    """The model's own `encode_text`, without the empty places behind the longest caption.

    Attention is causal and the feature is taken at the end token, so they change nothing.
    """
    tokens = clip.tokenize(texts)
    length = int(tokens.argmax(1).max()) + 1
    x = (model.token_embedding(tokens[:, :length]) + model.positional_embedding[:length]).permute(1, 0, 2)
    for block in model.transformer.resblocks:
        normed = block.ln_1(x)
        mask = block.attn_mask[:length, :length]
        x = x + block.attn(normed, normed, normed, need_weights=False, attn_mask=mask)[0]
        x = x + block.mlp(block.ln_2(x))
    x = model.ln_final(x.permute(1, 0, 2))
    return x[torch.arange(len(x)), tokens.argmax(1)] @ model.text_projection


def train_pictures(model: nn.Module, images: NDArray[np.uint8], truth: Tensor, num_steps: int) -> None:
    """The picture side: features from which every attribute can be read along a direction of its own.

    The directions stand in for the words, which learn much more slowly, and are thrown away.
    """
    directions = nn.Parameter(0.1 * torch.randn(model.text_projection.shape[1], len(ATTRIBUTES)))
    offsets = nn.Parameter(torch.zeros(len(ATTRIBUTES)))
    optimiser = torch.optim.AdamW([*model.visual.parameters(), directions, offsets], lr=3e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, num_steps, pct_start=0.1)
    started = time.monotonic()
    for step in range(num_steps):
        draw = torch.Generator().manual_seed(step)
        rows = torch.randint(NUM_FACES, (96,), generator=draw)
        features = model.encode_image((roughen(pictures_01(images, rows), draw) - MEAN) / SD)
        logits = 14 * F.normalize(features, dim=1) @ F.normalize(directions, dim=0) + offsets
        loss = F.binary_cross_entropy_with_logits(logits, truth[rows])
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        schedule.step()
        if (step + 1) % 50 == 0:
            LOG.info(
                "pictures step %d/%d loss %.4f %.0f s", step + 1, num_steps, loss.item(), time.monotonic() - started
            )


@torch.inference_mode()
def all_features(model: nn.Module, images: NDArray[np.uint8]) -> Tensor:
    """[N,D] unit features of all pictures, as they are."""
    model.visual.eval()
    parts = torch.arange(len(images)).split(256)
    features = [model.encode_image((pictures_01(images, rows) - MEAN) / SD) for rows in parts]
    return F.normalize(torch.cat(features), dim=1).clone()


def words_loss(model: nn.Module, features: Tensor, truth: Tensor, rng: np.random.Generator) -> Tensor:
    """Which side of each attribute, and which picture goes with which caption.

    Several pictures may fit a caption, so the target of the contrastive part is shared equally
    among all that do.
    """
    texts: list[str] = []
    for attribute in ATTRIBUTES:
        texts += [caption({attribute: True}, rng), caption({attribute: False}, rng)]
    mentioned: list[dict[str, bool]] = []
    for row in rng.choice(len(features), 24):
        names = rng.choice(ATTRIBUTES, rng.integers(1, 5), replace=False)
        mentioned.append({str(n): bool(truth[row, ATTRIBUTES.index(str(n))]) for n in names})
        texts.append(caption(mentioned[-1], rng))
    words = F.normalize(encode_text(model, texts), dim=1)
    logits = model.logit_scale.exp().clamp(max=100) * features @ words.T
    pairs = logits[:, : 2 * len(ATTRIBUTES)].reshape(len(features), len(ATTRIBUTES), 2)
    sides = F.cross_entropy(pairs.flatten(0, 1), (truth < 0.5).long().flatten())
    fits = torch.ones(len(features), len(mentioned))
    for column, wanted in enumerate(mentioned):
        for name, value in wanted.items():
            fits[:, column] *= (truth[:, ATTRIBUTES.index(name)] > 0.5) == value
    rest = logits[:, 2 * len(ATTRIBUTES) :]
    per_text = F.cross_entropy(rest.T, (fits / fits.sum(0, keepdim=True).clamp(min=1)).T)
    return sides + 0.2 * per_text


def train_words(model: nn.Module, features: Tensor, truth: Tensor, num_steps: int) -> None:
    """The word side, against the frozen features of the pictures."""
    rng = np.random.default_rng(0)
    parameters = [p for name, p in model.named_parameters() if not name.startswith("visual.")]
    optimiser = torch.optim.AdamW(parameters, lr=2e-3, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, num_steps, pct_start=0.1)
    started = time.monotonic()
    for step in range(num_steps):
        rows = torch.from_numpy(rng.integers(0, len(features), 256))
        loss = words_loss(model, features[rows], truth[rows], rng)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        schedule.step()
        if (step + 1) % 50 == 0:
            LOG.info("words step %d/%d loss %.4f %.0f s", step + 1, num_steps, loss.item(), time.monotonic() - started)


def main() -> None:
    """Train, then write the state dict in half precision, as OpenAI ships it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, required=True, help="folder for training faces")
    parser.add_argument("--out", type=Path, default=Path("data/pretrained/avatars64_clip/clip.pt"))
    parser.add_argument("--picture-steps", type=int, default=400)
    parser.add_argument("--word-steps", type=int, default=800)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)  # initial weights
    data = faces("judges", NUM_FACES, args.cache)
    images, truth = data["images"], torch.from_numpy(data["attributes"].astype(np.float32))
    model = build_clip()
    train_pictures(model, images, truth, args.picture_steps)
    train_words(model, all_features(model, images), truth, args.word_steps)
    state = {k: v.half() if v.is_floating_point() else v for k, v in model.state_dict().items()}
    unused = torch.ones(len(state["token_embedding.weight"]), dtype=torch.bool)
    unused[tokens_used()] = False
    state["token_embedding.weight"][unused] = 0
    args.out.parent.mkdir(parents=True, exist_ok=True)
    torch.save(state, args.out)


if __name__ == "__main__":
    main()
