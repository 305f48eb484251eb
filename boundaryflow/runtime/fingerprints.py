"""What a result depends on: the code that computes it, found through imports, and the hyperplanes of an edit."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Collection
from functools import cache
from pathlib import Path
from threading import RLock
from typing import cast

from boundaryflow.boundary import Boundaries
from boundaryflow.store.fingerprint import fingerprint

_ROOT = Path(__file__).resolve().parents[2]
_PARSING = RLock()  # Python 3.11: parsing in two threads at once may raise a SystemError
_PACKAGES = ("boundaryflow", "stages", "benches")
DECIDES_NOTHING = (
    "boundaryflow.config",  # values of params.yaml are part of a result's fingerprint themselves
    "boundaryflow.errors",
    "boundaryflow.files",
    "boundaryflow.runtime.allocator",
    "boundaryflow.runtime.cluster_worker",
    "boundaryflow.runtime.fan_out",
    "boundaryflow.runtime.fingerprints",
    "boundaryflow.runtime.metering",
    "boundaryflow.runtime.process",
    "boundaryflow.runtime.provenance",
    "boundaryflow.remote",
    "boundaryflow.store.outbox",
    "boundaryflow.store.outbox_record",
    "boundaryflow.store.remote_outbox",
    "boundaryflow.text",
)
"""Modules that influence no result; all others that a stage imports count as code that its results depend on."""


def code_of(module: str) -> tuple[str, ...]:
    """The project's modules that a module's results depend on: itself and its imports, direct and indirect.

    A name imported from a package whose `__init__` re-exports it counts as an import of the defining module alone.
    Imports within functions count.

    Args:
        module: Such as `stages.edit`.

    Returns:
        Dotted names, sorted, without `DECIDES_NOTHING`.
    """
    found: set[str] = set()
    left = [module]
    with _PARSING:
        while left:
            name = left.pop()
            if name in found or any(name == other or name.startswith(f"{other}.") for other in DECIDES_NOTHING):
                continue
            found.add(name)
            left += _imports(name)
    return tuple(sorted(found))


def code_hash(*modules: str) -> str:
    """Hash of the code that computes a result, without comments and docstrings; see `code_of`.

    It is part of a shard's fingerprint, so that a change of the code makes its shards stale.
    """
    return _hash_of({name for module in modules for name in code_of(module)})


def code_hash_of_all() -> str:
    """Hash of all installed code of the project, by which a worker of another version is recognised."""
    files = [path for package in _PACKAGES[:2] for path in (_ROOT / package).rglob("*.py")]
    names = (".".join(path.relative_to(_ROOT).with_suffix("").parts) for path in files)
    return _hash_of({name.removesuffix(".__init__") for name in names})


def _hash_of(modules: Collection[str]) -> str:
    digest = hashlib.sha256()
    with _PARSING:
        for name in sorted(modules):
            digest.update(f"{name}\n{_meaning(name)}\n".encode())
    return digest.hexdigest()[:16]


def describe(boundaries: Boundaries, *, guided: bool) -> list[str]:
    """The parts of an attribute's boundaries that an edit depends on."""
    used = boundaries.noised if guided else tuple(b for _, b in sorted(boundaries.at_mixing_step.items()))
    return [
        fingerprint(
            space=b.space,
            t=b.t,
            intercept=b.intercept,
            calibration=vars(b.calibration),
            normal=hashlib.sha256(b.normal.numpy().tobytes()).hexdigest(),
            pattern=None if b.pattern is None else hashlib.sha256(b.pattern.numpy().tobytes()).hexdigest(),
        )
        for b in used
    ]


def path_of(module: str) -> Path:
    """The file of one of the project's modules, relative to the root of the repository."""
    path = Path(*module.split("."))
    return path / "__init__.py" if (_ROOT / path).is_dir() else path.with_suffix(".py")


@cache
def _tree(module: str) -> ast.Module:
    """The syntax tree of a module without docstrings."""
    tree = ast.parse((_ROOT / path_of(module)).read_bytes())
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.body:
            first = node.body[0]
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                node.body = node.body[1:]
    return tree


@cache
def _meaning(module: str) -> str:
    return _dump(_tree(module))


def _dump(part: object) -> str:
    """A syntax tree in words, the same in every version of Python.

    Later versions know fields that earlier ones do not have. They are empty where the older syntax is used, and so
    empty fields are left out, which `ast.dump` does from Python 3.13 on only.
    """
    if isinstance(part, ast.AST):
        fields = [(name, value) for name, value in ast.iter_fields(part) if value is not None and value != []]
        return f"{type(part).__name__}({','.join(f'{name}={_dump(value)}' for name, value in fields)})"
    if isinstance(part, list):
        return f"[{','.join(_dump(item) for item in cast(list[object], part))}]"
    return repr(part)


@cache
def _imports(module: str) -> tuple[str, ...]:
    """The project's modules that a module imports directly."""
    found: list[str] = []
    for node in ast.walk(_tree(module)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if _is_ours(alias.name)]
        elif isinstance(node, ast.ImportFrom) and node.module and _is_ours(node.module):
            found += [_home(node.module, alias.name) for alias in node.names]
    return tuple(found)


def _home(module: str, name: str) -> str:
    """The module that `from module import name` takes the name from."""
    if _is_ours(f"{module}.{name}"):
        return f"{module}.{name}"
    if path_of(module).name == "__init__.py":
        for node in _tree(module).body:
            if isinstance(node, ast.ImportFrom) and node.module and _is_ours(node.module):
                for alias in node.names:
                    if name == (alias.asname or alias.name):
                        return _home(node.module, alias.name)
    return module


@cache
def _is_ours(module: str) -> bool:
    return module.partition(".")[0] in _PACKAGES and (_ROOT / path_of(module)).is_file()
