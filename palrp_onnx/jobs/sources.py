"""Sources of records: a file of JSON lines, a table, a folder, a stream.

Every source is read in bounded memory and in a fixed order. All but a stream know their digest and
the number of their records before the first is read.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from palrp_onnx.errors import InputError
from palrp_onnx.inputs.kinds import IMAGE, SOUND, TENSORS, TEXT
from palrp_onnx.inputs.table import import_parquet
from palrp_onnx.jobs.records import Record

#: Largest size of a line, in bytes.
LINE_LIMIT = 64 << 20

_BOM = b"\xef\xbb\xbf"
_CHUNK = 1 << 20
_ROWS = 256
_FIELD_OF = {
    **dict.fromkeys(TEXT, "text_file"),
    **dict.fromkeys(IMAGE, "image"),
    **dict.fromkeys(SOUND, "sound"),
    **dict.fromkeys(TENSORS, "tensors"),
}


@dataclass(frozen=True)
class Facts:
    """What is known of a source before its records are read.

    Attributes:
        kind: ``jsonl``, ``csv``, ``parquet``, ``folder`` or ``stream``.
        sha256: Digest of its bytes; ``None`` for a stream.
        records: About how many records it has; ``None`` for a stream.
        ignored: Number of files in a folder that are not input.
    """

    kind: str
    sha256: str | None
    records: int | None
    ignored: int = 0


class Source(Protocol):
    """A source that can be read from its start."""

    def facts(self) -> Facts:
        """Read the source once, without storing it."""
        ...

    def __iter__(self) -> Iterator[Record]:
        """All records."""
        ...


def open_source(path: Path, stdin: BinaryIO) -> Source:
    """The source at ``path``; ``-`` is JSON lines on ``stdin``.

    Raises:
        InputError: There is no such source, or its type is unknown.
        ResourceError: The source is a table and pyarrow is not installed.
    """
    if str(path) == "-":
        return Stream(stdin)
    if path.is_dir():
        return Folder(path)
    if not path.is_file():
        raise InputError("There is no such file or folder", place=str(path))
    kinds: dict[str, type[JsonLines | Csv | Table]] = {
        ".jsonl": JsonLines,
        ".csv": Csv,
        ".tsv": Csv,
        ".parquet": Table,
    }
    kind = kinds.get(path.suffix.lower())
    if kind is None:
        raise InputError(
            f"unknown file type {path.suffix!r}",
            place=str(path),
            hint="A data set is a .jsonl, .csv, .tsv or .parquet file, a folder, or - for JSON "
            "lines on stdin.",
        )
    return kind(path)


class JsonLines:
    """A file of JSON lines; blank lines are skipped."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def facts(self) -> Facts:  # noqa: D102
        sha, count, last = hashlib.sha256(), 0, b"\n"
        with self._path.open("rb") as stream:
            while chunk := stream.read(_CHUNK):
                sha.update(chunk)
                count += chunk.count(b"\n")
                last = chunk[-1:]
        return Facts("jsonl", sha.hexdigest(), count + (last != b"\n"))

    def __iter__(self) -> Iterator[Record]:
        with self._path.open("rb") as stream:
            yield from read_lines(stream, self._path.name, self._path.parent)


