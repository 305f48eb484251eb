"""Where shards are computed: in this process, over local processes, or over a Dask cluster.

Only paths and plain values are sent, and results do not depend on where they are computed.
"""

from __future__ import annotations

import logging
import math
import os
import queue
import random
import re
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from boundaryflow.errors import ParamsError, TransientError
from boundaryflow.files import may_pass, scratch_path, write_bytes
from boundaryflow.runtime.cluster_worker import Facts, OtherWorkerError, Task, differences, facts, work_on
from boundaryflow.text import masked

if TYPE_CHECKING:
    from distributed import Client, Future

LOG = logging.getLogger(__name__)
_MAX_ATTEMPTS = 3
_POLL_S = 2.0


class Done(NamedTuple):
    """A group of shards that was written.

    Attributes:
        number: Index of the group.
        num_computed: Rows that were computed for it.
        seconds: Wall time on the worker.
        where: Address of the worker; empty on this machine.
    """

    number: int
    num_computed: int
    seconds: float
    where: str = ""


def fan_out(
    complete: Callable[..., int],
    groups: Sequence[Any],
    context: Mapping[str, Any],
    folder: Path,
    *,
    num_threads: int = 1,
) -> Iterator[Done]:
    """Compute all groups, in any order.

    Args:
        complete: Importable function of (group, context) that writes the shards of a group.
        groups: Groups of shards.
        context: Values that all groups share, pickled for other processes.
        folder: Where shards are written.
        num_threads: Groups at once in this process, if the environment sets neither worker processes nor a cluster.

    Raises:
        ParamsError: The environment names a cluster that cannot be used.
        TransientError: All workers were lost.
    """
    address, workers = os.environ.get("BOUNDARYFLOW_DASK"), _num_workers()
    if address and groups:
        yield from _over_dask(address, complete, groups, context, folder)
    elif workers > 1 and len(groups) > 1:
        yield from _over_processes(workers, complete, groups, context)
    elif num_threads > 1:
        with ThreadPoolExecutor(num_threads) as pool:
            done = pool.map(lambda group: _timed(complete, group, context), groups)
            try:
                for number, (num, seconds) in enumerate(done):
                    yield Done(number, num, seconds)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    else:
        for number, group in enumerate(groups):
            yield Done(number, *_timed(complete, group, context))


def _num_workers() -> int:
    value = os.environ.get("BOUNDARYFLOW_WORKERS", "1")
    if not re.fullmatch("[1-9][0-9]{0,3}", value):
        raise ParamsError(f"BOUNDARYFLOW_WORKERS is {value!r}, must be a whole number from 1 to 9999")
    return int(value)


def _over_processes(
    workers: int, complete: Callable[..., int], groups: Sequence[Any], context: Mapping[str, Any]
) -> Iterator[Done]:
    """Over processes of this machine; after one was killed, half as many continue."""
    left = dict(enumerate(groups))
    while left:
        try:
            with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
                futures = {pool.submit(_timed, complete, group, context): number for number, group in left.items()}
                try:
                    for future in as_completed(futures):
                        num, seconds = future.result()
                        del left[futures[future]]
                        yield Done(futures[future], num, seconds)
                except BaseException:
                    pool.shutdown(wait=False, cancel_futures=True)  # else waiting groups are computed first
                    raise
        except BrokenProcessPool:
            if workers == 1:
                raise TransientError(
                    "a worker process was killed, most likely because memory ran out; set BOUNDARYFLOW_BATCH_SIZE lower"
                ) from None
            workers //= 2
            LOG.warning("a worker process was killed, most likely because memory ran out: continuing with %d", workers)


def _timed(complete: Callable[..., int], group: Any, context: Mapping[str, Any]) -> tuple[int, float]:
    started = time.monotonic()
    num = complete(group, context)
    return num, time.monotonic() - started


def _over_dask(
    address: str, complete: Callable[..., int], groups: Sequence[Any], context: Mapping[str, Any], folder: Path
) -> Iterator[Done]:
    from distributed import Client

    try:
        client = Client(address, timeout=20, set_as_default=False)
    except (OSError, ValueError) as error:
        raise ParamsError(
            f"BOUNDARYFLOW_DASK is {masked(address)!r}: no scheduler answers there "
            f"({masked(str(error))}); start one or unset it"
        ) from None
    with client, _token(folder) as token:
        task = Task(complete, context, facts(), str(Path.cwd()), str(token))
        yield from _Cluster(client, address, task, groups).run()


@contextmanager
def _token(folder: Path) -> Generator[Path]:
    """A file that shows workers that they share this folder and that the run has not ended.

    If the run is killed, the next run of the stage removes it with all other half-written files.
    """
    path = scratch_path(folder.absolute())
    write_bytes(path, b"")
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


