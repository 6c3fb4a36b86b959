from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models  # type: ignore[import-untyped]

from palrp_onnx.errors import InputError
from palrp_onnx.inputs import GraphInput, read_npz
from palrp_onnx.inputs import tensors as tensors_module

pytestmark = pytest.mark.quick

SYMBOLS = ("batch", "seq")
IDS = GraphInput("input_ids", np.dtype(np.int64), SYMBOLS)
MASK = GraphInput("attention_mask", np.dtype(np.int64), SYMBOLS)


def one(dtype: Any, shape: tuple[int | str | None, ...] | None = None) -> list[GraphInput]:
    return [GraphInput("x", np.dtype(dtype), shape)]


def save(folder: Path, **arrays: Any) -> Path:
    path = folder / "sample.npz"
    np.savez(path, **arrays)
    return path


def tokenizer(folder: Path) -> Path:
    vocab = {"[PAD]": 0, "[UNK]": 1, "hello": 2, "world": 3}
    built = Tokenizer(models.WordLevel(vocab, "[UNK]"))
    built.add_special_tokens([AddedToken("[PAD]", special=True)])
    built.save(str(folder / "tokenizer.json"))
    return folder / "tokenizer.json"


def test_sample(tmp_path: Path) -> None:
    ids = np.array([[2, 3], [3, 0]], np.int32)
    path = save(tmp_path, attention_mask=np.ones((2, 2), bool), input_ids=ids)
    sample = read_npz(path, [IDS, MASK])
    assert (sample.id, sample.kind, sample.facts.kind) == ("sample", "tensors", "tensors")
    assert list(sample.feeds) == ["input_ids", "attention_mask"]
    assert all(feed.dtype == np.int64 for feed in sample.feeds.values())
    np.testing.assert_array_equal(sample.feeds["input_ids"], ids)
    assert sample.units is None
    assert sample.warnings == ()


def test_fortran_and_byte_order(tmp_path: Path) -> None:
    array = np.asfortranarray(np.arange(24.0).reshape(2, 3, 4).astype(">f4"))
    feed = read_npz(save(tmp_path, x=array), one(np.float32)).feeds["x"]
    assert feed.flags.c_contiguous
    assert feed.dtype.isnative
    np.testing.assert_array_equal(feed, array)


def test_compressed_files_are_read(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "c.npz", x=np.ones((1, 5)))
    assert read_npz(tmp_path / "c.npz", one(np.float64)).feeds["x"].tolist() == [[1.0] * 5]


def test_units_of_one_row(tmp_path: Path) -> None:
    path = save(tmp_path, input_ids=np.array([[2, 3, 1, 0]]))
    units = read_npz(path, [IDS], tokenizer=tokenizer(tmp_path)).units
    assert units is not None
    assert units.text == ["hello", "world", "[UNK]", "[PAD]"]
    assert units.id == [2, 3, 1, 0]
    assert units.special == [False, False, False, True]
    assert units.start == []


def test_no_units_for_batches_and_for_no_ids(tmp_path: Path) -> None:
    path = save(tmp_path, input_ids=np.array([[2], [3]]))
    assert read_npz(path, [IDS], tokenizer=tokenizer(tmp_path)).units is None
    path = save(tmp_path, x=np.ones((1, 2)))
    assert read_npz(path, one(np.float64), tokenizer=tokenizer(tmp_path)).units is None


@pytest.mark.parametrize("token", [4, -1, 1 << 40])
def test_units_with_the_tokenizer_of_another_model(tmp_path: Path, token: int) -> None:
    path = save(tmp_path, input_ids=np.array([[token]]))
    with pytest.raises(InputError, match="another model"):
        read_npz(path, [IDS], tokenizer=tokenizer(tmp_path))
    with pytest.raises(InputError, match="no tokenizer"):
        read_npz(path, [IDS], tokenizer=tmp_path / "none.json")


