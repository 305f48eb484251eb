"""Ways up to the mixing step at about equal network calls: what returns, and where the latent lies.

    make bench NAME=inversion                    about four minutes on two cores

DDIM, a fixed point of the implicit step, the second-order multistep of Adams and Bashforth, and the
exactly reversible two-step recurrence O-BELM (Wang et al. 2024), each with its own way down, without
residuals, in float32. Written in y = x_t / sqrt(alpha_bar), in which the probability flow is
dy/dsigma = eps with sigma = sqrt(1 / alpha_bar - 1) (Song et al. 2021, eq. 14). Writes
benches/results/inversion.json and its table in docs/method.md.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from benches import machine, page
from benches.bench_quality import ROOT
from benches.quality.pictures import Faces
from boundaryflow.diffusion import EpsModel, noise_to_signal, timestep_path
from boundaryflow.diffusion.schedule import CLEAN
from boundaryflow.models import load_model
from boundaryflow.runtime.device import device

RESULT, PAGE = ROOT / "benches/results/inversion.json", ROOT / "docs/method.md"
FINE_STEPS = 150


class Flow:
    """The probability flow of a model, with its network calls counted.

    Args:
        model: The frozen model.
    """

    def __init__(self, model: EpsModel) -> None:
        self._model, self.calls = model, 0

    def sigma(self, t: int) -> float:
        """Noise beside a signal of unit size; 0 at the clean end."""
        return noise_to_signal(self._model.schedule.alpha_bar(t))

    def eps(self, y: Tensor, t: int) -> Tensor:
        """The noise predicted in y, one network call."""
        self.calls += 1
        return self._model.eps(y * self._model.schedule.alpha_bar(t) ** 0.5, t)

    def radius(self, y: Tensor, t: int) -> Tensor:
        """[B] |x_t| / sqrt(d)."""
        x_t = y * self._model.schedule.alpha_bar(t) ** 0.5
        return x_t.flatten(1).norm(dim=1) / x_t[0].numel() ** 0.5


Up = Callable[[Flow, Tensor, Sequence[int]], tuple[Tensor, Tensor]]
Down = Callable[[Flow, tuple[Tensor, Tensor], Sequence[int]], Tensor]


def euler_up(flow: Flow, x_0: Tensor, path: Sequence[int]) -> tuple[Tensor, Tensor]:
    """DDIM; the image stands at the first timestep."""
    y = x_0 * (1 + flow.sigma(path[0]) ** 2) ** 0.5
    for t, t_next in zip(path, path[1:], strict=False):
        y = y + (flow.sigma(t_next) - flow.sigma(t)) * flow.eps(y, t)
    return y, y


def euler_down(flow: Flow, latent: tuple[Tensor, Tensor], path: Sequence[int]) -> Tensor:
    """DDIM, to the clean end."""
    y = latent[1]
    for t_next, t in reversed(list(zip([CLEAN, *path], path, strict=False))):
        y = y + (flow.sigma(t_next) - flow.sigma(t)) * flow.eps(y, t)
    return y


def fixed_point_up(flow: Flow, x_0: Tensor, path: Sequence[int], rounds: int) -> tuple[Tensor, Tensor]:
    """The step that the way down undoes: its noise is that of where it ends, found by repeating it.

    Pan et al. 2023 (AIDI) without acceleration; `rounds` network calls a step.
    """
    y, eps = x_0, flow.eps(x_0, path[0])
    for t, t_next in zip([CLEAN, *path], path, strict=False):
        step = flow.sigma(t_next) - flow.sigma(t)
        for _ in range(rounds):
            eps = flow.eps(y + step * eps, t_next)
        y = y + step * eps
    return y, y


def _adams_bashforth(flow: Flow, y: Tensor, times: Sequence[int]) -> Tensor:
    before: tuple[Tensor, float] | None = None
    for t, t_next in zip(times, times[1:], strict=False):
        step, eps = flow.sigma(t_next) - flow.sigma(t), flow.eps(y, t)
        slope = eps if before is None else eps + step / (2 * before[1]) * (eps - before[0])
        y, before = y + step * slope, (eps, step)
    return y


def second_order_up(flow: Flow, x_0: Tensor, path: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Adams and Bashforth's second-order steps, one call each."""
    y = _adams_bashforth(flow, x_0 * (1 + flow.sigma(path[0]) ** 2) ** 0.5, path)
    return y, y


def second_order_down(flow: Flow, latent: tuple[Tensor, Tensor], path: Sequence[int]) -> Tensor:
    """The same downwards."""
    return _adams_bashforth(flow, latent[1], [*reversed(path), CLEAN])


