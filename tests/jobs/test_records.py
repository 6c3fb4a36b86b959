"""What records may say, and where they come from."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from palrp_onnx.errors import InputError, PalrpError, UsageError
from palrp_onnx.jobs import sources
from palrp_onnx.jobs.records import Record, name_of, parse
from palrp_onnx.jobs.settings import Shard
from palrp_onnx.jobs.sources import open_source, read_lines

pytestmark = pytest.mark.quick

NO_STDIN = io.BytesIO()


def record(data: Any) -> Record:
    return Record(7, data if isinstance(data, bytes) else json.dumps(data).encode(), "x.jsonl")


def test_fields() -> None:
    fields = parse(record({"id": 3, "text": "a", "text_pair": "b", "target": 1, "meta": [None]}))
    assert (fields.id, fields.text, fields.text_pair, fields.target) == (3, "a", "b", 1)
    assert fields.meta == [None]


def test_a_mapping_is_as_good_as_json() -> None:
    mapping = Record(1, {"input_ids": [1, 2], "meta": {"a": 1}})
    assert parse(mapping).input_ids == [1, 2]
    assert name_of(Record(1, {"id": "é", "text": 3})) == "é"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b'"text"',
        b'{"text": "\xff"}',
        b"[" * 100_000,
        {},
        {"id": "a"},
        {"text": "a", "text_file": "b.txt"},
        {"text": "a", "input_ids": [1]},
        {"image": "b.png", "text_pair": "a"},
        {"text": "a", "image": "b.png", "text_pair": "a"},
        {"text": "a", "inputs": {"b": "b.npy"}, "text_pair": "a"},
        {"inputs": {"b": None}},
        {"inputs": {"b": 3}},
        {"text": "a", "continuation": "b", "target": "0"},
        {"text": 3},
        {"txt": "a"},
        {"text": "a", "id": 1.5},
        {"input_ids": ["a"]},
    ],
)
def test_what_is_no_record(data: Any) -> None:
    with pytest.raises(InputError) as caught:
        parse(record(data))
    assert caught.value.place == "x.jsonl:7"


@pytest.mark.parametrize(
    ("data", "name"),
    [
        ({"id": "a", "txt": 3}, "a"),
        ({"id": 12, "text": "a"}, "12"),
        ({"text": "a"}, "7"),
        ({"id": [1]}, "7"),
        (b"nonsense", "7"),
    ],
)
def test_a_damaged_record_keeps_its_id(data: Any, name: str) -> None:
    assert name_of(record(data)) == name


def test_lines_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"id": 1}\r\n\n  \n{"id": 2}')
    source = open_source(path, NO_STDIN)
    found = list(source)
    assert [(r.number, name_of(r), r.folder) for r in found] == [
        (1, "1", tmp_path),
        (4, "2", tmp_path),
    ]
    assert source.facts().records == 4  # an estimate: blank lines are counted


def test_a_line_that_is_too_long_costs_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "LINE_LIMIT", 20)
    stream = io.BytesIO(b'{"id": 1}\n{"id": "' + b"x" * 50 + b'"}\n{"id": 3}\n')
    first, long, last = read_lines(stream, "x", Path())
    assert (name_of(first), name_of(long), name_of(last)) == ("1", "2", "3")
    with pytest.raises(InputError, match="longer"):
        parse(long)


def test_a_folder(tmp_path: Path) -> None:
    for name in ("b.txt", "a.PNG", "c.npz", "d.wav", "notes.csv", ".hidden.txt"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "deeper.txt").mkdir()
    source = open_source(tmp_path, NO_STDIN)
    assert [r.data for r in source] == [
        {"id": "a.PNG", "image": "a.PNG"},
        {"id": "b.txt", "text_file": "b.txt"},
        {"id": "c.npz", "tensors": "c.npz"},
        {"id": "d.wav", "sound": "d.wav"},
    ]
    before = source.facts()
    assert (before.records, before.ignored) == (4, 1)
    (tmp_path / "b.txt").write_bytes(b"y")
    assert source.facts().sha256 != before.sha256


def test_a_table(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "x.parquet"
    rows = [{"id": "a", "text": "t", "meta": {"k": 1}}, {"id": None, "input_ids": [1, 2]}]
    parquet.write_table(arrow.Table.from_pylist(rows, arrow.schema(
        {"id": arrow.string(), "text": arrow.string(), "input_ids": arrow.list_(arrow.int64()),
         "meta": arrow.struct({"k": arrow.int64()})}
    )), path)  # fmt: skip
    source = open_source(path, NO_STDIN)
    first, second = map(parse, source)
    assert (first.id, first.text, first.meta) == ("a", "t", {"k": 1})
    assert (second.id, second.input_ids) == (None, [1, 2])
    assert source.facts().records == 2
    path.write_bytes(b"no table")
    with pytest.raises(InputError, match="table"):
        open_source(path, NO_STDIN)


@pytest.mark.parametrize(("name", "between"), [("x.csv", ","), ("x.tsv", "\t")])
def test_comma_separated_values(tmp_path: Path, name: str, between: str) -> None:
    rows = [
        ["id", "text", "target"],
        ["a", '"a good, ""old""\nfilm\u2028"', "POSITIVE"],
        ["b", "x"],
        ["", "", ""],
        ["", "dull", ""],
    ]
    path = tmp_path / name
    path.write_text("\ufeff" + "\r\n".join(map(between.join, rows)), newline="")
    source = open_source(path, NO_STDIN)
    first, second, third = source
    assert parse(first).text == 'a good, "old"\nfilm\u2028' and parse(first).target == "POSITIVE"
    with pytest.raises(InputError, match="2 cells, but there are 3 names"):
        parse(second)
    assert (parse(third).text, parse(third).target, name_of(third)) == ("dull", None, "3")
    assert (source.facts().kind, third.folder) == ("csv", tmp_path)
    path.write_bytes(b"id,text\na,\xff\n")
    with pytest.raises(InputError, match="cannot be read"):
        list(open_source(path, NO_STDIN))
    path.write_text(f"text{between}text\na{between}b\n")
    with pytest.raises(InputError, match="two columns have one name"):
        open_source(path, NO_STDIN).facts()


@pytest.mark.parametrize("name", ["missing.jsonl", "x.xls", "missing"])
def test_what_is_no_source(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError):
        open_source(tmp_path / name, NO_STDIN)


def test_shards_take_every_record_once() -> None:
    shards = [Shard.parse(f"{i}/3") for i in (1, 2, 3)]
    assert [[s.has(place) for s in shards].count(True) for place in range(10)] == [1] * 10
    assert str(shards[1]) == "2/3"


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "a/b", "1/2/3", "-1/2", "1/0", ""])
def test_what_is_no_shard(text: str) -> None:
    with pytest.raises(UsageError):
        Shard.parse(text)


def test_errors_pass_between_processes() -> None:
    from multiprocessing.reduction import ForkingPickler

    error: PalrpError = InputError("m", place="p", hint="h")
    again = ForkingPickler.loads(ForkingPickler.dumps(error))
    assert (again.message, again.place, again.hint) == ("m", "p", "h")