@pytest.mark.parametrize(
    ("array", "dtype", "codes"),
    [
        (np.array([1], np.int64), np.int32, []),
        (np.array([2**31 - 1, -(2**31)], np.int64), np.int32, []),
        (np.array([5], np.uint64), np.int64, []),
        (np.array([True]), np.float32, []),
        (np.array([2**24], np.int64), np.float32, []),
        (np.array([0.5], np.float64), np.float32, []),
        (np.array([0.1], np.float64), np.float32, ["rounded"]),
        (np.array([0.1], np.float16), np.float32, []),
        (np.array([0.0, -np.inf]), np.float16, []),  # of a mask
        (np.zeros((1, 4, 0, 8), np.int64), np.int8, []),
    ],
)
def test_casts_that_keep_the_values(
    tmp_path: Path, array: Any, dtype: Any, codes: list[str]
) -> None:
    sample = read_npz(save(tmp_path, x=array), one(dtype))
    assert sample.feeds["x"].dtype == np.dtype(dtype)
    np.testing.assert_allclose(sample.feeds["x"].astype(np.float64), array, rtol=1e-6)
    assert [warning.code for warning in sample.warnings] == codes


@pytest.mark.parametrize(
    ("array", "dtype", "message"),
    [
        (np.array([1.0]), np.int64, "without loss"),
        (np.array([1]), np.bool_, "without loss"),
        (np.array([1]), np.object_, "without loss"),
        (np.array([2**31], np.int64), np.int32, "too large"),
        (np.array([-1], np.int64), np.uint8, "too large"),
        (np.array([2**63], np.uint64), np.int64, "too large"),
        (np.array([2**24 + 1], np.int64), np.float32, "too large"),
        (np.array([1e300]), np.float32, "too large"),
        (np.array([1e6]), np.float16, "too large"),
        (np.array([np.nan]), np.float64, "NaN"),
        (np.array(["a"]), np.float32, "not numbers"),
        (np.array([1j]), np.float32, "not numbers"),
        (np.array(["2020"], "M8[Y]"), np.int64, "not numbers"),
        (np.array([(1,)], [("a", "i4")]), np.int64, "not numbers"),
    ],
)
def test_casts_that_do_not(tmp_path: Path, array: Any, dtype: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_npz(save(tmp_path, x=array), one(dtype))


class Bomb:
    def __reduce__(self) -> Any:
        return (pytest.fail, ("the file was unpickled",))


def test_objects_are_never_unpickled(tmp_path: Path) -> None:
    path = save(tmp_path, x=np.array([Bomb()], dtype=object))
    with pytest.raises(InputError, match="not numbers"):
        read_npz(path, one(np.float32))


def test_names_must_match(tmp_path: Path) -> None:
    path = save(tmp_path, input_ids=np.ones((1, 2), int), mask=np.ones((1, 2), int))
    with pytest.raises(InputError) as caught:
        read_npz(path, [IDS, MASK])
    for part in ("missing: attention_mask", "unknown: mask", "attention_mask int64[batch, seq]"):
        assert part in caught.value.message


@pytest.mark.parametrize("shape", [(1, 9), (1, 7), (3, 8), (1, 8, 1), (), (8,)])
def test_fixed_dimensions(tmp_path: Path, shape: tuple[int, ...]) -> None:
    graph = one(np.float64, (1, 8))
    assert read_npz(save(tmp_path, x=np.ones((1, 8))), graph).feeds["x"].shape == (1, 8)
    with pytest.raises(InputError, match=r"does not fit x float64\[1, 8\]"):
        read_npz(save(tmp_path, x=np.ones(shape)), graph)


def test_batch_sizes(tmp_path: Path) -> None:
    ids = np.ones((2, 3), int)
    with pytest.raises(InputError, match="batch sizes differ: input_ids 2, attention_mask 1"):
        read_npz(save(tmp_path, input_ids=ids, attention_mask=ids[:1]), [IDS, MASK])
    with pytest.raises(InputError, match="batch is empty"):
        read_npz(save(tmp_path, input_ids=ids[:0]), [IDS])
    # A first dimension that the graph fixes is no batch axis, nor has a scalar one.
    table = GraphInput("table", np.dtype(np.int64), (5, None))
    scalar = GraphInput("scale", np.dtype(np.float32), ())
    path = save(tmp_path, input_ids=ids, table=np.ones((5, 1), int), scale=np.float32(2))
    assert read_npz(path, [IDS, table, scalar]).feeds["scale"].shape == ()


def npy(header: str, body: bytes, version: bytes = b"\1\0") -> bytes:
    text = header.encode("latin-1").ljust(117) + b"\n"
    return b"\x93NUMPY" + version + len(text).to_bytes(2, "little") + text + body


def archive(path: Path, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in members.items():
            file.writestr(f"{name}.npy", data)
    return path


HEADER = "{{'descr': '<f4', 'fortran_order': False, 'shape': {}, }}"


@pytest.mark.parametrize(
    "member",
    [
        b"",
        b"hello",
        npy(HEADER.format("(4,)"), b"\0" * 15),
        npy(HEADER.format("(4,)"), b"\0" * 17),
        npy(HEADER.format("(10**15,)"), b""),
        npy(HEADER.format("(1000000000000000,)"), b"\0" * 4),
        npy(HEADER.format("(-1,)"), b""),
        npy(HEADER.format("(-1, -1)"), b"\0" * 4),
        npy("{}", b""),
        npy("[" * 90, b""),
        npy(HEADER.format("(1,)"), b"\0" * 4, b"\3\0"),
        npy(HEADER.format("(1,)"), b"\0" * 4, b"\\9\0"),
    ],
)
def test_damaged_arrays(tmp_path: Path, member: bytes) -> None:
    path = archive(tmp_path / "bad.npz", x=member)
    with pytest.raises(InputError):
        read_npz(path, one(np.float32))


def test_archives_that_are_no_npz(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_npz(tmp_path / "none.npz", one(np.float32))
    with pytest.raises(InputError, match="not a readable"):
        read_npz(tmp_path, one(np.float32))
    path = tmp_path / "x.npz"
    for content in (b"", b"PK", b"hello" * 9, npy(HEADER.format("(1,)"), b"\0" * 4)):
        path.write_bytes(content)
        with pytest.raises(InputError, match="not a readable"):
            read_npz(path, one(np.float32))
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("x.txt", b"hello")
    with pytest.raises(InputError, match="no array"):
        read_npz(path, one(np.float32))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_the_same_array_twice(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as file:
        file.writestr("x.npy", b"")
        file.writestr("x.npy", b"")
    with pytest.raises(InputError, match="same name"):
        read_npz(tmp_path / "x.npz", one(np.float32))


def test_name_that_is_not_utf8(tmp_path: Path) -> None:
    path = archive(tmp_path / "x.npz", é=npy(HEADER.format("(1,)"), b"\0" * 4))
    path.write_bytes(path.read_bytes().replace("é".encode(), b"\xff\xff"))
    with pytest.raises(InputError, match="not a readable"):
        read_npz(path, one(np.float32))


def test_wrong_checksum(tmp_path: Path) -> None:
    path = save(tmp_path, x=np.full((1, 64), 0x11111111, np.int32))
    assert read_npz(path, one(np.int32)).feeds["x"].shape == (1, 64)
    data = path.read_bytes()
    path.write_bytes(data.replace(b"\x11\x11\x11\x11", b"\x11\x12\x11\x11", 1))
    with pytest.raises(InputError, match="not a readable"):
        read_npz(path, one(np.int32))


def test_zip_bombs_are_refused_before_unpacking(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tensors_module, "TENSOR_LIMIT", 1 << 16)
    path = archive(tmp_path / "bomb.npz", x=b"\0" * (1 << 15), y=b"\0" * (1 << 16))
    assert path.stat().st_size < 1 << 12
    with pytest.raises(InputError, match="unpacks to"):
        read_npz(path, one(np.float32))


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_damaged_files_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    buffer = io.BytesIO()
    (np.savez_compressed if data.draw(st.booleans()) else np.savez)(buffer, x=np.ones((1, 4)))
    content = bytearray(buffer.getvalue())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "damaged.npz"
    path.write_bytes(content[: data.draw(st.integers(0, 2 * len(content)))])
    try:
        sample = read_npz(path, one(np.float64))
    except InputError:
        return
    assert np.isfinite(sample.feeds["x"].astype(np.float64)).all()


def test_further_arrays_may_be_empty(tmp_path: Path) -> None:
    """Caches of no tokens are what a session of the model itself is fed."""
    path = tmp_path / "x.npz"
    inputs = [GraphInput("ids", np.dtype(np.int64), ("batch", "tokens"))]
    np.savez(path, ids=np.ones((1, 3), np.int64), past=np.zeros((1, 2, 0, 4), np.float32))
    assert set(read_npz(path, inputs).feeds) == {"ids"}
    np.savez(path, ids=np.ones((1, 3), np.int64), past=np.zeros((1, 2, 1, 4), np.float32))
    with pytest.raises(InputError, match="unknown: past"):
        read_npz(path, inputs)
