"""The listing of a remote folder: a table in data/raw/NAME, by which DVC sees that something changed there.

`boundaryflow run` brings it up to date before it asks DVC what is stale; `python -m stages.listing
NAME` does so by hand.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from boundaryflow.errors import ManifestError, ParamsError
from boundaryflow.storage.remote import LISTING, list_remote
from boundaryflow.storage.tables import read_table, write_table
from stages.params import RemoteSource, load_params
from stages.process import entry

LOG = logging.getLogger(__name__)


def listing_path(dataset: str) -> Path:
    """Where the listing of a data set lies."""
    return Path("data/raw") / dataset / "listing.parquet"


def refresh(dataset: str, url: str) -> bool:
    """Bring a listing up to date.

    Returns:
        Whether it changed; the file is left alone if it did not.

    Raises:
        ManifestError: The remote folder cannot be listed. A listing that is there stays, and is not gone by.
    """
    path, now = listing_path(dataset), list_remote(url)
    try:
        if read_table(path, schema=LISTING).equals(now):
            return False
    except ManifestError:
        pass  # missing, damaged or of another version: written anew
    write_table(path, now, schema=LISTING, units={"size": "bytes"})
    LOG.info("listing %s: %d images in %s", dataset, len(now), url)
    return True


@entry
def main() -> None:
    """Run for the data set named on the command line."""
    source = load_params().dataset(sys.argv[1]).ingest.source
    if not isinstance(source, RemoteSource):
        raise ParamsError(f"params.yaml: data.{sys.argv[1]}.ingest.source: is {source.kind}, only remote has a listing")
    refresh(sys.argv[1], source.url)


if __name__ == "__main__":
    main()
