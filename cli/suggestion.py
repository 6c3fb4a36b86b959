"""Names that may have been meant."""

from __future__ import annotations

from collections.abc import Collection
from difflib import get_close_matches


def suggestion(name: str, names: Collection[str]) -> str:
    """`` Did you mean …?``, if one of the names is close."""
    close = get_close_matches(name, names)
    return f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
