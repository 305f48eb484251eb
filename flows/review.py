"""`boundaryflow review`: serves the review page of a data set on the loopback interface, until stopped."""

from __future__ import annotations

import os
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
    with listening_socket(port, or_else="") as own:
        host = f"127.0.0.1:{own.getsockname()[1]}"
        guarded = SameOrigin(app, host)
        config = uvicorn.Config(
            guarded, log_level="error", lifespan="off", access_log=False, ws="none", timeout_graceful_shutdown=5
        )
        ready(f"http://{host}/{token}/")
        with suppress(KeyboardInterrupt):  # uvicorn raises it anew after it has closed
            uvicorn.Server(config).run(sockets=[own])
    return 130


def check_reviewable(root: Path, name: str) -> None:
    """Refuse a name that is not that of a data set.

    Raises:
        ParamsError: It is a job, whose edits cannot be reviewed, or unknown.
    """
    from boundaryflow.config import load_params

    params = load_params(root, check_files=False)  # a review needs no weights
    for kind in ("bulk_edit", "augment"):
        if name not in params.data and name in getattr(params, kind):
            raise ParamsError(
                f"review {name}: is a job of {kind}, and only the edits of data sets can be reviewed; those of its own "
                f"data set: boundaryflow review {getattr(params, kind)[name].dataset}"
            )
    params.dataset(name)


def has_display() -> bool:
    """Whether a browser can be opened here, which is not so over SSH, for example."""
    return sys.platform == "darwin" or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))


def say(text: str) -> None:
    """A line on the terminal."""
    sys.stderr.write(f"boundaryflow review: {text}\n")
    sys.stderr.flush()
