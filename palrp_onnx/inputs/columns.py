"""Names of units that have none of their own: columns of a table, nodes, steps."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from palrp_onnx.errors import UsageError
from palrp_onnx.inputs.text import lines_of, read_text

#: Names that are for the only input that has as many units.
ANY = ""


def read_columns(options: Sequence[str], inputs: Collection[str]) -> dict[str, tuple[str, ...]]:
    """Names of units by input, from ``INPUT=NAMES`` or ``NAMES`` alone.

    ``NAMES`` is a file with one name a line, or names separated by commas.

    Raises:
        UsageError: There are no names, or a name occurs twice.
        InputError: The file cannot be read.
    """
    found: dict[str, tuple[str, ...]] = {}
    for option in options:
        first, _, rest = option.partition("=")
        own, names = (first, rest) if first in inputs and rest else (ANY, option)
        found[own] = _names(names)
        if len(set(found[own])) < len(found[own]):
            raise UsageError("Two columns have one name", place=f"--columns {option}")
    return found


def _names(text: str) -> tuple[str, ...]:
    """The lines of a file, or the parts between commas."""
    path = Path(text)
    lines = lines_of(read_text(path)) if _is_file(path) else text.split(",")
    names = tuple(line.strip() for line in lines if line.strip())
    if not names:
        raise UsageError("holds no names", place=f"--columns {text}")
    return names


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # many names are longer than that of a file may be
        return False
