"""A Dask scheduler and workers as processes of their own, on this machine."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from tests.small_project import ROOT


class Cluster:
    """Started in a project's folder; ends with the block.

    Args:
        folder: The project.
        scratch: Where workers keep what they spill, and their logs.
        num_workers: How many workers.
        code: Where workers import boundaryflow and stages from.
        resources: Of each worker, such as GPU=1.
        num_threads: Of each worker.
    """

    def __init__(
        self,
        folder: Path,
        scratch: Path,
        num_workers: int = 2,
        *,
        code: Path = ROOT,
        resources: str = "",
        num_threads: int = 1,
    ) -> None:
        self._folder, self._scratch, self._num_workers = folder, scratch, num_workers
        self._code, self._resources, self._num_threads = code, resources, num_threads
        self._port = free_port()
        self.address = f"tcp://127.0.0.1:{self._port}"
        self.scheduler: subprocess.Popen[bytes] | None = None
        self.workers: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        self._scratch.mkdir(parents=True, exist_ok=True)
        options = ["--host", "127.0.0.1", "--port", str(self._port), "--no-dashboard"]
        self.scheduler = self._start("scheduler", ["scheduler", *options], self._folder)
        _wait_for(lambda: _answers(self._port), "the scheduler answers")
        for _ in range(self._num_workers):
            self.add_worker()
        return self

    def __exit__(self, *_: object) -> None:
        for process in [*self.workers, *([self.scheduler] if self.scheduler else [])]:
            if process.poll() is None:
                process.kill()
            process.wait()

    def add_worker(self, code: Path | None = None) -> subprocess.Popen[bytes]:
        """Start one more worker and wait until the scheduler knows it."""
        number = len(self.workers)
        options = ["--no-nanny", "--nthreads", str(self._num_threads), "--no-dashboard", "--host", "127.0.0.1"]
        options += ["--local-directory", str(self._scratch / f"worker-{number}"), "--name", f"worker-{number}"]
        options += ["--resources", self._resources] if self._resources else []
        words = ["worker", self.address, *options]
        process = self._start(f"worker-{number}", words, self._folder, code or self._code)
        self.workers.append(process)
        log = self._scratch / f"worker-{number}.log"
        _wait_for(lambda: "Registered to" in log.read_text(), f"worker {number} is registered", process)
        return process

    def log(self, number: int) -> str:
        """What a worker printed."""
        return (self._scratch / f"worker-{number}.log").read_text()

    def kill(self, number: int) -> None:
        """SIGKILL a worker."""
        self.workers[number].send_signal(signal.SIGKILL)
        self.workers[number].wait()

    def _start(self, name: str, words: list[str], cwd: Path, code: Path = ROOT) -> subprocess.Popen[bytes]:
        env: Mapping[str, str] = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(code)}
        with (self._scratch / f"{name}.log").open("wb") as log:
            command = [sys.executable, "-m", "distributed.cli.dask_" + words[0], *words[1:]]
            return subprocess.Popen(command, cwd=cwd, env=env, stdout=log, stderr=subprocess.STDOUT)


def free_port() -> int:
    """A port of the loopback interface that nobody has now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _wait_for(condition: object, what: str, process: subprocess.Popen[bytes] | None = None) -> None:
    deadline = time.monotonic() + 120
    while not condition():  # type: ignore[operator]
        if time.monotonic() > deadline or (process is not None and process.poll() is not None):
            raise RuntimeError(f"it did not come about that {what}")
        time.sleep(0.1)
