"""Hostile state of a checkout: what git, a power cut or an editor leaves in the files that DVC and Prefect read.

Each case gets a checkout, damages one file of it and returns that file.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

_CONFLICT = b"<<<<<<< HEAD\na: 1\n=======\na: 2\n>>>>>>> theirs\n"
_RWLOCK, _LOCK = ".dvc/tmp/rwlock", "dvc.lock"
_CONTENTS: dict[str, tuple[str, bytes]] = {
    "rwlock_empty": (_RWLOCK, b""),
    "rwlock_cut": (_RWLOCK, b'{"write": {"a'),
    "rwlock_list": (_RWLOCK, b"[1]"),
    "rwlock_user": (_RWLOCK, b'{"write": {"a": 5}}'),
    "rwlock_pid": (_RWLOCK, b'{"read": {"a": [{"pid": "x", "cmd": "dvc"}]}}'),
    "rwlock_deep": (_RWLOCK, b"[" * 20_000),
    "lock_empty": (_LOCK, b""),
    "lock_cut": (_LOCK, b"schema: '2.0'\nsta"),
    "lock_zeros": (_LOCK, b"\0" * 64),
    "lock_binary": (_LOCK, b"\xff\xfe"),
    "lock_deep": (_LOCK, b"[" * 20_000),
    "lock_version": (_LOCK, b"schema: '9.0'\n"),
    "lock_no_stages": (_LOCK, b"schema: '2.0'\nstages:\n"),
    "lock_list": (_LOCK, b"schema: '2.0'\nstages: []\n"),
    "lock_stage_null": (_LOCK, b"schema: '2.0'\nstages:\n  first@toy:\n"),
    "lock_outs_text": (_LOCK, b"schema: '2.0'\nstages:\n  first@toy:\n    cmd: x\n    outs: text\n"),
    "lock_md5_number": (
        _LOCK,
        b"schema: '2.0'\nstages:\n  first@toy:\n    cmd: x\n    outs:\n    - path: data/first/toy\n      md5: 5\n",
    ),
    "lock_path_cut": (_LOCK, b"schema: '2.0'\nstages:\n  first@toy:\n    cmd: x\n    outs:\n    - path: da\n    - pa"),
    "lock_conflict": (_LOCK, _CONFLICT),
    "graph_conflict": ("dvc.yaml", _CONFLICT),
    "params_conflict": ("params.yaml", _CONFLICT),
}


def _write(name: str, checkout: Path) -> Path:
    relative, content = _CONTENTS[name]
    path = checkout / relative
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def _fifo(checkout: Path) -> Path:
    path = checkout / _LOCK
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    return path


CASES: dict[str, Callable[[Path], Path]] = {name: partial(_write, name) for name in _CONTENTS} | {"fifo_lock": _fifo}
"""Name to a function of a checkout; `rwlock_*` and `lock_*` but `lock_conflict` are what a run makes good by itself."""
