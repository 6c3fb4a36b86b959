"""Tensors of the Open Inference Protocol: as JSON, and as bytes behind the JSON."""

from __future__ import annotations

import base64
import binascii
import math
import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
from msgspec import UNSET, Struct, UnsetType

from palrp_onnx.errors import InputError
from palrp_onnx.types import Array

#: Names of types in the protocol, and in NumPy.
DTYPES: dict[str, str] = {
    "BOOL": "bool",
    "UINT8": "uint8",
    "UINT16": "uint16",
    "UINT32": "uint32",
    "UINT64": "uint64",
    "INT8": "int8",
    "INT16": "int16",
    "INT32": "int32",
    "INT64": "int64",
    "FP16": "float16",
    "FP32": "float32",
    "FP64": "float64",
}
BYTES = "BYTES"
_NAMES = {name: dtype for dtype, name in DTYPES.items()}
_MOST_AXES, _LONGEST_AXIS = 16, 1 << 31


class Tensor(Struct, kw_only=True):
    """An input of a request."""

    name: str
    shape: list[int]
    datatype: str
    parameters: dict[str, Any] = {}
    data: msgspec.Raw | UnsetType = UNSET


class Wanted(Struct, kw_only=True):
    """An output that is asked for."""

    name: str
    parameters: dict[str, Any] = {}


class InferRequest(Struct, kw_only=True):
    """A request of the protocol, for ``infer`` and for ``explain``."""

    inputs: list[Tensor]
    id: str = ""
    parameters: dict[str, Any] = {}
    outputs: list[Wanted] = []


def decode(body: bytes, header: str | None) -> tuple[InferRequest, dict[str, Array | list[bytes]]]:
    """A request, and its inputs by their names: arrays, or the elements of ``BYTES``.

    Args:
        body: The body of the request.
        header: ``Inference-Header-Content-Length``: bytes that are JSON.

    Raises:
        InputError: It is not of the protocol.
    """
    length = len(body)
    if header is not None:
        number = int(header) if re.fullmatch("[0-9]{1,18}", header) else -1
        if not 0 <= number <= length:
            raise InputError(f"Inference-Header-Content-Length cannot be {header[:20]!r}")
        length = number
    request = from_json(body[:length], InferRequest)
    rest, found = memoryview(body)[length:], dict[str, Array | list[bytes]]()
    for each in request.inputs:
        if each.name in found:
            raise InputError("An input is given twice", place=f"input {each.name!r}")
        size = each.parameters.get("binary_data_size")
        if size is None:
            found[each.name] = _from_json(each)
            continue
        if type(size) is not int or not 0 <= size <= len(rest):
            raise InputError("binary_data_size is not in the body", place=f"input {each.name!r}")
        found[each.name] = _from_bytes(each, bytes(rest[:size]))
        rest = rest[size:]
    if rest:
        raise InputError(f"{len(rest)} bytes of the body belong to no input")
    return request, found


def from_json(data: bytes, kind: Any) -> Any:
    """JSON as a value of a type.

    Raises:
        InputError: It is no JSON, or of another type.
    """
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.MsgspecError, UnicodeError, RecursionError, ValueError) as error:
        raise InputError(f"The request cannot be read: {str(error)[:300]}") from error


def _count(tensor: Tensor) -> int:
    """Number of its elements, as its shape says."""
    shape = tensor.shape
    if len(shape) > _MOST_AXES or not all(0 <= size <= _LONGEST_AXIS for size in shape):
        raise InputError(f"The shape cannot be {shape[:20]}", place=f"input {tensor.name!r}")
    return math.prod(shape)


def _sized(tensor: Tensor, found: int) -> None:
    if found != _count(tensor):
        raise InputError(
            f"There are {found} elements for the shape {tensor.shape}",
            place=f"input {tensor.name!r}",
        )


def _dtype(tensor: Tensor) -> np.dtype[Any]:
    if tensor.datatype not in DTYPES:
        raise InputError(
            f"The datatype {tensor.datatype[:20]!r} is not known",
            place=f"input {tensor.name!r}",
            hint=f"Use {', '.join((*DTYPES, BYTES))}.",
        )
    return np.dtype(DTYPES[tensor.datatype])


def _from_json(tensor: Tensor) -> Array | list[bytes]:
    place = f"input {tensor.name!r}"
    if tensor.data is UNSET:
        raise InputError("There is no data", place=place)
    _count(tensor)
    flat = list(_flat(from_json(bytes(tensor.data), Any), _MOST_AXES, place))
    _sized(tensor, len(flat))
    if tensor.datatype == BYTES:
        if not all(isinstance(each, str) for each in flat):
            raise InputError("BYTES in JSON are strings", place=place)
        return [_text_bytes(each, tensor, place) for each in flat]
    return array_of(flat, _dtype(tensor), place).reshape(tensor.shape)


