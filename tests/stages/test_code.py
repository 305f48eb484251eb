"""What a shard's recipe knows of the code."""

from __future__ import annotations

from pathlib import Path

import pytest

from stages import code


def test_code_hash_sees_code_and_not_comments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code, "_ROOT", tmp_path)
    module = tmp_path / "room" / "module.py"
    module.parent.mkdir()
    module.write_text('"""One."""\n\ndef f() -> int:\n    """Two."""\n    return 1  # three\n')
    first = code.code_hash("room")
    module.write_text('"""Other."""\n\n\ndef f() -> int:\n    """Words."""\n    # here\n    return 1\n')
    assert code.code_hash("room") == first
    module.write_text('"""Other."""\n\n\ndef f() -> int:\n    return 2\n')
    assert code.code_hash("room") != first
