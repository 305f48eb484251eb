"""Zero-shot labels by CLIP (Radford et al. 2021, section 3.1): which of two descriptions is closer to a picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from boundaryflow.errors import LabelError
from boundaryflow.labelling.clip_files import clip_package, read_clip

_MEAN = (0.48145466, 0.4578275, 0.40821073)  # CLIP's own normalisation
_SD = (0.26862954, 0.26130258, 0.27577711)


class ClipLabeller:
    """A frozen CLIP: features of pictures and of texts in one space.

    Args:
        model: A model of clip-anytorch.
        device: Where it runs.
    """

    def __init__(self, model: Any, device: torch.device | str) -> None:
        self._model, self.device = model.to(device).eval().requires_grad_(False), torch.device(device)
        self._size = int(model.visual.input_resolution)
        self._text_features: dict[tuple[str, ...], Tensor] = {}
        self.num_features = int(model.text_projection.shape[1])
        self.num_parameters = sum(tensor.numel() for tensor in model.parameters())

    @property
    def image_size(self) -> int:
        """Side of its input in pixels; pictures are resized to it."""
        return self._size

    @torch.inference_mode()
    def image_features(self, images_01: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d"]:
        """Unit feature vectors of pictures in [0, 1]; greyscale is repeated to three channels."""
        images = images_01.to(self.device).float()
        if images.shape[1] == 1:
            images = images.expand(-1, 3, -1, -1)
        if images.shape[-1] != self._size:
            images = F.interpolate(images, size=(self._size, self._size), mode="bicubic", antialias=True).clamp(0, 1)
        mean, sd = (torch.tensor(v, device=self.device)[None, :, None, None] for v in (_MEAN, _SD))
        return F.normalize(self._model.encode_image((images - mean) / sd).float(), dim=1)

    @torch.inference_mode()
    def text_feature(self, prompts: Sequence[str], templates: Sequence[str] = ("{}",)) -> Float[Tensor, " d"]:
        """Normalised mean of the features of several descriptions.

        Source: Radford et al. 2021, section 3.1.4, which ensembles over templates in the same way.

        Args:
            prompts: Descriptions.
            templates: Texts with `{}`, which is replaced by each description.

        Raises:
            LabelError: A description is too long for the model.
        """
        texts = tuple(template.replace("{}", prompt) for prompt in prompts for template in templates)
        if texts not in self._text_features:
            self._text_features[texts] = self._text_feature(texts)
        return self._text_features[texts]

    def _text_feature(self, texts: Sequence[str]) -> Tensor:
        try:
            tokens = clip_package().tokenize(list(texts)).to(self.device)
        except RuntimeError as error:
            raise LabelError(f"labels: {str(error).splitlines()[0]}; shorten the prompt or its template") from None
        return F.normalize(F.normalize(self._model.encode_text(tokens).float(), dim=1).mean(0), dim=0)

    @torch.inference_mode()
    def log_odds(
        self,
        features: Float[Tensor, "b d"],
        positive: Sequence[str],
        negative: Sequence[str],
        *,
        templates: Sequence[str] = ("{}",),
        temperature: float | None = None,
    ) -> Float[Tensor, " b"]:
        """Log-odds that the positive descriptions match better than the negative ones.

        The difference of the two cosine similarities over the temperature, as in CLIP's training.

        Args:
            features: From `image_features`.
            positive: Descriptions of an image with the attribute.
            negative: Descriptions of an image without it.
            templates: Texts with `{}`, which is replaced by each description.
            temperature: Divisor of cosine similarities; None for the model's own, 1 / logit_scale.
        """
        apart = self.text_feature(positive, templates) - self.text_feature(negative, templates)
        scale = self._model.logit_scale.exp().float() if temperature is None else 1 / temperature
        return (scale * (features @ apart)).cpu()

    def probabilities(
        self, features: Float[Tensor, "b d"], positive: Sequence[str], negative: Sequence[str]
    ) -> Float[Tensor, " b"]:
        """Probability that the positive descriptions match better than the negative ones; see `log_odds`."""
        return self.log_odds(features, positive, negative).sigmoid()


def load_clip(weights: str, device: torch.device | str = "cpu") -> ClipLabeller:
    """Load a CLIP in float32, of the architecture that clip-anytorch has.

    Args:
        weights: A model name of OpenAI's such as `ViT-B/32`, which is downloaded once, or a file:
            a TorchScript archive as published by OpenAI, or a plain state dict. No code in a file is run.
        device: Where it runs.

    Raises:
        CheckpointError: The file is missing, is not a CLIP, or cannot be downloaded.
    """
    return ClipLabeller(read_clip(weights), device)
