"""Reading a model without its weights: a copy of the graph that refers to the file.

Large initializers of a single-file model become external data of that same file. So the graph is
parsed in milliseconds, weights stay on disk until they are read, and all sessions of ONNX Runtime
map the same pages.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from onnx import StringStringEntryProto, TensorProto

#: Raw data of fewer bytes stays in the message: shapes, scalars, axes.
SMALL = 4096
#: Field numbers of onnx.proto.
_GRAPH, _INITIALIZER, _RAW_DATA = 7, 5, 9
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5


class _Field(NamedTuple):
    number: int
    kind: int
    start: int
    body: int
    end: int


def read_slim(path: Path) -> bytes:
    """The serialised model at ``path`` with large raw data replaced by references to the file.

    Raises:
        ValueError: The file is not a serialised message.
    """
    if path.stat().st_size == 0:
        raise ValueError("an empty file")
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return _model(data, path.name)


def _model(data: mmap.mmap, name: str) -> bytes:
    def change(field: _Field) -> bytes | None:
        return _message(_GRAPH, _graph(data, field, name)) if field.number == _GRAPH else None

    return _rewritten(data, 0, len(data), change)


def _graph(data: mmap.mmap, graph: _Field, name: str) -> bytes:
    def change(field: _Field) -> bytes | None:
        if field.number != _INITIALIZER or field.end - field.body < SMALL:
            return None
        return _message(_INITIALIZER, _tensor(data, field, name))

    return _rewritten(data, graph.body, graph.end, change)


def _tensor(data: mmap.mmap, tensor: _Field, name: str) -> bytes:
    reference = TensorProto()

    def change(field: _Field) -> bytes | None:
        if field.number != _RAW_DATA or field.end - field.body < SMALL:
            return None
        facts = {"location": name, "offset": field.body, "length": field.end - field.body}
        entries = [StringStringEntryProto(key=k, value=str(v)) for k, v in facts.items()]
        reference.CopyFrom(TensorProto(external_data=entries, data_location=TensorProto.EXTERNAL))
        return b""

    body = _rewritten(data, tensor.body, tensor.end, change)
    # Last, as the last of two values counts: some files declare that their data is inside.
    changed: bytes = body + reference.SerializeToString()
    return changed


def _rewritten(
    data: mmap.mmap, start: int, end: int, change: Callable[[_Field], bytes | None]
) -> bytes:
    """A message whose nested messages ``change`` replaces; ``None`` leaves one as it is."""
    out = bytearray()
    for field in _fields(data, start, end):
        changed = change(field) if field.kind == _LENGTH else None
        out += data[field.start : field.end] if changed is None else changed
    return bytes(out)


def _message(number: int, body: bytes) -> bytes:
    return _varint(number << 3 | _LENGTH) + _varint(len(body)) + body


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _fields(data: mmap.mmap, start: int, end: int) -> Iterator[_Field]:
    """The fields of one message, in order."""
    at = start
    while at < end:
        tag, body = _read_varint(data, at, end)
        kind = tag & 7
        if kind == _VARINT:
            stop = _read_varint(data, body, end)[1]
        elif kind == _LENGTH:
            size, body = _read_varint(data, body, end)
            stop = body + size
        elif kind in (_FIXED32, _FIXED64):
            stop = body + (4 if kind == _FIXED32 else 8)
        else:
            raise ValueError(f"a field of unknown kind {kind}")
        if stop > end:
            raise ValueError("a field that is longer than its message")
        yield _Field(tag >> 3, kind, at, body, stop)
        at = stop


def _read_varint(data: mmap.mmap, at: int, end: int) -> tuple[int, int]:
    """(value, offset of its end)."""
    value = shift = 0
    while at < end and shift < 64:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
    raise ValueError("a number that does not end")
