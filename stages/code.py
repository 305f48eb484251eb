"""What the code that makes a result says."""

from __future__ import annotations

import ast
import hashlib
from pathlib import Path

_ROOT = Path(__file__).resolve().parent.parent


def code_hash(*sources: str) -> str:
    """What the code that makes a shard says, comments and docstrings aside.

    It is part of a shard's recipe, so that shards of changed code are computed anew.

    Args:
        sources: Files and folders of modules, from the root of the repository.
    """
    digest = hashlib.sha256()
    for source in sources:
        path = _ROOT / source
        for file in [path] if path.is_file() else sorted(path.rglob("*.py")):
            tree = ast.parse(file.read_text(encoding="utf-8"))
            for node in ast.walk(tree):
                body = getattr(node, "body", None)
                if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and body:
                    first = body[0]
                    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                        node.body = body[1:]
            digest.update(f"{file.relative_to(_ROOT).as_posix()}\n{ast.dump(tree)}\n".encode())
    return digest.hexdigest()[:16]
