"""Results in parts: a part that exists is complete, and parts are the only state."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from palrp_onnx.files import write_files
from palrp_onnx.jobs.results import Line
from palrp_onnx.jobs.tally import Tally, count_lines

Encode = Callable[[Sequence[bytes]], bytes]


class Parts:
    """The parts in one folder.

    Args:
        folder: The folder of the parts.
        table: Encodes the same lines as a Parquet file, if that is wanted.
    """

    def __init__(self, folder: Path, table: Encode | None = None) -> None:
        self._folder = folder
        self._table = table

    def path(self, number: int, suffix: str = ".jsonl") -> Path:
        """Path of a part."""
        return self._folder / f"part-{number:05}{suffix}"

    def tally(self, number: int) -> Tally | None:
        """Counts of a part; ``None`` if it does not exist, or has a line that was cut."""
        path = self.path(number)
        if not path.is_file() or (self._table and not self.path(number, ".parquet").is_file()):
            return None
        try:
            with path.open("rb") as stream:
                return count_lines(stream)
        except msgspec.MsgspecError:
            return None

    def write(self, number: int, lines: Sequence[Line]) -> Tally:
        """Write a part. The file of lines comes last: if it exists, the part is complete.

        Raises:
            OutputError: The folder cannot be written to.
            ResourceError: The disk is full.
        """
        data = [line.data for line in lines]
        if self._table is not None:
            write_files({self.path(number, ".parquet"): self._table(data)})
        write_files({self.path(number): (line + b"\n" for line in data)})
        return count_lines(data)
