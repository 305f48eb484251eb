"""Stage params: every value of a data set, defaults filled in, and a hash of each file of weights that it names.

DVC compares its output: a changed default, or changed weights, makes the stages stale that read them.
"""

from __future__ import annotations

import sys

import yaml

from boundaryflow.config import load_params
from boundaryflow.config.resolved import resolved
from boundaryflow.files import write_bytes
from boundaryflow.runtime.process import entry, own_folder

_WIDTH = 1000


@entry
def main() -> None:
    """Run for the data set named on the command line."""
    values = resolved(load_params(check_files=False).dataset(sys.argv[1]))
    text = yaml.safe_dump(values, allow_unicode=True, width=_WIDTH)
    write_bytes(own_folder("params", sys.argv[1]) / "params.yaml", text.encode())


if __name__ == "__main__":
    main()
