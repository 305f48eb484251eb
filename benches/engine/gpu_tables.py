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


def layout_table(found: dict[str, Any]) -> str:
    """Images a second of every preparation in both tasks, and the memory of the guided edit."""
    cells: dict[tuple[str, int, str], dict[str, dict[str, Any]]] = {}
    for row in found["rows"]:
        cells.setdefault((row["model"], row["batch"], row["arm"]), {})[row["task"]] = row
    header = ["model", "batch", "network", "invert and edit, images/s", "guided edit, images/s", "GiB"]
    return page.markdown_table(
        header,
        [
            [model, str(batch), arm, _rate(tasks.get("invert and edit")), _rate(tasks.get("guided edit")),
             str(tasks.get("guided edit", {}).get("memory_gib", ""))]
            for (model, batch, arm), tasks in cells.items()
        ],
    )  # fmt: skip


def _rate(row: dict[str, Any] | None) -> str:
    if row is None:
        return ""
    return "failed" if "error" in row else f"{row['images_per_s']:,.2f}"


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
