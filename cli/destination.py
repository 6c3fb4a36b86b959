"""``-o`` and ``--format``: the files that a run writes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from palrp_onnx.errors import UsageError

#: A row, all rows (``None``), or the matrix that they make.
Shown = int | Literal["matrix"] | None
_SUFFIXES = {".json": "json", ".png": "png", ".svg": "svg", ".html": "html"}
_DATA = ("json", "kserve")
_PICTURES = ("png", "svg")


@dataclass(frozen=True)
class Destination:
    """Where results are written: stdout (no path), one file, or a folder.

    ``by_default`` is set for stdout if neither a place nor a format was asked for.
    """

    kind: Literal["stdout", "file", "folder"]
    formats: tuple[str, ...]
    path: Path = Path()
    by_default: bool = False

    @classmethod
    def parse(cls, text: str | None, formats: tuple[str, ...] | None) -> Destination:
        """Read ``-o``: nothing or ``-`` is stdout; ``.json``, ``.png``, ``.svg`` and ``.html``
        are files.

        An existing folder, and a path without suffix or with a slash at its end, is a folder.

        Raises:
            UsageError: The suffix is unknown, or the formats do not fit the place.
        """
        if text is None or text == "-":
            kinds = _only(_DATA, formats, "stdout")
            return cls("stdout", kinds, by_default=text is None and formats is None)
        if not text:
            raise UsageError("-o is empty", hint="The folder where you are is -o .")
        path = Path(text)
        if path.exists() and not path.is_file() and not path.is_dir():  # a device or a pipe
            return cls("file", _only(_DATA, formats, text), path)
        if path.is_dir() or text.endswith("/") or not path.suffix:
            if formats and "kserve" in formats:
                raise UsageError(
                    "Format kserve is written to stdout or to a .json file, not to a folder",
                    hint="Give -o FILE.json, or leave out -o.",
                )
            return cls("folder", formats or ("json", "png"), path)
        kind = _SUFFIXES.get(path.suffix.lower())
        if kind is None:
            raise UsageError(
                f"-o {text}: results are written as .json, .png, .svg or .html, or to a folder",
                hint="If this is a folder whose name has a dot, put a slash at its end.",
            )
        kinds = _DATA if kind == "json" else (kind,)
        return cls("file", _only(kinds, formats, text), path)

    def files(self, name: str, rows: int, *, matrix: bool = False) -> dict[Path, Shown]:
        """Path → the row of the batch that it shows; ``None``: all rows, as JSON or as a page.

        Args:
            name: Name of the input.
            rows: Number of rows.
            matrix: Whether the rows make a matrix. It gets files of its own in a folder, and is
                what a single picture or page shows.

        Raises:
            UsageError: Several rows would be in one picture.
        """
        if self.kind == "stdout":
            return {}
        if self.kind == "file":
            whole = matrix and self.formats[0] in (*_PICTURES, "html")
            return {self.path: "matrix" if whole else self._row(rows)}
        found: dict[Path, Shown] = {}
        if matrix:
            found |= {self.path / f"{name}-matrix.{kind}": "matrix" for kind in self.formats}
        if "json" in self.formats:
            found[self.path / f"{name}.json"] = None
        if "html" in self.formats:
            found[self.path / f"{name}.html"] = None
        for picture in _PICTURES:
            for row in range(rows) if picture in self.formats else ():
                number = f"-{row}" if rows > 1 else ""
                found[self.path / f"{name}{number}.{picture}"] = row
        return found

    def _row(self, rows: int) -> int | None:
        """The row that a single file shows; ``None``: all."""
        if self.formats[0] not in _PICTURES:
            return None
        if rows > 1:
            raise UsageError(
                f"One picture cannot show a batch of {rows} rows",
                hint=f"Name a folder: -o DIR --format {self.formats[0]}.",
            )
        return 0


def _only(kinds: tuple[str, ...], formats: tuple[str, ...] | None, place: str) -> tuple[str, ...]:
    """The one format of a place, the first of its kinds by default."""
    if formats is None:
        return kinds[:1]
    if len(formats) > 1 or formats[0] not in kinds:
        raise UsageError(
            f"{place} can only have the format {' or '.join(kinds)}",
            hint=f"Name a file, as in -o map.{formats[0]}; for several formats a folder: -o DIR.",
        )
    return formats
