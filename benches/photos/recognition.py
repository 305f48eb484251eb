"""Are two pictures of one person? By dlib's face recognition, which nobody here trained.

King, D. (2017), "dlib_face_recognition_resnet_model_v1": a residual network trained on three million faces, 128 numbers
for a face; distances below 0.6 are of one person. Install `dlib-bin` and `face-recognition-models`; the product needs
neither.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

SAME_PERSON = 0.6
_SIDE, _MARGIN = 256, 64  # pictures are enlarged to this side, with a grey margin around
_FACE = (94, 114, 293, 313)  # left, top, right, bottom there: where dlib's detector finds most faces of CelebA-64


class FaceRecognition:
    """Embeds faces that are cut as CelebA-64.

    Raises:
        SystemExit: dlib or its networks are not installed.
    """

    def __init__(self) -> None:
        try:
            self._dlib: Any = importlib.import_module("dlib")
            package: Any = importlib.import_module("face_recognition_models")
        except ImportError as error:
            raise SystemExit(
                f"photos: --recognition needs {error.name}; run pip install dlib-bin face-recognition-models setuptools"
            ) from None
        models = Path(package.__file__).parent / "models"
        self._network = self._dlib.face_recognition_model_v1(str(models / "dlib_face_recognition_resnet_model_v1.dat"))
        self._landmarks = self._dlib.shape_predictor(str(models / "shape_predictor_5_face_landmarks.dat"))

    def embeddings(self, pictures: Tensor) -> NDArray[np.float64]:
        """[N,128] of pictures [N,3,64,64] uint8."""
        return np.array([self._embedding(picture) for picture in pictures]).reshape(-1, 128)

    def _embedding(self, picture: Tensor) -> list[float]:
        large = F.interpolate(picture[None].float(), (_SIDE, _SIDE), mode="bicubic", align_corners=False)[0]
        canvas = F.pad(large.round().clamp(0, 255), [_MARGIN] * 4, value=128).to(torch.uint8)
        image = np.ascontiguousarray(canvas.permute(1, 2, 0).numpy())
        shape = self._landmarks(image, self._dlib.rectangle(*_FACE))
        chip = self._dlib.get_face_chip(image, shape, size=150, padding=0.25)
        return list(self._network.compute_face_descriptor(chip))


def distances(
    recognition: FaceRecognition, before: Tensor, edited: Tensor, is_delivered: Tensor | None = None
) -> list[list[float]]:
    """[K][N] between pictures [N,3,64,64] and their edits [N,K,3,64,64], all uint8; NaN where none is delivered."""
    of_before = recognition.embeddings(before)
    found: list[list[float]] = []
    for after in edited.unbind(1):
        lengths = np.linalg.norm(recognition.embeddings(after) - of_before, axis=1)
        if is_delivered is not None:
            lengths[~is_delivered.numpy()] = np.nan
        found.append([round(float(length), 4) for length in lengths])
    return found
