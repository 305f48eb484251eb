"""Files of torch.save and torch.jit.save: their tensors, read without running any code in the file.

torch's own readers are not used: torch.jit.load runs code of a TorchScript archive (`__setstate__`), and torch.load
depends on environment variables. Here the structure of the file is read as data
(`boundaryflow.formats.pickles`), tensors are views of the file's bytes, and all sizes are checked against those bytes
before memory is allocated.
"""

from __future__ import annotations

import errno
import io
import lzma
import math
import mmap
import struct
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from boundaryflow.errors import CheckpointError
from boundaryflow.files import RefusedFileError, check_regular
from boundaryflow.formats.pickles import RefusedPickleError, ScriptObject, Storage, read_pickle

_MAX_PLAN_BYTES = 32 * 2**20
_MAX_SHARING = 2
"""Tensors may share storage (tied weights); their total size is limited to this multiple of the file's size."""
_MAX_OBJECTS = 100_000
_CODE_WITHIN = ("torch_utils.persistence.", "dnnlib.")
"""The function that pickles of github.com/NVlabs/edm and its predecessors call first."""
_DTYPES = {
    "FloatStorage": torch.float32, "HalfStorage": torch.float16, "DoubleStorage": torch.float64,
    "BFloat16Storage": torch.bfloat16, "LongStorage": torch.int64, "IntStorage": torch.int32,
    "ShortStorage": torch.int16, "CharStorage": torch.int8, "ByteStorage": torch.uint8, "BoolStorage": torch.bool,
    "ComplexFloatStorage": torch.complex64, "ComplexDoubleStorage": torch.complex128,
}  # fmt: skip
_OLD_MAGIC, _OLD_VERSION = 0x1950A86A20F9469CFC6C, 1001  # torch/serialization.py, before torch 1.6
_DAMAGED = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, ValueError, LookupError, TypeError, RuntimeError,
    EOFError, OSError, OverflowError, MemoryError,
)  # fmt: skip
"""Errors that reading a damaged file may raise; MemoryError if compressed data needs a large dictionary."""
_LOCAL_HEADER = 30  # APPNOTE.TXT 4.3.7: bytes of a zip's local file header before name and extra field


@dataclass(frozen=True)
class TorchFile:
    """Content of a file of torch.

    Attributes:
        content: Numbers, texts, lists, dicts and tensors; of a TorchScript archive a dict from dotted name to tensor.
        is_script: Whether it is a TorchScript archive.
    """

    content: Any
    is_script: bool


def read_torch_file(path: Path, what: str = "model") -> TorchFile:
    """Read a file of torch.save or torch.jit.save; its tensors are mapped, not copied, where that is possible.

    Args:
        path: The file.
        what: Noun for messages.

    Raises:
        CheckpointError: It is not such a file, is damaged, or contains more than tensors and plain values.
    """
    try:
        check_regular(path)
        with path.open("rb") as file:
            return _read_archive(file) if zipfile.is_zipfile(file) else TorchFile(_read_old(file), is_script=False)
    except RefusedPickleError as error:
        if error.wants.startswith(_CODE_WITHIN):
            raise CheckpointError(
                f"{what} {path}: it is a pickle of NVlabs' (EDM, StyleGAN), which carries the code of its network; "
                "nothing in it was run. EDM networks have noise levels instead of timesteps: save the tensors where "
                "you trust the file, and write the network against the protocol EpsModel (docs/models.md)"
            ) from None
        if error.wants:
            raise CheckpointError(
                f"{what} {path}: {error}; nothing in it was run; only tensors and plain values are read, so save the "
                "state dict alone, on a machine where you trust the file"
            ) from None
        raise CheckpointError(f"{what} {path}: {error}; fetch the file again") from None
    except RefusedFileError as error:
        raise CheckpointError(f"{what} {path}: {error.reason}") from None
    except _DAMAGED as error:
        if isinstance(error, OSError) and error.errno not in (
            None,
            errno.EINVAL,
        ):  # EINVAL: a place beyond any file
            raise
        reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise CheckpointError(
            f"{what} {path}: not a complete checkpoint ({reason}); it is truncated or of another kind, fetch it again"
        ) from None


def check_sharing(path: Path, tensors: Iterable[Tensor], what: str = "model") -> None:
    """Refuse tensors that would need much more memory than their file if each had its own storage.

    Raises:
        CheckpointError: Most of them share storage.
    """
    needed = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    if needed > _MAX_SHARING * path.stat().st_size:
        raise CheckpointError(f"{what} {path}: its tensors need {needed:,} bytes, the file has far fewer")


class _Bytes:
    """The bytes of a file as tensors."""

    def __init__(self, file: BinaryIO) -> None:
        # A private mapping: tensors are writable, and the file is not changed.
        self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        self._left = _MAX_SHARING * len(self._map)
        self._copies: dict[tuple[int, int], bytearray] = {}

    def tensor(
        self, storage: Storage, start: int, length: int, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]
    ) -> Tensor:
        """A tensor of a storage of `length` bytes at offset `start`."""
        dtype = _DTYPES.get(storage.kind)
        if dtype is None:
            raise ValueError(f"numbers of the type {storage.kind} are not read")
        num_bytes = storage.num * dtype.itemsize
        if num_bytes > length or start + length > len(self._map):
            raise ValueError(f"storage {storage.key} has {length:,} bytes where {num_bytes:,} are stated")
        if not num_bytes or 0 in shape:
            return torch.empty(shape, dtype=dtype)
        self._left -= math.prod(shape) * dtype.itemsize
        if self._left < 0:
            raise ValueError("its tensors have more numbers than the file")
        base, first = (self._map, start) if start % dtype.itemsize == 0 else (self._copy(start, num_bytes), 0)
        numbers = torch.frombuffer(base, dtype=dtype, count=storage.num, offset=first)
        return numbers.as_strided(shape, strides, offset)

    def _copy(self, start: int, length: int) -> bytearray:
        """A copy of bytes whose offset is not aligned for their type."""
        if (start, length) not in self._copies:
            if sum(map(len, self._copies.values())) + length > len(self._map):
                raise ValueError("its storages overlap")
            self._copies[start, length] = bytearray(self._map[start : start + length])
        return self._copies[start, length]


