"""Properties are drawn from fixed seeds, so that a run can be repeated; no example is timed."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("repeatable", deadline=None, derandomize=True, database=None)
settings.load_profile("repeatable")
# Records of two runs differ in nothing but times.
os.environ["SOURCE_DATE_EPOCH"] = "1700000000"
# No test reads or writes the cache of the user who runs it. Tests of the cache switch it on.
_CACHE = tempfile.TemporaryDirectory(prefix="palrp-onnx-tests-")
os.environ |= {"XDG_CACHE_HOME": _CACHE.name, "PALRP_ONNX_CACHE": "0"}
# Pictures take the packaged font alone, whatever else is installed.
os.environ["PALRP_ONNX_FONTS"] = ""


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """A quick run imports no file without a quick test: imports take longer than the tests."""
    if config.option.markexpr != "quick" or not collection_path.match("test_*.py"):
        return None
    return "mark.quick" not in collection_path.read_text(encoding="utf-8") or None


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of this run that all its processes have in common."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "shared"
    folder.mkdir(exist_ok=True)
    return folder
