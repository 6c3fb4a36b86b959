"""A headless Chromium, where it and Playwright are installed."""

from __future__ import annotations

import importlib.util
import shutil
from functools import cache
from pathlib import Path

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chrome"))), None)
_MISSING = [
    name
    for name in ("playwright", "axe_playwright_python")
    if importlib.util.find_spec(name) is None
] + ([] if CHROMIUM else ["chromium"])

#: Marks of tests that need a browser.
needs_browser = [
    pytest.mark.browser,
    pytest.mark.skipif(bool(_MISSING), reason=f"not installed: {', '.join(_MISSING)}"),
]


@cache
def axe() -> str:
    """The source of axe-core."""
    found = importlib.util.find_spec("axe_playwright_python")
    assert found is not None and found.origin is not None
    return (Path(found.origin).parent / "axe.min.js").read_text(encoding="utf-8")