def reversible_up(flow: Flow, x_0: Tensor, path: Sequence[int]) -> tuple[Tensor, Tensor]:
    """O-BELM: the next from the last two, so that the two at the end lead back without any error."""
    before = x_0 * (1 + flow.sigma(path[0]) ** 2) ** 0.5
    y = before + (flow.sigma(path[1]) - flow.sigma(path[0])) * flow.eps(before, path[0])
    for last, t, t_next in zip(path, path[1:], path[2:], strict=False):
        below, above = flow.sigma(t) - flow.sigma(last), flow.sigma(t_next) - flow.sigma(t)
        ratio = above / below
        before, y = y, ratio**2 * before + (1 - ratio**2) * y + above * (1 + ratio) * flow.eps(y, t)
    return before, y


def reversible_down(flow: Flow, latent: tuple[Tensor, Tensor], path: Sequence[int]) -> Tensor:
    """O-BELM downwards."""
    y, above_y = latent
    for last, t, t_next in reversed(list(zip(path, path[1:], path[2:], strict=False))):
        below, above = flow.sigma(t) - flow.sigma(last), flow.sigma(t_next) - flow.sigma(t)
        ratio = below / above
        y, above_y = ratio**2 * above_y + (1 - ratio**2) * y - below * (1 + ratio) * flow.eps(y, t), y
    return y / (1 + flow.sigma(path[0]) ** 2) ** 0.5


def ways(num_steps: int) -> dict[str, tuple[int, Up, Down]]:
    """Name to steps, way up and way down; the fixed points have fewer steps, for their rounds."""

    def twice(flow: Flow, x_0: Tensor, path: Sequence[int]) -> tuple[Tensor, Tensor]:
        return fixed_point_up(flow, x_0, path, 2)

    def thrice(flow: Flow, x_0: Tensor, path: Sequence[int]) -> tuple[Tensor, Tensor]:
        return fixed_point_up(flow, x_0, path, 3)

    return {
        "DDIM": (num_steps, euler_up, euler_down),
        "fixed point, 2 rounds": (round(num_steps * 2 / 3), twice, euler_down),
        "fixed point, 3 rounds": (num_steps // 2, thrice, euler_down),
        "second order": (num_steps, second_order_up, second_order_down),
        "exactly reversible (O-BELM)": (num_steps, reversible_up, reversible_down),
    }


@torch.inference_mode()
def measure(num_images: int, t_mix: int, budgets: Sequence[int]) -> dict[str, Any]:
    """Every way at every budget."""
    model = load_model(str(ROOT / "data/pretrained/avatars64"), device=device(), dtype=torch.float32)
    x_0 = Faces.draw(4, num_images).x_0
    flow = Flow(model)
    fine = euler_up(flow, x_0, timestep_path(t_mix, FINE_STEPS))[1]
    noise = torch.randn(x_0.shape, generator=torch.Generator().manual_seed(0))
    rows: list[dict[str, Any]] = []
    for num_steps in budgets:
        for name, (steps, up, down) in ways(num_steps).items():
            path, flow.calls = timestep_path(t_mix, steps), 0
            latent = up(flow, x_0, path)
            returned = down(flow, latent, path).clamp(-1, 1)
            error = ((returned - x_0) ** 2).flatten(1).mean(1)
            off = (latent[1] - fine).flatten(1).norm(dim=1) / fine.flatten(1).norm(dim=1)
            rows.append({
                "way": name, "steps": steps, "calls": flow.calls,
                "psnr_db": round(float((10 * torch.log10(4 / error)).mean()), 2),
                "radius": round(float(flow.radius(latent[1], t_mix).mean()), 4),
                "off_the_fine_path": round(float(off.mean()), 4),
            })  # fmt: skip
            print(rows[-1], flush=True)
    return {
        "machine": machine.facts(),
        "settings": {
            "images": num_images,
            "t_mix": t_mix,
            "budgets": list(budgets),
            "fine_steps": FINE_STEPS,
            "dtype": "float32",
        },
        "radius_fine": round(float(flow.radius(fine, t_mix).mean()), 4),
        "radius_noised": round(float(flow.radius(x_0 + flow.sigma(t_mix) * noise, t_mix).mean()), 4),
        "rows": rows,
    }


def table(found: dict[str, Any]) -> str:
    """The page's table."""
    header = ["way", "steps", "calls, up and down", "PSNR of what returns, dB", "radius", "off the fine path"]
    rows = [
        [r["way"], str(r["steps"]), str(r["calls"]), f"{r['psnr_db']:.1f}", f"{r['radius']:.2f}",
         f"{r['off_the_fine_path']:.2f}"]
        for r in found["rows"]
    ]  # fmt: skip
    return page.markdown_table(header, rows)


def main() -> None:
    """Measure, write, and say where."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, default=16, help="faces to invert")
    parser.add_argument("--t-mix", type=int, default=299, help="mixing step")
    parser.add_argument("--budgets", type=int, nargs="+", default=[12, 20, 40], help="steps of DDIM")
    asked = parser.parse_args()
    found = measure(asked.images, asked.t_mix, asked.budgets)
    RESULT.write_text(json.dumps(found) + "\n")
    page.fill(PAGE, "inversion", table(found))
    print(f"written: {RESULT.relative_to(ROOT)}, {PAGE.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
