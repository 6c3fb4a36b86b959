"""The long description of the package; everything else is in ``pyproject.toml``.

A page of the package index has no files beside it, so the README goes there without pictures and
links of the repository.
"""

import re
from pathlib import Path

from setuptools import setup


def alone(text: str) -> str:
    """Markdown without pictures, links and comments that mean something only in the repository."""
    text = re.sub(r"^!\[[^\]]*\]\((?!https?:)[^)]*\)\n+", "", text, flags=re.MULTILINE)
    text = re.sub(r"^<!--.*-->\n", "", text, flags=re.MULTILINE)
    return re.sub(r"(?<!!)\[([^\]]+)\]\((?!https?:)[^)]*\)", r"\1", text)


setup(
    long_description=alone(Path(__file__).with_name("README.md").read_text(encoding="utf-8")),
    long_description_content_type="text/markdown",
)
