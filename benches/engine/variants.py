"""Ways to run the frozen network faster on a CPU: how fast each is, how exact, and how long it takes to begin.

    python -m benches.engine.variants [--seconds 3]

On the avatars' denoiser, a batch of noised renders. All in one process and in turns, so that a machine that is busy for
a while slows all of them. Writes benches/results/variants.json and a table in docs/performance.md.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benches import machine, page
from benches.engine.arms import images, network
from boundaryflow.diffusion import NoiseSchedule, noised
from boundaryflow.models.upsampling import fold_upsampling
from boundaryflow.runtime.allocator import keep_freed_memory

ROOT = Path(__file__).parents[2]
RESULT, PAGE = ROOT / "benches/results/variants.json", ROOT / "docs/performance.md"
MODEL, BATCH, NUM_TURNS = "avatars64", 32, 3
TIMESTEPS = (20, 200, 500)
Call = Callable[[Tensor, Tensor], Tensor]
Samples = list[tuple[Tensor, Tensor]]
"""Noised images and their timesteps."""


class Int8Convolution(nn.Module):
    """A convolution in 8-bit integers: weights scaled by output channel, maps by the range that calibration saw.

    Args:
        conv: The convolution.
        low: Least value of its input.
        high: Largest.
        most: Largest absolute value of its output, which the kernel rounds as well.
    """

    def __init__(self, conv: nn.Conv2d, low: float, high: float, most: float) -> None:
        super().__init__()
        self._scale = max((high - low) / 127, 1e-8)  # 7 bits: kernels for AVX2 add pairs of products in 16 bits
        self._zero = round(-low / self._scale)
        self._out_scale = max(most / 127, 1e-8)
        scales = conv.weight.abs().amax((1, 2, 3)).clamp(min=1e-8).double() / 127
        zeros = torch.zeros(len(scales), dtype=torch.long)
        weight = torch.quantize_per_channel(conv.weight.contiguous(), scales, zeros, 0, torch.qint8)
        shape = list(conv.stride), list(conv.padding), list(conv.dilation), conv.groups
        self._packed = torch.ops.quantized.conv2d_prepack(weight, conv.bias, *shape)

    def forward(self, x: Tensor) -> Tensor:
        """Rounded, convolved, and rounded again."""
        rounded = torch.quantize_per_tensor(x, self._scale, self._zero, torch.quint8)
        return torch.ops.quantized.conv2d(rounded, self._packed, self._out_scale, 128).dequantize()


def in_int8(unet: nn.Module, samples: Samples) -> nn.Module:
    """The network with its convolutions in 8-bit integers, but for the first and the last.

    The range of maps is that which they have on `samples`.
    """
    ranges: dict[str, list[float]] = {}

    def noting(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def note(_module: nn.Module, inputs: tuple[Tensor, ...], out: Tensor) -> None:
            low, high, most = ranges.get(name, [0.0, 0.0, 0.0])
            seen = inputs[0]
            ranges[name] = [
                min(low, float(seen.min())),
                max(high, float(seen.max())),
                max(most, float(out.abs().max())),
            ]

        return note

    convolutions = {
        name: part
        for name, part in unet.named_modules()
        if isinstance(part, nn.Conv2d) and name not in ("conv_in", "conv_out")
    }
    hooks = [part.register_forward_hook(noting(name)) for name, part in convolutions.items()]
    for x_t, t in samples:
        unet(x_t, t)
    for hook in hooks:
        hook.remove()
    for name, conv in convolutions.items():
        parent, _, last = name.rpartition(".")
        setattr(unet.get_submodule(parent), last, Int8Convolution(conv, *ranges[name]))
    return unet


def channels_last(unet: nn.Module) -> nn.Module:
    """The network itself, its weights in that layout."""
    return nn.Module.to(unet, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]


def variants(unet: nn.Module, samples: Samples) -> dict[str, Callable[[], Call]]:
    """Name to what prepares it and gives the call."""

    def plain(changed: nn.Module) -> Call:
        return lambda x_t, t: changed(x_t, t).sample

    def compiled(*, freezes: bool) -> Call:
        torch._inductor.config.freezing = freezes  # noqa: SLF001  # pyright: ignore
        torch.compiler.reset()
        return torch.compile(plain(copy.deepcopy(unet)), dynamic=False)

    def half() -> Call:
        changed = copy.deepcopy(unet).to(torch.bfloat16)
        return lambda x_t, t: changed(x_t.bfloat16(), t).sample.float()

    return {
        "as diffusers has it": lambda: plain(network(MODEL)[0]),
        "as the stages open it": lambda: plain(unet),
        "bfloat16": half,
        "torch.compile": lambda: compiled(freezes=False),
        "torch.compile, weights frozen": lambda: compiled(freezes=True),
        "int8 convolutions": lambda: plain(in_int8(channels_last(network(MODEL)[0]), samples)),
    }


def measure(seconds: float) -> dict[str, Any]:
    """Every variant, its calls in turns with those of the others."""
    keep_freed_memory()
    unet, fold = network(MODEL)
    fold_upsampling(unet)
    channels_last(unet)
    schedule = NoiseSchedule.linear()
    drawn = images(MODEL, 2 * BATCH, fold)

    def at_timesteps(x_0: Tensor) -> Samples:
        return [
            (noised(x_0, torch.randn_like(x_0), schedule.alpha_bar(t)).contiguous(memory_format=torch.channels_last),
             torch.full((len(x_0),), t))
            for t in TIMESTEPS
        ]  # fmt: skip

    seen, others = at_timesteps(drawn[:BATCH]), at_timesteps(drawn[BATCH:])
    rows: dict[str, dict[str, Any]] = {}
    calls: dict[str, Call] = {}
    with torch.inference_mode():
        exact = [unet(x_t, t).sample for x_t, t in others]
    for name, prepare in variants(unet, seen).items():
        started = time.perf_counter()
        with torch.inference_mode():
            try:
                call = prepare()
                call(*others[0])
            except Exception as error:  # a compiler is missing, or a kernel
                rows[name] = {"error": f"{type(error).__name__}: {str(error).splitlines()[0]}"}
                continue
            begun = time.perf_counter() - started
            found = [call(x_t, t) for x_t, t in others]
        calls[name] = call
        pairs = zip(found, exact, strict=True)
        error = max(float((a - b).square().mean() / b.square().mean()) ** 0.5 for a, b in pairs)
        rows[name] = {"begin_s": round(begun, 1), "error": round(error, 6), "calls_per_s": 0.0}
        print(name, rows[name], flush=True)
    for _ in range(NUM_TURNS):
        for name, call in calls.items():
            rate = _rate(call, *others[1], seconds)
            rows[name]["calls_per_s"] = round(max(rows[name]["calls_per_s"], rate), 1)
    return {"machine": machine.facts(), "model": MODEL, "batch": BATCH, "rows": rows}


@torch.inference_mode()
def _rate(call: Call, x_t: Tensor, t: Tensor, seconds: float) -> float:
    """Image-calls a second."""
    started, turns = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        call(x_t, t)
        turns += 1
    return turns * len(x_t) / (time.perf_counter() - started)


def table(found: dict[str, Any]) -> str:
    """One line a variant."""
    rows = found["rows"]
    ours = rows["as the stages open it"]["calls_per_s"]
    lines = [
        [name, "failed", str(row["error"]), ""] if "calls_per_s" not in row else
        [name, f"{row['calls_per_s'] / ours:.2f}", f"{row['error']:.1e}", f"{row['begin_s']:.0f}"]
        for name, row in rows.items()
    ]  # fmt: skip
    return page.markdown_table(["network", "speed", "relative error of the noise", "s until the first result"], lines)


def main() -> None:
    """Measure, write, and say where."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=3.0, help="of each variant, in each of three turns")
    seconds = parser.parse_args().seconds
    with tempfile.TemporaryDirectory() as cache:  # what an earlier run compiled would count as begun
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache
        found = measure(seconds)
    RESULT.write_text(json.dumps(found, indent=1) + "\n")
    page.fill(PAGE, "variants", table(found))
    print(f"written: {RESULT.relative_to(ROOT)}, and the table in {PAGE.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
