"""The cache is on, in a folder of the test."""

from __future__ import annotations

from pathlib import Path

import pytest

from palrp_onnx.cache.folder import Folder


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PALRP_ONNX_CACHE", "1")
    found = Folder.usual()
    assert found is not None
    return found
