"""A part of a bench in a process of its own, so that its peak of memory and its allocator are its own."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from benches.checkout import ROOT


def alone(module: str, *arguments: object) -> dict[str, Any]:
    """Run a module that prints one line of JSON last, and return what that says; its log is shown."""
    command = [sys.executable, "-m", module, *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])
