"""Stage listing: the files in data/raw/NAME, or in a remote folder, with hashes of their content.

It runs every time, which is cheap: a file whose size, time and inode are unchanged is not read again.
"""

from __future__ import annotations

import logging
import sys
from collections import Counter
from pathlib import PurePosixPath

from boundaryflow.runtime.process import entry
from boundaryflow.sources.archives import UNREADABLE_ARCHIVES
from boundaryflow.sources.listing import Listing, look, write

LOG = logging.getLogger(__name__)


def _log(dataset: str, listing: Listing) -> None:
    files = [*(listing.pictures or ()), *listing.tables]
    count = Counter(file.kind for file in files)
    LOG.info(
        "listing %s: %s: %d pictures, %d archives and LMDBs, %d tables; %d passed over, %d refused", dataset,
        listing.source, count["picture"], count["archive"] + count["lmdb"], count["table"], count["passed"],
        count["refused"],
    )  # fmt: skip
    closed = [file.name for file in files if PurePosixPath(file.name).suffix.lower() in UNREADABLE_ARCHIVES]
    if closed:
        more = f" and {len(closed) - 3} more" if len(closed) > 3 else ""
        LOG.warning("listing %s: %s%s: not opened here; unpack it, or pack it as zip or tar", dataset,
                    ", ".join(closed[:3]), more)  # fmt: skip
    odd = [f"{file.name} ({file.reason})" for file in files if file.kind == "passed" and file.reason]
    if odd:
        LOG.warning("listing %s: %d passed over, such as %s", dataset, len(odd), ", ".join(odd[:3]))


@entry
def main() -> None:
    """Run for the data set named on the command line."""
    listing = look(sys.argv[1])
    write(sys.argv[1], listing)
    _log(sys.argv[1], listing)


if __name__ == "__main__":
    main()
