"""Draw docs/images/method.png: one face on its way to a smile, noise level by noise level.

    python -m website.method_picture

Built-in faces (nobody exists), a boundary fitted on the spot, a guided edit with nothing preserved.
"""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

import boundaryflow as bf
from boundaryflow.boundary import Boundaries
from boundaryflow.diffusion import EpsModel
from boundaryflow.editing import Guidance, guided_edit, observe_noised
from boundaryflow.evaluation.judges import read_judge
from boundaryflow.pixels import to_model_range, to_u8
from boundaryflow.rng import item_noise

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "docs/images/method.png"
_FACE, _NUM, _STEPS, _STRENGTH, _SIZE = 60, 100, 9, 1.2, 128
_GUIDANCE = Guidance(
    certainty=0.95, gain=1.0, tweedie_projection=True, preserve=0.0, preserve_residual=0.0, max_step=0.05,
    soft_threshold=0.05, region=0.0, num_draws=1, num_iterations=1, stride=1,
)  # fmt: skip


def drawn_faces(num: int) -> Tensor:
    """The first faces of the built-in data set, [N,3,64,64] uint8."""
    with tarfile.open(ROOT / "data/raw/faces/drawn.tar") as tar:
        files = [tar.extractfile(member) for member in tar.getmembers() if member.isfile()][:num]
        pictures = [Image.open(io.BytesIO(file.read())).convert("RGB") for file in files if file]
    return torch.from_numpy(np.stack([np.asarray(picture) for picture in pictures])).permute(0, 3, 1, 2)


def by_smile(faces: Tensor) -> Tensor:
    """The same faces, the least smiling first."""
    labeller, _, names = read_judge(ROOT / "data/pretrained/faces64_labeller/attributes.safetensors", "classify")
    return faces[labeller(faces / 255)[:, names.index("smiling")].argsort()]


def followed(model: EpsModel, x_0: Tensor, boundary: Boundaries, path: tuple[int, ...]) -> dict[int, Tensor]:
    """Timestep to the noisy edited image there, and -1 to the edited image."""
    seen: dict[int, Tensor] = {}

    class Watched:
        """The model, which keeps what it is shown."""

        def __getattr__(self, name: str) -> Any:
            return getattr(model, name)

        def pullback(self, x_t: Tensor, t: int, *more: Any) -> Any:
            seen[t] = x_t
            return model.pullback(x_t, t, *more)

    source = observe_noised(model, x_0, path, lambda t, _: item_noise(0, ["face"], f"picture {t}", x_0.shape[1:]))
    edited = guided_edit(Watched(), source, [boundary.noised], torch.ones(1, 1), [_STRENGTH], _GUIDANCE)  # pyright: ignore[reportArgumentType]
    cleaned = {t: (x_t - (1 - a) ** 0.5 * source.noise[t, 0]) / a**0.5 for t, x_t in seen.items()
               for a in [model.schedule.alpha_bar(t)]}  # fmt: skip
    return {-1: edited[:, 0], **{t: torch.cat([seen[t], cleaned[t] - x_0, cleaned[t]]) for t in seen}}


def main() -> None:
    """Fit, edit, draw."""
    faces = by_smile(drawn_faces(300))
    model = bf.load_model(ROOT / "data/pretrained/faces64", dtype="float32")
    smile = bf.Boundary.fit(model, "smiling", faces[-_NUM // 2 :], faces[: _NUM // 2], num_steps=_STEPS)
    x_0 = to_model_range(faces[_FACE : _FACE + 1], model.value_range)
    way = followed(model, x_0, smile.hyperplanes, smile.timesteps)
    columns = [(f"t = {t}", way[t]) for t in sorted(way, reverse=True) if t > 0]
    last = torch.cat([way[-1], way[-1] - x_0, way[-1]])
    shown = [("image", torch.cat([x_0, torch.zeros_like(x_0), x_0])), *columns, ("edited", last)]
    sheet = Image.new("RGB", (len(shown) * (_SIZE + 4), 3 * (_SIZE + 4) + 24), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(15)
    for column, (name, rows) in enumerate(shown):
        draw.text((column * (_SIZE + 4) + _SIZE / 2, 4), name, "black", font, anchor="ma")
        for row, pixels in enumerate(to_u8(rows, model.value_range)):
            picture = Image.fromarray(pixels.permute(1, 2, 0).numpy()).resize((_SIZE, _SIZE), Image.Resampling.BICUBIC)
            sheet.paste(picture, (column * (_SIZE + 4), row * (_SIZE + 4) + 24))
    sheet.quantize(128, dither=Image.Dither.NONE).save(OUT, optimize=True)


if __name__ == "__main__":
    main()
