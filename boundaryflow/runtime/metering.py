"""How much of a stage's time its network takes, and the number of network calls."""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boundaryflow.files import write_bytes

if TYPE_CHECKING:
    from torch import Tensor

    from boundaryflow.diffusion import EpsModel, Features


@dataclass
class Tally:
    """Work of a network. A call on a batch of 32 counts as 32 image-calls.

    Attributes:
        image_calls: Images that passed through the network.
        pullbacks: Images for which gradients were computed as well; also counted in `image_calls`.
        directions: Gradients computed for them.
        seconds: Time within the network.
        partial_calls: Images for which it stopped at the layer of their features; also counted in `image_calls`.
    """

    image_calls: int = 0
    pullbacks: int = 0
    directions: int = 0
    seconds: float = 0.0
    partial_calls: int = 0


TALLY = Tally()
"""Work of all networks of this process."""


class Metered:
    """A frozen model whose calls are counted; an `EpsModel` with all other attributes of the model.

    Args:
        model: The model.
        tally: Counts its work.
    """

    def __init__(self, model: EpsModel, tally: Tally) -> None:
        self._model, self.tally = model, tally
        self.image_size, self.channels, self.value_range = model.image_size, model.channels, model.value_range
        self.schedule, self.sha256 = model.schedule, model.sha256

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def eps(self, x_t: Tensor, t: int | Tensor) -> Tensor:
        """See `EpsModel`."""
        return self._timed(len(x_t), lambda: self._model.eps(x_t, t))

    def eps_and_h(self, x_t: Tensor, t: int | Tensor) -> tuple[Tensor, Tensor]:
        """See `EpsModel`."""
        return self._timed(len(x_t), lambda: self._model.eps_and_h(x_t, t))

    def eps_with_h(self, x_t: Tensor, t: int | Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """See `EpsModel`."""
        return self._timed(len(x_t), lambda: self._model.eps_with_h(x_t, t, h))

    def eps_with_h_shift(self, x_t: Tensor, t: int | Tensor, shift: Tensor) -> Tensor:
        """See `EpsModel`."""
        return self._timed(len(x_t), lambda: self._model.eps_with_h_shift(x_t, t, shift))

    def eps_and_features(self, x_t: Tensor, t: int | Tensor, features: Features) -> tuple[Tensor, Tensor]:
        """See `EpsModel`."""
        return self._timed(len(x_t), lambda: self._model.eps_and_features(x_t, t, features))

    def features_only(self, x_t: Tensor, t: int | Tensor, features: Features) -> Tensor:
        """See `EpsModel`."""
        from boundaryflow.diffusion.observation import features_only  # loads torch

        seen = self._timed(len(x_t), lambda: features_only(self._model, x_t, t, features))
        self.tally.partial_calls += len(x_t)
        return seen

    def pullback(
        self, x_t: Tensor, t: int | Tensor, features: Features, normals: Callable[[Tensor], Tensor]
    ) -> tuple[Tensor, Tensor]:
        """See `EpsModel`."""
        eps, pulled = self._timed(len(x_t), lambda: self._model.pullback(x_t, t, features, normals))
        self.tally.pullbacks += len(x_t)
        self.tally.directions += pulled.shape[0] * pulled.shape[1]
        return eps, pulled

    def _timed(self, num: int, call: Callable[[], Any]) -> Any:
        started = time.perf_counter()
        result = call()
        self.tally.seconds += time.perf_counter() - started
        self.tally.image_calls += num
        return result


def cost_path(root: Path, stage: str) -> Path:
    """Where the cost of the last run of a stage is kept, such as `invert@avatars`."""
    return root / ".dvc/tmp/boundaryflow/costs" / f"{stage.replace('/', '_')}.json"


def peak_mib() -> float:
    """The most memory that this process has had.

    On Linux not by `getrusage`, which counts the process that started this one as well.
    """
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:"))
    except (OSError, StopIteration):  # no Linux
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most / 2**20 if sys.platform == "darwin" else most / 1024


def keep_cost(root: Path, stage: str, seconds: float) -> None:
    """Write what a stage took: wall time, peak memory, and the work of its network.

    The time includes shards that other processes computed; memory and network work are those of this process.
    """
    facts = {"seconds": round(seconds, 3), "peak_mib": round(peak_mib(), 1), "network": asdict(TALLY)}
    path = cost_path(root, stage)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, json.dumps(facts, indent=1).encode())
