"""Docstrings for the site: examples become blocks of code, and roles of Sphinx plain code."""

from __future__ import annotations

import re
from typing import Any

import griffe

#: Lines from a prompt to the next blank line, which are code with its results.
_EXAMPLE = re.compile(r"^>>> .*(?:\n.+)*", re.MULTILINE)
_ROLE = re.compile(r":(?:class|func|meth|mod|attr|data):`~?([^`]+)`")


class Markdown(griffe.Extension):
    """Turns every docstring into Markdown when the code is read."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Turn the docstring of a module, a class, a function or an attribute."""
        if obj.docstring is not None:
            obj.docstring.value = markdown(obj.docstring.value)


def markdown(text: str) -> str:
    """The docstring with fences around its examples."""
    fenced = _EXAMPLE.sub(lambda match: f"```pycon\n{match[0]}\n```", text)
    return _ROLE.sub(r"`\1`", fenced)
