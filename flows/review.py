"""`boundaryflow review`: serves the review page of a data set on the loopback interface, until stopped."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from boundaryflow.errors import ParamsError
from flows.prefect_server import SameOrigin
from flows.server import listening_socket


def serve_review(root: Path, dataset: str, port: int, ready: Callable[[str], None]) -> int:
    """Serve the page until Ctrl-C or SIGTERM.

    It answers only as http://127.0.0.1:PORT, to addresses that begin with a secret made at each start.

    Args:
        root: The checkout.
        dataset: The data set whose edits are reviewed.
        port: Port of the page; 0 for any free one.
        ready: Receives the page's address, before the first request is answered.

    Returns:
        The exit status: 130, as it runs until stopped.

    Raises:
        PipelineError: There is nothing to review, or the port cannot be had.
    """
    import uvicorn

    from boundaryflow.review.app import create_app

    token = secrets.token_urlsafe(24)
    app = create_app(dataset, root, token)
    with listening_socket(port) as own:
        host = f"127.0.0.1:{own.getsockname()[1]}"
        config = uvicorn.Config(SameOrigin(app, host), log_level="error", lifespan="off", access_log=False)
        ready(f"http://{host}/{token}/")
        with suppress(KeyboardInterrupt):  # uvicorn raises it anew after it has closed
            uvicorn.Server(config).run(sockets=[own])
    return 130


def dataset_of(root: Path, name: str | None) -> str:
    """The data set to review.

    Raises:
        ParamsError: It is a job, whose edits cannot be reviewed.
        PipelineError: No name is given, and there are several data sets.
    """
    from boundaryflow.config import load_params
    from flows.cli.common import one_dataset

    params = load_params(root, check_files=False)  # a review needs no weights
    dataset = one_dataset(name) if name is None else name
    for kind in ("bulk_edit", "augment"):
        if dataset not in params.data and dataset in getattr(params, kind):
            raise ParamsError(
                f"review {dataset}: is a job of {kind}, and only the edits of data sets can be reviewed; those of its "
                f"own data set: boundaryflow review {getattr(params, kind)[dataset].dataset}"
            )
    params.dataset(dataset)
    return dataset


def say(text: str) -> None:
    """A line on the terminal."""
    sys.stderr.write(f"boundaryflow review: {text}\n")
    sys.stderr.flush()
