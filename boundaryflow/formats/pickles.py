"""Pickles of tensors, read as data: nothing that a pickle names is ever imported or called.

torch stores the structure of a checkpoint as a pickle, a program for a small stack machine. The machine here knows only
the instructions that build numbers, texts, lists and dicts. Names of functions are kept as text: the few with which
torch describes a tensor are recognised, and any other is refused.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, TypeVar

from boundaryflow.text import visible

_MAX_INSTRUCTIONS = 1_000_000
"""Limit of instructions. A checkpoint of 10,000 tensors has about 450,000; each needs up to 100 bytes of memory."""
_MAX_DIMENSIONS = 16
_VALUES = {
    "BININT", "BININT1", "BININT2", "INT", "LONG", "LONG1", "LONG4", "BINFLOAT", "FLOAT", "BINUNICODE", "UNICODE",
    "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BINSTRING", "SHORT_BINSTRING",
}  # fmt: skip
_CONSTANTS: dict[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_TENSOR = ("torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor")
_DICTS = ("collections.OrderedDict", "collections.Counter")
_FIRST_ARGUMENT = {
    "torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state", "torch.Size", "torch.device",
    "builtins.set", "__builtin__.set", "builtins.complex", "__builtin__.complex", "builtins.bytearray",
    "__builtin__.bytearray", "_codecs.encode", "torch.nn.parameter.Parameter", "torch.serialization._get_layout",
    "torch.jit._pickle.restore_type_tag",
    "torch.jit._pickle.build_intlist", "torch.jit._pickle.build_doublelist", "torch.jit._pickle.build_boollist",
    "torch.jit._pickle.build_tensorlist",
}  # fmt: skip
"""Functions of which only the first argument is needed for reading tensors."""
_SUBCLASS = "torch._tensor._rebuild_from_type_v2"
_SCRIPT = "__torch__."
_T = TypeVar("_T")


class RefusedPickleError(ValueError):
    """A pickle is damaged, or contains more than tensors and plain values.

    Attributes:
        wants: Function or class that the pickle calls; empty if it is damaged.
    """

    def __init__(self, reason: str, wants: str = "") -> None:
        super().__init__(reason)
        self.wants = wants


@dataclass(frozen=True)
class Storage:
    """`num` numbers of torch's type `kind`, stored elsewhere in the file under `key`."""

    kind: str
    key: str
    num: int


@dataclass(frozen=True)
class _Named:
    """A function or a class that a pickle names."""

    name: str


class ScriptObject(dict[str, Any]):
    """Attributes of a TorchScript object; its code, elsewhere in the archive, is never read."""


MakeTensor = Callable[[Storage, int, tuple[int, ...], tuple[int, ...]], Any]
"""Function of storage, offset, shape and strides, in numbers of elements, checked to lie within the storage."""


def read_pickle(file: BinaryIO, make_tensor: MakeTensor) -> Any:
    """Read the pickle that begins at the current position of a file; the position is then after its end.

    Args:
        file: A file of bounded size, which also bounds the memory used.
        make_tensor: Makes the value that represents a tensor.

    Raises:
        RefusedPickleError: It is damaged, or contains more than numbers, texts, lists, dicts and tensors.
    """
    machine = _Machine(make_tensor)
    try:
        for num, (opcode, argument, _position) in enumerate(pickletools.genops(file)):
            if num == _MAX_INSTRUCTIONS:
                raise RefusedPickleError(f"the pickle in it has more than {_MAX_INSTRUCTIONS:,} instructions")
            if opcode.name == "STOP":
                return machine.stack.pop()
            machine.do(opcode.name, argument)
    except RefusedPickleError:
        raise
    except (ValueError, TypeError, LookupError, RuntimeError, OverflowError) as error:
        reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise RefusedPickleError(f"the pickle in it is damaged: {visible(reason)}") from None
    raise RefusedPickleError("the pickle in it is damaged: it does not end")