class Stream:
    """JSON lines on a stream, which can be read only once."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def facts(self) -> Facts:  # noqa: D102
        return Facts("stream", None, None)

    def __iter__(self) -> Iterator[Record]:
        return read_lines(self._stream, "stdin", Path())


def read_lines(stream: BinaryIO, name: str, folder: Path) -> Iterator[Record]:
    """One record per line; of a line that is too long an error takes the place of the data."""
    number = 0
    while line := stream.readline(LINE_LIMIT + 1):
        number += 1
        data: bytes | InputError = line.removeprefix(_BOM) if number == 1 else line
        if len(line) > LINE_LIMIT:
            while line and not line.endswith(b"\n"):
                line = stream.readline(_CHUNK)
            data = InputError(f"The line is longer than {LINE_LIMIT >> 20} MiB")
        elif line.isspace():
            continue
        yield Record(number=number, data=data, source=name, folder=folder)


class Folder:
    """The texts, images and tensors of a folder, ordered by name; the name is the id."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def _names(self) -> tuple[list[str], int]:
        files = [p.name for p in self._path.iterdir() if p.is_file() and p.name[0] != "."]
        known = sorted(name for name in files if Path(name).suffix.lower() in _FIELD_OF)
        return known, len(files) - len(known)

    def facts(self) -> Facts:  # noqa: D102
        names, ignored = self._names()
        if not names:
            raise InputError(
                "The folder holds no text (.txt), image, sound (.wav, .flac) or .npz file",
                place=str(self._path),
            )
        sha = hashlib.sha256()
        for name in names:
            with (self._path / name).open("rb") as stream:
                content = hashlib.file_digest(stream, "sha256").hexdigest()
            sha.update(f"{content} {name}\0".encode(errors="surrogateescape"))
        return Facts("folder", sha.hexdigest(), len(names), ignored)

    def __iter__(self) -> Iterator[Record]:
        for number, name in enumerate(self._names()[0], start=1):
            data = {"id": name, _FIELD_OF[Path(name).suffix.lower()]: name}
            yield Record(number=number, data=data, source=self._path.name, folder=self._path)


class Csv:
    """Comma- or tab-separated values: the first row names the fields; empty cells are left out."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._between = "\t" if path.suffix.lower() == ".tsv" else ","

    def facts(self) -> Facts:  # noqa: D102
        facts = JsonLines(self._path).facts()
        next(iter(self), None)  # a first row that names no fields ends the run before it begins
        return replace(facts, kind="csv", records=max((facts.records or 0) - 1, 0))

    def __iter__(self) -> Iterator[Record]:
        csv.field_size_limit(LINE_LIMIT)
        try:
            with self._path.open(encoding="utf-8-sig", newline="") as stream:
                rows = csv.reader(stream, delimiter=self._between, strict=True)
                names = [name.strip() for name in next(rows, [])]
                if len(set(names)) < len(names):
                    raise InputError("two columns have one name", place=str(self._path))
                filled = (row for row in rows if any(row))
                for number, row in enumerate(filled, start=1):
                    yield Record(number, self._fields(names, row), self._path.name, self._folder)
        except (csv.Error, UnicodeDecodeError) as error:
            raise InputError(f"cannot be read: {error}", place=str(self._path)) from error

    @property
    def _folder(self) -> Path:
        return self._path.parent

    def _fields(self, names: list[str], row: list[str]) -> dict[str, str] | InputError:
        if len(row) != len(names):
            return InputError(f"The row has {len(row)} cells, but there are {len(names)} names")
        return {name: cell for name, cell in zip(names, row, strict=True) if cell}


class Table:
    """A Parquet file: its columns are the fields of records; empty cells are left out."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._open()

    def facts(self) -> Facts:  # noqa: D102
        with self._path.open("rb") as stream:
            sha = hashlib.file_digest(stream, "sha256").hexdigest()
        return Facts("parquet", sha, self._open().metadata.num_rows)

    def __iter__(self) -> Iterator[Record]:
        rows = (row for batch in self._batches() for row in batch.to_pylist())
        for number, row in enumerate(rows, start=1):
            data = {name: value for name, value in row.items() if value is not None}
            yield Record(number, data, source=self._path.name, folder=self._path.parent)

    def _batches(self) -> Iterator[Any]:
        try:
            yield from self._open().iter_batches(batch_size=_ROWS)
        except (OSError, ValueError) as error:  # pyarrow's own errors are of this kind
            raise InputError(
                f"cannot be read to its end: {error}", place=str(self._path)
            ) from error

    def _open(self) -> Any:
        parquet = import_parquet()
        try:
            return parquet.ParquetFile(self._path)
        except (OSError, ValueError) as error:  # pyarrow's own errors
            raise InputError(
                f"is not a readable Parquet file: {error}", place=str(self._path)
            ) from error
