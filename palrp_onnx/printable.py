"""Escaping untrusted text for a terminal."""

from __future__ import annotations


def printable(text: str) -> str:
    """``text`` with every character that is not printable as an escape sequence."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
