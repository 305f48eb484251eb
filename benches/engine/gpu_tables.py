"""What benches/engine/gpu.py found, as a page's tables."""

from __future__ import annotations

from typing import Any

from benches import page

_HEADER = ["model", "loop", "batch", "dtype", "images/s", "image-calls/s", "TFLOP/s", "of the matmul ceiling"]


def tables(found: dict[str, Any]) -> dict[str, str]:
    """The tables `gpu engine` and `gpu guided`; an arm that failed says so."""
    rows = [row for row in found["rows"] if row["task"] == "invert and edit"]
    guided = [row for row in found["rows"] if row["task"] == "guided edit"]
    engine = [[*_rates(row), f"{row['network_share']:.1%}" if "network_share" in row else ""] for row in rows]
    split = [[*_rates(row), *(_seconds(row, part) for part in ("noise_s", "observe_s", "edit_s"))] for row in guided]
    return {
        "gpu engine": page.markdown_table([*_HEADER, "time in the network"], engine),
        "gpu guided": page.markdown_table([*_HEADER, "s of a batch: noise", "observe", "edit"], split),
    }


def _rates(row: dict[str, Any]) -> list[str]:
    """The cells that both tables have."""
    about = [row["model"], row["arm"], str(row["batch"])]
    if "error" in row:
        return [*about, "failed", "", "", "", ""]
    return [
        *about, row["dtype"], f"{row['images_per_s']:,.2f}", f"{row['image_calls_per_s']:,.0f}",
        f"{row['gflops'] / 1000:.2f}", f"{row['of_ceiling']:.0%}",
    ]  # fmt: skip


def _seconds(row: dict[str, Any], part: str) -> str:
    return f"{row[part]:.3f}" if part in row else ""
