"""The documentation site builds without a warning, from this folder alone, and loads nothing."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from committed import ROOT


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(place)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return place


def test_every_page_is_on_it(site: Path) -> None:
    for page in sorted((ROOT / "docs").rglob("*.md")):
        name = page.relative_to(ROOT / "docs").with_suffix("")
        assert (site / name / "index.html").is_file(), name
    assert "ledger" in (site / "index.html").read_text(encoding="utf-8")
    assert (site / "images" / "review.png").is_file()
    assert not list(site.rglob("*.py"))


def test_references_are_made_from_the_code(site: Path) -> None:
    commands = (site / "reference" / "cli" / "index.html").read_text(encoding="utf-8")
    assert "--explain-input" in commands
    assert "Sentinel" not in commands
    python = (site / "reference" / "python" / "index.html").read_text(encoding="utf-8")
    assert "explain_many" in python
    assert ":class:" not in python
    assert "<blockquote>" not in python


def test_pages_load_nothing_from_elsewhere(site: Path) -> None:
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert not re.findall(r"<(?:script|img|iframe)[^>]+src=\"(?:https?:)?//", text), page
        assert not re.findall(
            r"<link[^>]+rel=\"(?:stylesheet|preconnect)\"[^>]+href=\"https?:", text
        )
