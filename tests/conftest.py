"""What holds for every test: few threads, no network, nothing written outside temporary folders."""

from __future__ import annotations

import gc
import ipaddress
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import jaxtyping
import pytest

from tests import checked

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared"

_HOME = Path(tempfile.mkdtemp(prefix="boundaryflow-tests-"))

# Set while pytest loads this file, that is before torch, Prefect or DVC can be imported. Child processes inherit it.
os.environ.update(
    {
        # Threads that wait for one another on a busy machine take longer than one that does not.
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
        "HOME": str(_HOME),
        "XDG_CACHE_HOME": str(_HOME / "cache"),
        "XDG_CONFIG_HOME": str(_HOME / "config"),
        "HF_HOME": str(_HOME / "hub"),
        "HF_HUB_OFFLINE": "1",
        "MPLBACKEND": "agg",
        "PREFECT_HOME": str(_HOME / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DVC_GLOBAL_CONFIG_DIR": str(_HOME / "dvc"),
        "DVC_SITE_CACHE_DIR": str(_HOME / "dvc-site"),
        "DVC_NO_ANALYTICS": "1",
        "DO_NOT_TRACK": "1",
    }
)
# Knobs of the person who runs the tests must not decide whether they pass, nor how long they take: without bytecode
# each of the many processes that tests start compiles all of this project.
for _name in [
    name
    for name in os.environ
    if name.startswith("BOUNDARYFLOW_") or name in ("PREFECT_API_URL", "PYTHONDONTWRITEBYTECODE")
]:
    del os.environ[_name]
sys.dont_write_bytecode = False

# Shapes and types in the signatures of the numerical rooms are checked at every call. Of `models` only the networks:
# the rest of it looks at files of the user's, whose values may be of any type.
_CHECKED = ("diffusion", "boundary", "editing", "evaluation", "augmentation", "models.frozen", "models.unet")
jaxtyping.install_import_hook([f"boundaryflow.{room}" for room in _CHECKED], f"{checked.__name__}.check")

# How long an example takes says nothing on a shared machine.
hypothesis.settings.register_profile("boundaryflow", deadline=None)
hypothesis.settings.load_profile("boundaryflow")


# Torch, diffusers and Prefect are some two million objects. Every collection would look at all of them: not while they
# are imported, and not afterwards.
gc.disable()


def pytest_collection_finish() -> None:
    """Leave what was imported out of every later collection, which takes 0.7 s otherwise."""
    gc.enable()
    gc.freeze()


def pytest_unconfigure() -> None:
    """Remove what the tests left in their home."""
    gc.unfreeze()  # libraries complain of what is never collected
    shutil.rmtree(_HOME, ignore_errors=True)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real weights, images and golden outputs that lies beside some checkouts."""
    if not SHARED.is_dir():
        pytest.skip("../shared is not there: it has the third-party files this test compares with")
    return SHARED


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose stages have run, up to the evaluation. Not to be changed: copy it."""
    from tests.small_project import STAGES, run_here, write_project  # imports torch

    folder = write_project(tmp_path_factory.mktemp("project"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BOUNDARYFLOW_PROGRESS", "off")
        run_here(folder, patch, *STAGES, "evaluate")
    return folder


@pytest.fixture
def project(finished: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    from tests.small_project import copy_project

    return copy_project(finished, tmp_path / "project")


@pytest.fixture(autouse=True)
def _no_network(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A test without the marker `network` that connects to another machine fails, and says where to."""
    if request.node.get_closest_marker("network"):
        return
    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, _guarded(getattr(socket.socket, name)))


def _guarded(connect: Any) -> Any:
    def guarded(self: socket.socket, address: Any) -> Any:
        if self.family in (socket.AF_INET, socket.AF_INET6) and not _is_loopback(str(address[0])):
            raise RuntimeError(f"test connects to {address[0]}; mark it `network` or keep it on this machine")
        return connect(self, address)

    return guarded


def _is_loopback(host: str) -> bool:
    if host in ("", "localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@pytest.fixture(autouse=True)
def _same_environment() -> Iterator[None]:
    """What a test sets in the environment ends with it."""
    before = dict(os.environ)
    yield
    for name in os.environ.keys() - before.keys():
        del os.environ[name]
    os.environ.update(before)
