"""Hooks of the documentation site: pages of the repository that are outside of this folder.

The README is the front page. Links between pages are those of the repository; here the folder
``docs`` is the root of all pages.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from posixpath import normpath, relpath
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
FRONT = "README.md"
#: Further pages, which keep their names.
PAGES = (
    *("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"),
    *("benchmarks/README.md", "models/README.md"),
)
#: A link of a page to a file: its text, the file, and an anchor; of a picture the same after ``!``.
_LINK = re.compile(r"(!?)\[([^\]]+)\]\((?!https?:|mailto:|#)([^)#\s]+)(#[^)]*)?\)")


def on_files(files: Files, *, config: Any) -> Files:
    """Add the pages."""
    for name, place in [(FRONT, "index.md"), *((page, page) for page in PAGES)]:
        text = (ROOT / name).read_text(encoding="utf-8")
        files.append(File.generated(config, place, content=text))
    return files


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Files) -> str:
    """Point links at pages of the site; what is only in the repository is no link."""
    del config
    place = PurePosixPath(page.file.src_uri)
    here = PurePosixPath(origin(str(place))).parent

    def turned(match: re.Match[str]) -> str:
        picture, text, file, anchor = match.groups()
        name = normpath(f"{here}/{file}")
        target = placed(name)
        if files.get_file_from_path(target) is None and (ROOT / name).exists():
            return text
        return f"{picture}[{text}]({relpath(target, place.parent)}{anchor or ''})"

    return _LINK.sub(turned, markdown)


def origin(place: str) -> str:
    """The file of the repository that a page of the site is made of."""
    if place == "index.md":
        return FRONT
    return place if place in PAGES else f"docs/{place}"


def placed(name: str) -> str:
    """The place on the site of a file of the repository."""
    return "index.md" if name == FRONT else name.removeprefix("docs/")
