"""Rows of tables: names, types, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from palrp_onnx.errors import InputError
from palrp_onnx.inputs import GraphInput
from palrp_onnx.inputs.table import read_table

pytestmark = pytest.mark.quick

FLOAT, INT = np.dtype("float32"), np.dtype("int64")
ROWS = GraphInput("x", FLOAT, ("batch", 2))
COLUMNS = [GraphInput("age", FLOAT, ("batch", 1)), GraphInput("kind", INT, ("batch",))]


def written(folder: Path, text: str) -> Path:
    path = folder / "rows.csv"
    path.write_text(text)
    return path


def test_columns_in_order(tmp_path: Path) -> None:
    sample = read_table(written(tmp_path, "age,income\n31,2.5\n\n64,1e3\n"), [ROWS])
    assert sample.feeds["x"].tolist() == [[31, 2.5], [64, 1000]]
    assert sample.feeds["x"].dtype == FLOAT and sample.subject == "x" and sample.kind == "table"
    assert sample.units is not None and sample.units.text == ["age", "income"]
    bare = read_table(written(tmp_path, "31,2.5\n"), [ROWS])
    assert bare.units is not None and bare.units.text == ["0", "1"]


def test_one_input_a_column(tmp_path: Path) -> None:
    sample = read_table(written(tmp_path, "kind,age\n3,31\n1,64.5\n"), COLUMNS)
    assert sample.feeds["age"].tolist() == [[31], [64.5]]
    assert sample.feeds["kind"].tolist() == [3, 1] and sample.feeds["kind"].dtype == INT


@pytest.mark.parametrize(
    ("text", "inputs", "message"),
    [
        ("", [ROWS], "holds no rows"),
        ("a,b\n", [ROWS], "no rows below the names"),
        ("a,a\n1,2\n", [ROWS], "two columns have one name"),
        ("a,b\n1\n", [ROWS], "row 1 has 1 cells, not 2"),
        ("a,b\n1,\n", [ROWS], "an empty cell"),
        ("a,b\n1,red\n", [ROWS], "'red' is no finite number"),
        ("a;b\n1;2\n", [ROWS], "'1;2' is no finite number .* cells are separated by commas"),
        ("a,b\n1,2_0\n", [ROWS], "'2_0' is no finite number"),
        ("a,b\n1,inf\n", [ROWS], "'inf' is no finite number"),
        ("a,b,c\n1,2,3\n", [ROWS], "has 3 columns, not the 2"),
        ('a,b\n1,"2\n', [ROWS], "no table of comma-separated values"),
        ("1,\n3,4\n", [ROWS], "the first row has numbers beside cells that are none"),
        ("1,NA\n3,4\n", [ROWS], "whether it holds the names"),
        ("kind\n1\n", COLUMNS, "has no column for age"),
        ("1,2\n", COLUMNS, "has no names of columns"),
        ("kind,age,id\n1,2,3\n", COLUMNS, "columns that are no input: id"),
        ("kind,age\n1.5,2\n", COLUMNS, "not whole"),
        ("a,b\n1,2\n", [GraphInput("x", FLOAT, (1, 3, 4, 4))], r"a table is \[rows, columns\]"),
    ],
)
def test_what_is_refused(tmp_path: Path, text: str, inputs: list[GraphInput], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_table(written(tmp_path, text), inputs)


def test_parquet(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "rows.parquet"
    parquet.write_table(arrow.table({"age": [31, 64], "income": [2.5, 1e3]}), path)
    sample = read_table(path, [ROWS])
    assert sample.feeds["x"].tolist() == [[31, 2.5], [64, 1000]]
    assert sample.units is not None and sample.units.text == ["age", "income"]
    parquet.write_table(arrow.table({"age": [31, None], "income": ["a", "b"]}), path)
    with pytest.raises(InputError, match="empty or no finite number"):
        read_table(path, [ROWS])
    path.write_bytes(b"PAR1")
    with pytest.raises(InputError, match="no readable Parquet file"):
        read_table(path, [ROWS])


def test_whole_numbers_keep_all_their_digits(tmp_path: Path) -> None:
    large, name = (1 << 53) + 1, GraphInput("id", INT, ("batch",))
    sample = read_table(written(tmp_path, f"id,age\n{large},1\n7.0,2\n"), [name, COLUMNS[0]])
    assert sample.feeds["id"].tolist() == [large, 7]
    pair = GraphInput("x", INT, ("batch", 2))
    assert read_table(written(tmp_path, f"{large},-1\n"), [pair]).feeds["x"].tolist() == [
        [large, -1]
    ]
    rounded = read_table(written(tmp_path, f"{large},16777217\n"), [ROWS]).feeds["x"]
    assert rounded.tolist() == [[np.float32(large), np.float32(16777217)]]
    with pytest.raises(InputError, match="is no finite number"):
        read_table(written(tmp_path, "a,b\n1" + "0" * 400 + ",1\n"), [ROWS])
    with pytest.raises(InputError, match="not whole"):
        read_table(written(tmp_path, "1" + "0" * 30 + ",1\n"), [pair])
