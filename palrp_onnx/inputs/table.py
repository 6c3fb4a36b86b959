"""Tables → arrays: the rows of a CSV or Parquet file are samples, its columns their numbers."""

from __future__ import annotations

import csv
import importlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from palrp_onnx.errors import InputError, ResourceError
from palrp_onnx.inputs.reading import read_bytes
from palrp_onnx.inputs.sample import Feeds, GraphInput, Sample
from palrp_onnx.inputs.signature import describe, describe_input
from palrp_onnx.inputs.tensors import cast_exactly
from palrp_onnx.inputs.text import decode_text
from palrp_onnx.record import InputFacts, Units
from palrp_onnx.types import Array

_LIMIT = 256 << 20


@dataclass(frozen=True)
class _Table:
    """Columns of numbers by name; names are numbers from 0 if the file has none."""

    columns: dict[str, Array]
    named: bool

    @property
    def rows(self) -> int:
        return len(next(iter(self.columns.values())))


def read_table(path: Path, graph_inputs: Sequence[GraphInput]) -> Sample:
    """Read the rows of a table as a batch; the id is the file's stem.

    A graph with one input [B, columns] gets all columns in the order of the file. Where every input
    has one column, columns and inputs belong together by their names.

    Raises:
        InputError: The file cannot be read, a cell is no number, or the columns do not fit.
        ResourceError: Parquet needs pyarrow, which is not installed.
    """
    table = _parquet(path) if path.suffix.lower() == ".parquet" else _csv(path)
    if len(graph_inputs) == 1:
        (only,) = graph_inputs
        array = _matrix(table, only, path)
        return _sample(path, {only.name: array}, only.name, tuple(table.columns))
    missing = [each.name for each in graph_inputs if each.name not in table.columns]
    if missing or not table.named:
        raise InputError(
            f"has no column for {', '.join(missing)}" if table.named else "has no names of columns",
            place=str(path),
            hint="A graph with several inputs gets a file for each: --input NAME=FILE; or columns "
            f"with the names of inputs of one number; {describe(graph_inputs)}.",
        )
    extra = [name for name in table.columns if name not in {e.name for e in graph_inputs}]
    if extra:
        raise InputError(f"has columns that are no input: {', '.join(extra)}", place=str(path))
    feeds = {each.name: _column(table.columns[each.name], each, path) for each in graph_inputs}
    return _sample(path, feeds, None, ())


def _sample(path: Path, feeds: Feeds, subject: str | None, names: tuple[str, ...]) -> Sample:
    units = Units(kind="column", text=list(names), special=[False] * len(names)) if names else None
    return Sample(
        id=path.stem,
        kind="table",
        feeds=feeds,
        facts=InputFacts(kind="table"),
        units=units,
        subject=subject,
    )


def _matrix(table: _Table, graph_input: GraphInput, path: Path) -> Array:
    array = np.stack([_fitting(each, graph_input, path) for each in table.columns.values()], axis=1)
    shape = graph_input.shape
    if shape is not None and len(shape) != array.ndim:
        raise InputError(
            f"a table is [rows, columns], not {describe_input(graph_input)}", place=str(path)
        )
    if shape is not None and isinstance(shape[1], int) and shape[1] != array.shape[1]:
        raise InputError(
            f"has {array.shape[1]} columns, not the {shape[1]} of {describe_input(graph_input)}",
            place=str(path),
            hint="Leave out columns that the model does not take, such as an index or the label.",
        )
    return array


def _fitting(column: Array, graph_input: GraphInput, place: object) -> Array:
    """A column in the graph's type; real numbers are rounded to it, whole ones are not."""
    if graph_input.dtype.kind == "f":
        column = column.astype(np.float64)
    return cast_exactly(column, graph_input, str(place))