def _text_bytes(text: str, tensor: Tensor, place: str) -> bytes:
    """The bytes of a string, or those that it encodes."""
    if tensor.parameters.get("content_type") != "base64":
        return text.encode()
    return from_base64(text, place)


def from_base64(text: str, place: str) -> bytes:
    """The bytes that a text in base64 stands for.

    Raises:
        InputError: It is not in base64.
    """
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InputError("This is not base64", place=place) from error


def _flat(value: Any, axes: int, place: str) -> Iterator[Any]:
    if not isinstance(value, list):
        yield value
    elif not axes:
        raise InputError(f"An array has at most {_MOST_AXES} axes", place=place)
    else:
        for each in value:
            yield from _flat(each, axes - 1, place)


def array_of(flat: Sequence[Any], dtype: np.dtype[Any], place: str) -> Array:
    """Numbers of JSON as an array; none is rounded to a whole number or wrapped around.

    Raises:
        InputError: A value is no number, or does not fit the type.
    """
    kinds = {"b": (bool,), "i": (int,), "u": (int,), "f": (int, float)}[dtype.kind]
    if not all(type(each) in kinds for each in flat):
        raise InputError(f"The data is not all {dtype.name}", place=place)
    if dtype.kind in "iu" and flat:
        info = np.iinfo(dtype)
        if min(flat) < info.min or max(flat) > info.max:
            raise InputError(f"A number does not fit {dtype.name}", place=place)
    try:
        with np.errstate(over="ignore"):
            return np.array(flat, dtype=dtype)
    except OverflowError as error:
        raise InputError(f"A number does not fit {dtype.name}", place=place) from error


def _from_bytes(tensor: Tensor, data: bytes) -> Array | list[bytes]:
    place = f"input {tensor.name!r}"
    if tensor.data is not UNSET:
        raise InputError("The data is given twice", place=place)
    if tensor.datatype == BYTES:
        found = list(_elements(data, place))
        _sized(tensor, len(found))
        return found
    dtype = _dtype(tensor).newbyteorder("<")
    if len(data) != _count(tensor) * dtype.itemsize:
        raise InputError(f"{len(data)} bytes are not of shape {tensor.shape}", place=place)
    array = np.frombuffer(data, "u1") != 0 if dtype.kind == "b" else np.frombuffer(data, dtype)
    return array.astype(dtype.newbyteorder("=")).reshape(tensor.shape)


def _elements(data: bytes, place: str) -> Iterator[bytes]:
    """Elements, each behind its length in four bytes."""
    start = 0
    while start < len(data):
        head = data[start : start + 4]
        length = struct.unpack("<I", head)[0] if len(head) == 4 else len(data)
        if start + 4 + length > len(data):
            raise InputError("An element ends outside of the data", place=place)
        yield data[start + 4 : start + 4 + length]
        start += 4 + length


def encode(
    head: Mapping[str, Any],
    outputs: Mapping[str, Array],
    request: InferRequest,
) -> tuple[bytes, int | None]:
    """The body of an answer, and how many of its bytes are JSON if others follow.

    Arrays of objects hold texts.

    Raises:
        InputError: An output is asked for that there is not.
    """
    wanted = request.outputs or [Wanted(name=name) for name in outputs]
    all_binary = request.parameters.get("binary_data_output") is True
    listed, rest = [], []
    for each in wanted:
        if each.name not in outputs:
            hint = f"Outputs: {', '.join(outputs)}."
            raise InputError(f"There is no output {each.name[:80]!r}", hint=hint)
        array = outputs[each.name]
        text = array.dtype.kind == "O"
        shown: dict[str, Any] = {
            "name": each.name,
            "shape": list(array.shape),
            "datatype": BYTES if text else datatype(array.dtype),
        }
        if each.parameters.get("binary_data", all_binary) is True:
            data = _bytes_of(array)
            shown["parameters"] = {"binary_data_size": len(data)}
            rest.append(data)
        else:
            shown["data"] = array.ravel().tolist()
        listed.append(shown)
    start = msgspec.json.encode({**head, "outputs": listed})
    return start + b"".join(rest), len(start) if rest else None


def datatype(dtype: np.dtype[Any]) -> str:
    """The name of a type in the protocol."""
    return _NAMES.get(dtype.name, BYTES)


def _bytes_of(array: Array) -> bytes:
    if array.dtype.kind != "O":
        return np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()
    parts = (str(each).encode() for each in array.ravel())
    return b"".join(struct.pack("<I", len(part)) + part for part in parts)