def _read_archive(file: BinaryIO) -> TorchFile:
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
        plans = [name for name in names if name.endswith("/data.pkl") and name.count("/") == 1]
        if len(plans) != 1:
            raise ValueError("a zip archive, but not of torch")
        root, content = plans[0].removesuffix("/data.pkl"), _Bytes(file)
        if f"{root}/byteorder" in names and _member(archive, f"{root}/byteorder") != b"little":
            raise ValueError("its numbers are of another byte order")

        def tensor(storage: Storage, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> Tensor:
            start, length = _place(file, archive.getinfo(f"{root}/data/{storage.key}"))
            return content.tensor(storage, start, length, offset, shape, strides)

        found = read_pickle(io.BytesIO(_member(archive, plans[0])), tensor)
        # as torch does
        is_script = f"{root}/constants.pkl" in names
    return TorchFile(_flat(found) if is_script else found, is_script)


def _member(archive: zipfile.ZipFile, name: str) -> bytes:
    with archive.open(name) as member:
        data = member.read(_MAX_PLAN_BYTES + 1)
    if len(data) > _MAX_PLAN_BYTES:
        raise ValueError(f"{name.rpartition('/')[2]} in it has more than {_MAX_PLAN_BYTES:,} bytes")
    return data


def _place(file: BinaryIO, member: zipfile.ZipInfo) -> tuple[int, int]:
    """Offset and number of bytes of an uncompressed member."""
    if member.compress_type != zipfile.ZIP_STORED or member.compress_size != member.file_size or member.flag_bits & 1:
        raise ValueError(f"{member.filename} in it is compressed or encrypted; torch writes it plain")
    file.seek(member.header_offset)
    header = file.read(_LOCAL_HEADER)
    if len(header) < _LOCAL_HEADER or not header.startswith(b"PK\3\4"):
        raise ValueError(f"{member.filename} is not where the archive says")
    lengths = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
    return member.header_offset + _LOCAL_HEADER + lengths, member.file_size


def _flat(root: Any) -> dict[str, Tensor]:
    """Tensors of a TorchScript object and of its submodules, by dotted names."""
    if not isinstance(root, ScriptObject):
        raise ValueError("a TorchScript archive without a module")
    found: dict[str, Tensor] = {}
    left: list[tuple[str, ScriptObject]] = [("", root)]
    num = 0
    while left:
        prefix, parent = left.pop()
        for name, value in parent.items():
            num += 1
            if num > _MAX_OBJECTS or len(prefix) > 2**12:
                raise ValueError("a TorchScript archive of too many parts, or of one within itself")
            if isinstance(value, Tensor):
                found[f"{prefix}{name}"] = value
            elif isinstance(value, ScriptObject):
                left.append((f"{prefix}{name}.", value))
    return found


def _read_old(file: BinaryIO) -> Any:
    """The format before torch 1.6: five pickles, then the storages one after another."""
    file.seek(0)
    head = io.BytesIO(file.read(_MAX_PLAN_BYTES))
    if head.read(1) != b"\x80":
        raise ValueError("it begins neither as a zip archive nor as a pickle")
    head.seek(0)
    storages: dict[str, Storage] = {}

    def note(storage: Storage, *_: Any) -> None:
        if storages.setdefault(storage.key, storage) != storage:
            raise ValueError(f"storage {storage.key} is described in two ways")

    if read_pickle(head, note) != _OLD_MAGIC:
        raise RefusedPickleError("it is a plain pickle, not a checkpoint of tensors; nothing in it was run")
    if read_pickle(head, note) != _OLD_VERSION:
        raise ValueError("of an unknown version")
    machine: Any = read_pickle(head, note)
    if isinstance(machine, Mapping) and machine.get("little_endian") is False:
        raise ValueError("its numbers are of another byte order")
    plan = head.tell()
    read_pickle(head, note)
    keys: Any = read_pickle(head, note)
    places: dict[str, tuple[int, int]] = {}
    at, length = head.tell(), file.seek(0, io.SEEK_END)
    for key in keys:
        storage = storages[key]
        num_bytes = storage.num * (_DTYPES[storage.kind].itemsize if storage.kind in _DTYPES else 1)
        file.seek(at)
        if int.from_bytes(file.read(8), "little") != storage.num or at + 8 + num_bytes > length:
            raise ValueError(f"storage {key} is cut short")
        places[key] = (at + 8, num_bytes)
        at += 8 + num_bytes
    content = _Bytes(file)
    head.seek(plan)
    return read_pickle(head, lambda storage, *rest: content.tensor(storage, *places[storage.key], *rest))
