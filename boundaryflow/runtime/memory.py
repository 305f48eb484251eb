"""Work in chunks, and in smaller ones when memory runs out; the results do not depend on it."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable
from typing import TypeVar

import torch

from boundaryflow.diffusion import EpsModel
from boundaryflow.errors import PipelineError
from boundaryflow.runtime.frozen_model import batch_size

LOG = logging.getLogger(__name__)
_T = TypeVar("_T")
_SIGNS = (
    "can't allocate memory",  # torch's allocator on a CPU
    "not enough memory",
    "out of memory",
    "bad_alloc",
    "could not create a memory object",  # oneDNN
    "could not create a primitive",
)
_learned: list[int] = []


def chunk_size(model: EpsModel | None = None) -> int:
    """Images in one network call: `batch_size`, or fewer if memory ran out with that."""
    return min([batch_size(model), *_learned])


def in_chunks(num: int, work: Callable[[slice], _T], model: EpsModel | None = None) -> list[_T]:
    """Process a number of items, chunk by chunk.

    If memory runs out in a chunk, that chunk is processed again in halves, and so are all later ones.

    Args:
        num: Number of items.
        work: Processes a slice of them.
        model: The frozen model that it uses.

    Returns:
        Its results, in order.

    Raises:
        PipelineError: Memory runs out with a single item.
    """
    done: list[_T] = []
    start = 0
    while start < num:
        first = start

        def some(size: int, first: int = first) -> tuple[_T, int]:
            stop = min(first + size, num)
            return work(slice(first, stop)), stop

        result, start = with_less(some, model)
        done.append(result)
    return done


def with_less(work: Callable[[int], _T], model: EpsModel | None = None) -> _T:
    """Call a function with a batch size, and again with half of it each time memory runs out.

    Args:
        work: Takes the number of images in one network call.
        model: The frozen model that it uses.

    Returns:
        Its result.

    Raises:
        PipelineError: Memory runs out with a batch of one.
    """
    while True:
        size = chunk_size(model)
        try:
            return work(size)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            reason = (str(error).splitlines() or [type(error).__name__])[0]
        if size == 1:
            raise PipelineError(
                f"there is not enough memory for one image at a time ({reason}); stop other programs that use it, "
                "or use a machine or device with more"
            )
        _learned[:] = [size // 2]
        LOG.warning(
            "not enough memory for %d images at once (%s): going on with %d (BOUNDARYFLOW_BATCH_SIZE=%d)",
            size,
            reason,
            size // 2,
            size // 2,
        )
        _free()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory ran out; torch and its backends report that in several ways."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in _SIGNS)


def forget() -> None:
    """Try the full batch size again."""
    _learned.clear()


def _free() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
