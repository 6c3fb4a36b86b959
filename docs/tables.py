"""Tables in Markdown that scripts write into pages, between two comments."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping


def table(*heads: str, rows: Iterable[tuple[str, ...]]) -> str:
    """A table in Markdown."""
    lines = [heads, ("---",) * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def with_tables(page: str, script: str, tables: Mapping[str, str]) -> str:
    """A page with its tables as they are now, each in the place that names it and the script."""
    for name, text in tables.items():
        pattern = rf"(<!-- {name}: made by docs/{script} -->\n).*?(<!-- end -->)"
        page, count = re.subn(
            pattern, lambda m, t=text: m[1] + t + "\n" + m[2], page, flags=re.DOTALL
        )
        assert count == 1, f"the page has no place for the table {name}"
    return page
