"""Stage params: every value of a data set, defaults filled in, and a hash of each file of weights that it names.

DVC compares what it writes: a changed default, or changed weights, make those stages stale that read them.
"""

from __future__ import annotations

import sys
from pathlib import Path

import yaml

from boundaryflow.config import load_params
from boundaryflow.config.resolved import resolved
from boundaryflow.files import write_bytes
from boundaryflow.runtime.process import entry, own_folder

_WIDTH = 1000


def resolved_path(dataset: str) -> Path:
    """Where the values of a data set are written."""
    return own_folder("params", dataset) / "params.yaml"


@entry
def main() -> None:
    """Run for the data set named on the command line."""
    values = resolved(load_params(check_files=False).dataset(sys.argv[1]))
    text = yaml.safe_dump(values, allow_unicode=True, width=_WIDTH)
    write_bytes(resolved_path(sys.argv[1]), text.encode())


if __name__ == "__main__":
    main()
