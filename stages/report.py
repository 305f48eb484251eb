"""Stage report: a folder with an HTML page on the results of all other stages."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from boundaryflow.config import load_params
from boundaryflow.errors import ParamsError
from boundaryflow.report.grids import readme_picture
from boundaryflow.report.inputs import read_inputs
from boundaryflow.report.numbers import shown_strengths
from boundaryflow.report.page import write_page
from boundaryflow.runtime.process import entry, own_folder
from boundaryflow.text import masked_values

LOG = logging.getLogger(__name__)


def run(
    dataset: str,
    *,
    parameters: Mapping[str, Any],
    seed: int,
    num_grid: int,
    num_strips: int,
    num_failures: int,
    root: Path = Path(),
) -> Path:
    """Write data/report/<dataset>/index.html and its pictures.

    Args:
        dataset: Name of the data set.
        parameters: Resolved parameters of the data set, to be shown.
        seed: Seed of the draw of images.
        num_grid: Images per edit, at least 1.
        num_strips: Images per edit shown at every strength; 0 leaves them out.
        num_failures: Length of each list of failures.
        root: The project's root.

    Returns:
        Path of the page.
    """
    page = write_page(
        read_inputs(root, dataset),
        own_folder("report", dataset, root),
        root=root,
        parameters=parameters,
        seed=seed,
        num_grid=num_grid,
        num_strips=num_strips,
        num_failures=num_failures,
    )
    LOG.info("report: %s, %d files", page, sum(1 for file in page.parent.rglob("*") if file.is_file()))
    return page


def draw_readme(dataset: str, path: Path, *, seed: int, root: Path = Path()) -> Path:
    """Draw the picture of the README: input, edited and truth, one column per edit.

    Raises:
        ParamsError: The path is not a PNG's.
    """
    if path.suffix.lower() != ".png":
        raise ParamsError(f"report --readme: {path}: the picture is a PNG, so the name must end in .png")
    inputs = read_inputs(root, dataset)
    best, _ = shown_strengths(inputs.per_image, inputs.edit_names, inputs.strengths)
    path.parent.mkdir(parents=True, exist_ok=True)
    readme_picture(inputs, best, seed=seed).save(path, "PNG", optimize=True)
    LOG.info("report: %s", path)
    return path


@entry
def main() -> None:
    """Run for the data set named on the command line."""
    parser = argparse.ArgumentParser(prog="python -m stages.report", description=main.__doc__)
    parser.add_argument("dataset", help="a data set of params.yaml, such as avatars")
    parser.add_argument("--readme", type=Path, metavar="PNG", help="draw the README's picture instead of the page")
    args = parser.parse_args()
    dataset = load_params().dataset(args.dataset)
    shown = masked_values(dataset.model_dump(mode="json"))
    if args.readme:
        draw_readme(args.dataset, args.readme, seed=dataset.report.seed)
    else:
        run(args.dataset, parameters=shown, **dataset.report.model_dump())


if __name__ == "__main__":
    main()
