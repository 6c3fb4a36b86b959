"""One box for all hostile input."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from boxed import Box


@pytest.fixture(scope="session")
def box() -> Iterator[Box]:
    """One for all tests."""
    found = Box()
    yield found
    found.close()


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For files that hypothesis writes over and over."""
    return tmp_path_factory.mktemp("hostile")