class _Machine:
    def __init__(self, make_tensor: MakeTensor) -> None:
        self.stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}
        self._num_copied = 0
        self._make_tensor = make_tensor

    def do(self, name: str, argument: Any) -> None:  # noqa: C901, PLR0912 - one case per instruction
        """Carry out one instruction. A damaged program raises whatever Python raises on it."""
        stack = self.stack
        if name in _VALUES:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in ("BINPUT", "LONG_BINPUT", "PUT", "MEMOIZE"):
            place = len(self._memo) if name == "MEMOIZE" else _only(int, argument)
            if not 0 <= place < 2**32:
                raise ValueError("it has a memo index beyond 32 bits")
            self._memo[place] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET", "GET"):
            stack.append(self._memo[argument])
        elif name == "MARK":
            self._marks.append(len(stack))
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            stack.append(tuple(self._popped(int(name[-1]))))
        elif name == "TUPLE":
            stack.append(tuple(self._since_mark()))
        elif name in ("EMPTY_LIST", "LIST"):
            stack.append(self._since_mark() if name == "LIST" else [])
        elif name in ("EMPTY_DICT", "DICT"):
            stack.append(_filled({}, self._since_mark() if name == "DICT" else []))
        elif name in ("APPEND", "APPENDS"):
            items = self._since_mark() if name == "APPENDS" else self._popped(1)
            _only(list, stack[-1]).extend(items)
        elif name in ("SETITEM", "SETITEMS"):
            items = self._since_mark() if name == "SETITEMS" else self._popped(2)
            _filled(_only(dict, stack[-1]), items)
        elif name == "POP":
            stack.pop()
        elif name in ("GLOBAL", "STACK_GLOBAL"):
            stack.append(_named(*(argument.split(" ", 1) if name == "GLOBAL" else self._popped(2))))
        elif name in ("REDUCE", "NEWOBJ"):
            function, arguments = self._popped(2)
            stack.append(self._call(function, _only(tuple, arguments)))
        elif name == "BUILD":
            state = stack.pop()
            if isinstance(stack[-1], ScriptObject) and type(state) is dict:
                self._copies(len(state))
                _filled(stack[-1], [part for pair in state.items() for part in pair])
            elif isinstance(stack[-1], _Named):
                raise TypeError("it changes a function")
            # Other objects with a state: _metadata of an OrderedDict, and the argument of a TorchScript object's
            # __setstate__. Neither is needed to read tensors.
        elif name == "BINPERSID":
            stack.append(_storage(_only(tuple, stack.pop())))
        elif name not in ("PROTO", "FRAME"):
            raise RefusedPickleError(f"the pickle in it uses the instruction {name}, which no checkpoint needs")

    def _copies(self, num: int) -> None:
        """Count copied entries, as memoised objects may be copied many times by few instructions."""
        self._num_copied += num
        if self._num_copied > _MAX_INSTRUCTIONS:
            raise RefusedPickleError(f"the pickle in it copies more than {_MAX_INSTRUCTIONS:,} entries")

    def _popped(self, num: int) -> list[Any]:
        if len(self.stack) < num:
            raise IndexError("it reads beyond its stack")
        items = self.stack[-num:]
        del self.stack[-num:]
        return items

    def _since_mark(self) -> list[Any]:
        mark = self._marks.pop()
        items = self.stack[mark:]
        del self.stack[mark:]
        return items

    def _call(self, function: Any, arguments: tuple[Any, ...]) -> Any:
        name = _only(_Named, function).name
        if name in _TENSOR:
            return self._tensor(*arguments[:4])
        if name in _DICTS:
            pairs = _numbers(arguments[0]) if arguments else []
            self._copies(len(pairs))
            return _filled({}, [part for pair in pairs for part in _only(tuple, pair)])
        if name in _FIRST_ARGUMENT:
            return arguments[0]
        if name == _SUBCLASS:  # a tensor with attributes, which contains its construction
            return self._call(arguments[0], _only(tuple, arguments[2]))
        if name.startswith(_SCRIPT):
            return ScriptObject()
        raise RefusedPickleError(f"the pickle in it wants to call {visible(name)}", visible(name))

    def _tensor(self, storage: Any, offset: Any, shape: Any, strides: Any) -> Any:
        if max(len(_numbers(shape)), len(_numbers(strides))) > _MAX_DIMENSIONS:
            raise ValueError(f"a tensor of more than {_MAX_DIMENSIONS} dimensions")
        sizes, steps = (tuple(_count(n) for n in _numbers(part)) for part in (shape, strides))
        first, stored = _count(offset), _only(Storage, storage)
        if len(sizes) != len(steps):
            raise ValueError(f"a tensor of {len(sizes)} dimensions and {len(steps)} strides")
        num, last = 1, first
        for size, step in zip(sizes, steps, strict=True):
            num, last = num * size, last + (size - 1) * step
        if num and (num > stored.num or last >= stored.num):
            raise ValueError(f"a tensor of {num:,} numbers on a storage of {stored.num:,}")
        return self._make_tensor(stored, first, sizes, steps)


def _only(kind: type[_T], value: Any) -> _T:
    """The value if it has exactly this type; subclasses are refused, so that no object of this project is modified."""
    if type(value) is not kind:
        raise TypeError(f"a {type(value).__name__} where a {kind.__name__} is needed")
    return value


def _numbers(value: Any) -> Sequence[Any]:
    return value if type(value) is list else _only(tuple, value)


def _count(value: Any) -> int:
    number = _only(int, value)
    if not 0 <= number < 2**62:
        raise ValueError("a size, stride or offset that is negative or too large")
    return number


def _filled(target: dict[Any, Any], items: Iterable[Any]) -> dict[Any, Any]:
    """Add alternating keys and values to a dict; keys must be texts or numbers without hash collisions."""
    parts = list(items)
    if len(parts) % 2:
        raise ValueError("a key without a value")
    for key, value in zip(parts[::2], parts[1::2], strict=True):
        if not isinstance(key, str | int | bytes | None):
            raise TypeError(f"a {type(key).__name__} as a key")
        if isinstance(key, int) and abs(key) >= 2**60:  # multiples of 2^61 - 1 all have hash 0
            raise ValueError("a number beyond 60 bits as a key")
        target[key] = value
    return target


def _named(module: Any, name: Any) -> _Named:
    full = f"{_only(str, module)}.{_only(str, name)}"
    is_type = module == "torch"  # a dtype or storage type; calling one is refused
    if is_type or full.startswith(_SCRIPT) or full in (*_TENSOR, *_DICTS, *_FIRST_ARGUMENT, _SUBCLASS):
        return _Named(full)
    raise RefusedPickleError(f"the pickle in it wants to call {visible(full)}", visible(full))


def _storage(about: tuple[Any, ...]) -> Storage:
    """From `("storage", type, key, device, number)`; old files have another entry, which is None."""
    word, kind, key, _device, num, *view = about
    if word != "storage" or any(part is not None for part in view):
        raise ValueError("it refers to something else than a storage")
    return Storage(_only(_Named, kind).name.removeprefix("torch."), _only(str, key), _count(num))