def _column(column: Array, graph_input: GraphInput, path: Path) -> Array:
    shape = graph_input.shape
    if shape is not None and len(shape) not in (1, 2):
        raise InputError(f"a column is no {describe_input(graph_input)}", place=str(path))
    array = column if shape is not None and len(shape) == 1 else column[:, None]
    return _fitting(array, graph_input, f"{path}:{graph_input.name}")


def _csv(path: Path) -> _Table:
    text = decode_text(read_bytes(path, limit=_LIMIT), place=str(path))
    try:
        rows = [row for row in csv.reader(io.StringIO(text, newline=""), strict=True) if row]
    except csv.Error as error:
        raise InputError(
            f"is no table of comma-separated values: {error}", place=str(path)
        ) from error
    if not rows:
        raise InputError("holds no rows", place=str(path))
    numbers = [_number(cell) is not None for cell in rows[0]]
    named = not all(numbers)
    if named and any(numbers):
        raise InputError(
            "the first row has numbers beside cells that are none, so that it is open whether it "
            "holds the names",
            place=str(path),
            hint="Write a first row of names alone, or fill the cells that hold no number.",
        )
    names = [name.strip() for name in rows.pop(0)] if named else list(map(str, range(len(rows[0]))))
    if not rows or len(set(names)) < len(names):
        problem = "two columns have one name" if rows else "holds no rows below the names"
        raise InputError(problem, place=str(path))
    cells = [
        [
            _cell(cell, f"{path}, row {number}, column {name}")
            for cell, name in _pairs(row, names, path, number)
        ]
        for number, row in enumerate(rows, 1)
    ]
    columns = zip(names, zip(*cells, strict=True), strict=True)
    return _Table({name: _array(column) for name, column in columns}, named)


def _array(cells: Sequence[float]) -> Array:
    """Whole numbers as such, as float64 has no room for all digits of those above 2⁵³."""
    if all(cell == int(cell) and abs(cell) < 1 << 63 for cell in cells):
        return np.array([int(cell) for cell in cells], np.int64)
    return np.array(cells, np.float64)


def _pairs(
    row: Sequence[str], names: Sequence[str], path: Path, number: int
) -> list[tuple[str, str]]:
    if len(row) != len(names):
        message = f"row {number} has {len(row)} cells, not {len(names)}"
        raise InputError(message, place=str(path), hint="Cells are separated by commas.")
    return list(zip(row, names, strict=True))


def _cell(text: str, place: str) -> float:
    number = _number(text)
    if number is None or not np.isfinite(float(number)):
        problem = "an empty cell" if not text.strip() else f"{text!r} is no finite number"
        hint = "Encode and fill it as for the training; cells are separated by commas."
        raise InputError(problem, place=place, hint=hint)
    return number


def _number(text: str) -> float | None:
    if "_" in text:  # Python reads 1_000
        return None
    try:
        number = float(text)
    except ValueError:
        return None
    try:
        return int(text) if np.isfinite(number) else number
    except ValueError:
        return number


def _parquet(path: Path) -> _Table:
    data = read_bytes(path, limit=_LIMIT)
    parquet = import_parquet()
    try:
        table = parquet.read_table(io.BytesIO(data))
        columns = {name: table.column(name).to_numpy() for name in table.column_names}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"is no readable Parquet file: {error}", place=str(path)) from error
    if not columns or not table.num_rows:
        raise InputError("holds no rows", place=str(path))
    for name, column in columns.items():
        if column.dtype.kind not in "biuf" or not np.isfinite(column).all():
            raise InputError(
                "the column has cells that are empty or no finite number",
                place=f"{path}, column {name}",
                hint="Encode and fill them as for the training.",
            )
    return _Table(columns, named=True)


def import_parquet() -> Any:
    """``pyarrow.parquet``.

    Raises:
        ResourceError: It is not installed.
    """
    try:
        parquet = importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise ResourceError(
            "Parquet needs pyarrow", hint='pip install "palrp-onnx[parquet]".'
        ) from error
    return parquet
