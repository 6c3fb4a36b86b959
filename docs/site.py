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
#: A link or a picture of a page: what is before its address, and the address up to its anchor.
_LINK = re.compile(r"(\]\()(?!https?:|mailto:|#)([^)#\s]+)")


def on_files(files: Files, *, config: Any) -> Files:
    """Add the pages."""
    for name, place in [(FRONT, "index.md"), *((page, page) for page in PAGES)]:
        text = (ROOT / name).read_text(encoding="utf-8")
        files.append(File.generated(config, place, content=text))
    return files


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Files) -> str:
    """Point the links of a page at pages of the site; what is not on it is no link."""
    del config
    place = page.file.src_uri
    here = origin(place)

    def turned(match: re.Match[str]) -> str:
        target = placed(normpath(f"{PurePosixPath(here).parent}/{match[2]}"))
        return f"{match[1]}{relpath(target, PurePosixPath(place).parent)}"

    outside = re.compile(r"\[([^\]]+)\]\((?!https?:|mailto:|#)([^)#\s]+)(#[^)]*)?\)")

    def known(match: re.Match[str]) -> str:
        target = placed(normpath(f"{PurePosixPath(here).parent}/{match[2]}"))
        return match[0] if files.get_file_from_path(target) is not None else match[1]

    return _LINK.sub(turned, outside.sub(known, markdown))


def origin(place: str) -> str:
    """The file of the repository that a page of the site is made of."""
    if place == "index.md":
        return FRONT
    return place if place in PAGES else f"docs/{place}"


def placed(name: str) -> str:
    """The place on the site of a file of the repository."""
    return "index.md" if name == FRONT else name.removeprefix("docs/")
