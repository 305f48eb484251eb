"""Third-party networks in ONNX and TFLite files of bounded size, run on the CPU.

Libraries of custom operators are never loaded, and ONNX Runtime reads external weights from the network's folder only.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from boundaryflow.errors import CheckpointError
from boundaryflow.evaluation.declared import RUNTIMES, Declaration
from boundaryflow.files import RefusedFileError, read_bytes
from boundaryflow.text import visible

MAX_BYTES = 2**30
"""Limit of a judge's size in bytes; a larger file is refused unread."""
_BATCH_SIZE = 64
_RANK = 4
_Array = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True)
class Port:
    """An input or output of a network.

    Attributes:
        name: Name in the network.
        shape: Sizes of its axes; None for a free axis.
        dtype: Such as float32.
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: str


@dataclass(frozen=True)
class ForeignNet:
    """An opened network.

    Attributes:
        inputs: Its inputs.
        outputs: Its outputs.
        run: Computes an output, given by its index, for a batch.
    """

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    run: Callable[[_Array, int], _Array]


def open_network(path: Path, sha256: str | None = None) -> ForeignNet:
    """Read a network of an ONNX or TFLite file.

    Args:
        path: The file.
        sha256: Its required SHA-256, or None.

    Raises:
        CheckpointError: It is missing, too large, damaged, has another SHA-256, needs operators or files that are not
            read, or its runtime is not installed.
    """
    where = f"judge {visible(str(path))}"
    try:
        data = read_bytes(path, MAX_BYTES)
    except RefusedFileError as error:
        raise CheckpointError(f"{where}: {error.reason}") from None
    except OSError as error:
        raise CheckpointError(f"{where}: cannot be read ({error.strerror}); put the network there") from None
    found = hashlib.sha256(data).hexdigest()
    if sha256 is not None and found != sha256:
        raise CheckpointError(f"{where}: has sha256 {found}, declared is {sha256}; fetch it again, or correct sha256")
    extra = RUNTIMES[path.suffix.lower()]
    try:
        return _onnx(data, path.parent) if extra == "onnx" else _tflite(data)
    except ImportError:
        raise CheckpointError(
            f"{where}: nothing is installed that reads {path.suffix}; run pip install 'boundaryflow[{extra}]'"
        ) from None
    except Exception as error:  # ONNX Runtime's errors have no common base class
        raise CheckpointError(f"{where}: cannot be opened ({_short(error)}); fetch it again, or give another") from None


def _onnx(data: bytes, folder: Path) -> ForeignNet:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 4  # exceptions report errors
    options.add_session_config_entry("session.load_model_format", "ONNX")
    # External weights from this folder only; by default they are looked up in the working folder.
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(folder.resolve()))
    session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    inputs, outputs = (
        tuple(
            Port(port.name, tuple(n if isinstance(n, int) else None for n in port.shape), _numpy_type(port.type))
            for port in ports
        )
        for ports in (session.get_inputs(), session.get_outputs())
    )
    quiet = ort.RunOptions()
    quiet.log_severity_level = 4

    def run(batch: _Array, output: int) -> _Array:
        found: Any = session.run([outputs[output].name], {inputs[0].name: batch}, quiet)[0]
        return found

    return ForeignNet(inputs, outputs, run)


def _numpy_type(name: str) -> str:
    kind = name.removeprefix("tensor(").removesuffix(")")
    return {"float": "float32", "double": "float64"}.get(kind, kind)


def _tflite(data: bytes) -> ForeignNet:
    from ai_edge_litert.interpreter import Interpreter

    interpreter: Any = Interpreter(model_content=data, num_threads=torch.get_num_threads())
    interpreter.allocate_tensors()
    inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()

    def run(batch: _Array, output: int) -> _Array:
        rows: list[_Array] = []
        for row in batch:  # batches of 1: few TFLite networks have a free batch axis, and not all of those work
            interpreter.set_tensor(inputs[0]["index"], row[None])
            interpreter.invoke()
            rows.append(interpreter.get_tensor(outputs[output]["index"]))
        return np.concatenate(rows)

    def ports(found: list[dict[str, Any]]) -> tuple[Port, ...]:
        return tuple(
            Port(f["name"], tuple(int(n) if n >= 0 else None for n in f["shape_signature"]), np.dtype(f["dtype"]).name)
            for f in found
        )

    return ForeignNet(ports(inputs), ports(outputs), run)


class DeclaredNet:
    """A network that was checked against its declaration and run on one grey picture.

    Args:
        declaration: Its declaration.

    Raises:
        CheckpointError: See `open_network`; or the network differs from its declaration.
    """

    def __init__(self, declaration: Declaration) -> None:
        self.declaration = declaration
        self._where = f"judge {visible(str(declaration.path))}"
        self._net = open_network(declaration.network, declaration.sha256)
        try:
            self._check_input()
            self._output = self._position()
        except ValueError as error:
            raise CheckpointError(f"{self._where}: {visible(str(error))}; correct the declaration") from None
        self._batch_size = self._net.inputs[0].shape[0] or _BATCH_SIZE
        side = declaration.image_size or max(declaration.input_size)
        self(torch.full((1, declaration.num_channels, side, side), 0.5))

    def _check_input(self) -> None:
        declared, inputs = self.declaration, self._net.inputs
        if len(inputs) != 1:
            raise ValueError(f"{declared.network.name} takes {len(inputs)} inputs, must take one picture")
        (port,) = inputs
        width, height = declared.input_size
        axes = (
            (declared.num_channels, height, width)
            if declared.layout == "nchw"
            else (height, width, declared.num_channels)
        )
        wrong = len(port.shape) != _RANK or any(n not in (None, m) for n, m in zip(port.shape[1:], axes, strict=True))
        if wrong:
            raise ValueError(
                f"{declared.network.name} takes {shape_of(port)}, but layout, input_size and channel_order say "
                f"{shape_of(Port('', (None, *axes), ''))}"
            )
        if port.dtype != "float32":
            raise ValueError(f"{declared.network.name} takes {port.dtype}, only float32 is supported")
        if port.shape[0] not in (None, 1):
            raise ValueError(f"{declared.network.name} takes batches of {port.shape[0]}, must take any or 1")

    def _position(self) -> int:
        names = [port.name for port in self._net.outputs]
        if self.declaration.output is None and len(names) != 1:
            raise ValueError(f"output must say which of {', '.join(names)[:200]} is read")
        if self.declaration.output is not None and self.declaration.output not in names:
            raise ValueError(f"output is {self.declaration.output!r:.60}, there is {', '.join(names)[:200]}")
        return 0 if self.declaration.output is None else names.index(self.declaration.output)

    def __call__(self, images_01: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k"]:
        """Probabilities of the declared attributes, or identity vectors, on the device of the pictures.

        Raises:
            CheckpointError: The network fails, or its output differs from the declaration.
        """
        found = [self._judged(some.cpu().float()) for some in images_01.split(self._batch_size)]
        return torch.cat(found).to(images_01.device)

    def _judged(self, images_01: Tensor) -> Tensor:
        batch = np.ascontiguousarray(self.declaration.prepare(images_01).numpy())
        try:
            given = np.asarray(self._net.run(batch, self._output))
        except Exception as error:  # as of open_network
            raise CheckpointError(f"{self._where}: the network fails ({_short(error)}); give another") from None
        try:
            if given.dtype.kind != "f" or given.ndim < 1 or len(given) != len(batch):
                raise ValueError(
                    f"gives {given.dtype} {list(given.shape)} for {len(batch)} pictures, must be a row each"
                )
            outputs = torch.from_numpy(given.astype(np.float32, copy=False)).reshape(len(batch), -1)
            highest = max((k for places in self.declaration.attributes.values() for k in places), default=0)
            if highest >= outputs.shape[1]:
                raise ValueError(f"attributes names output {highest}, but the network has 0 to {outputs.shape[1] - 1}")
            if not bool(outputs.isfinite().all()):
                raise ValueError("gives NaN or infinite values for some pictures")
            return self.declaration.probabilities(outputs) if self.declaration.kind == "classify" else outputs
        except ValueError as error:
            raise CheckpointError(f"{self._where}: {error}") from None


def shape_of(port: Port) -> str:
    """Such as [any, 3, 64, 64]."""
    return f"[{', '.join('any' if n is None else str(n) for n in port.shape)}]"


def _short(error: Exception) -> str:
    return visible(" ".join(str(error).split()))[:200]