class _Cluster:
    """Distributes groups over those workers that match this run."""

    def __init__(self, client: Client, address: str, task: Task, groups: Sequence[Any]) -> None:
        self._client, self._task, self._groups = client, task, groups
        self._address = masked(address)
        self._ended: queue.SimpleQueue[tuple[int, Future[Any]]] = queue.SimpleQueue()
        self._attempts = dict.fromkeys(range(len(groups)), 0)
        self._known: dict[str, str] = {}
        """Worker to how it differs from this run; empty for one that matches."""
        self._futures: dict[int, Future[Any]] = {}

    def run(self) -> Iterator[Done]:
        from distributed import CancelledError, KilledWorker

        self._wait_for_workers()
        for number in range(len(self._groups)):
            self._submit(number)
        while self._futures:
            try:
                number, future = self._ended.get(timeout=_POLL_S)
            except queue.Empty:
                self._wait_for_workers()
                continue
            if self._futures.get(number) is not future:
                continue
            try:
                num, seconds, where = future.result()
            except OtherWorkerError:  # of a worker that joined later
                self._examine()
                self._submit(number)
                continue
            except (KilledWorker, CancelledError, OSError, TransientError) as error:
                if isinstance(error, OSError) and not isinstance(error, ConnectionError) and not may_pass(error):
                    raise
                self._again(number, error)
                continue
            del self._futures[number]
            yield Done(number, num, seconds, where)

    def _submit(self, number: int) -> None:
        """Submit a group to the matching workers; if all known ones match, also to any that join later."""
        workers = self._client.scheduler_info(n_workers=-1)["workers"]
        unfit = [worker for worker in workers if self._known.get(worker)]
        options: dict[str, Any] = {}
        if unfit:
            options |= {"workers": [worker for worker in workers if not self._known.get(worker)]}
        if any("GPU" in about.get("resources", {}) for about in workers.values()):
            options |= {"resources": {"GPU": 1}}
        future = self._client.submit(work_on, self._task, self._groups[number], pure=False, **options)
        self._futures[number] = future
        future.add_done_callback(lambda ended, number=number: self._ended.put((number, ended)))

    def _again(self, number: int, error: BaseException) -> None:
        self._attempts[number] += 1
        reason = (str(error).splitlines() or [""])[0] or type(error).__name__
        if self._attempts[number] >= _MAX_ATTEMPTS:
            raise TransientError(
                f"Dask cluster {self._address}: a shard failed {_MAX_ATTEMPTS} times ({reason}); look at the workers' "
                "logs, and run again: finished shards are kept"
            ) from None
        delay = 2.0 ** self._attempts[number] * random.uniform(0.5, 1.0)  # noqa: S311 - only spreads attempts
        LOG.warning("a shard failed on the cluster and is tried again in %.1f s: %s", delay, reason)
        time.sleep(delay)
        self._wait_for_workers()
        self._submit(number)

    def _wait_for_workers(self) -> None:
        """Wait until there is a matching worker.

        Raises:
            ParamsError: There are workers, but none matches this run.
            TransientError: No worker joined in time.
        """
        deadline = time.monotonic() + _patience_s()
        warned = False
        while not self._examine():
            if any(self._known.values()) and not self._is_restarting():
                worker, reason = next((w, r) for w, r in self._known.items() if r)
                raise ParamsError(
                    f"Dask cluster {self._address}: no worker matches this run, such as {worker}: {reason}; start "
                    "workers from this checkout and this virtual environment"
                )
            if time.monotonic() > deadline:
                raise TransientError(
                    f"Dask cluster {self._address}: no worker for {_patience_s():g} s; start some, and run again: "
                    "finished shards are kept"
                )
            if not warned:
                LOG.warning("Dask cluster %s has no worker: waiting up to %g s for one", self._address, _patience_s())
                warned = True
            time.sleep(_POLL_S)

    def _is_restarting(self) -> bool:
        """Whether all workers have left, so that matching ones may join again."""
        return not self._client.scheduler_info(n_workers=-1)["workers"]

    def _examine(self) -> list[str]:
        """The matching workers; each other one is logged once."""
        workers = list(self._client.scheduler_info(n_workers=-1)["workers"])
        new = [worker for worker in workers if worker not in self._known]
        if new:
            answers: Any = self._client.run(facts, self._task.root, self._task.token, workers=new, on_error="return")
            for worker, theirs in answers.items():
                reason = _what_is_wrong(self._task.expected, theirs)
                self._known[worker] = reason
                if reason:
                    LOG.warning("worker %s is given no shards: %s", worker, reason)
        return [worker for worker in workers if not self._known.get(worker, "unknown")]


def _what_is_wrong(ours: Facts, theirs: Any) -> str:
    if isinstance(theirs, BaseException):
        return f"it cannot import this checkout's code ({type(theirs).__name__}: {theirs})"
    return differences(ours, theirs)


def _patience_s() -> float:
    value = os.environ.get("BOUNDARYFLOW_DASK_WAIT_S", "300")
    try:
        seconds = float(value)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise ParamsError(f"BOUNDARYFLOW_DASK_WAIT_S is {value!r}, must be a number of seconds")
    return seconds
