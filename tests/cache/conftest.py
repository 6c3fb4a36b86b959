"""The cache is on, in a folder of the test."""

from __future__ import annotations

from pathlib import Path

import pytest

from palrp_onnx.cache.folder import CacheFolder


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CacheFolder:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PALRP_ONNX_CACHE", "1")
    found = CacheFolder.usual()
    assert found is not None
    return found
