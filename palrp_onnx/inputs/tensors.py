"""Raw tensors: one array per graph input from an ``.npz`` file. Nothing is ever unpickled."""

from __future__ import annotations

import math
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from palrp_onnx.errors import InputError
from palrp_onnx.inputs.produced import sides
from palrp_onnx.inputs.purposes import ids_input
from palrp_onnx.inputs.sample import Feeds, GraphInput, Sample
from palrp_onnx.inputs.signature import check_shape, describe, describe_input
from palrp_onnx.inputs.tokens import id_units, load_tokenizer
from palrp_onnx.model.signature import first_axes
from palrp_onnx.record import InputFacts, Units, Warning_

#: Largest size of all arrays together when unpacked, in bytes.
TENSOR_LIMIT = 2 << 30

_SUFFIX = ".npy"
# Pairs of NumPy kinds (from, to) between which a cast can be lossless.
_CASTS = {"bb", "ii", "uu", "ff", "bi", "bu", "bf", "iu", "ui", "if", "uf"}
# Headers are Python literals; parsing damaged ones raises these.
_BAD_HEADER = (
    ValueError,
    LookupError,
    TypeError,
    SyntaxError,
    RecursionError,
    MemoryError,
    tokenize.TokenError,
)
# Reading damaged archives raises these; OSError: the file cannot be read.
_BAD_ZIP = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    NotImplementedError,
    RuntimeError,
    ValueError,
    OverflowError,
    OSError,
)


def read_npz(
    path: Path, graph_inputs: Sequence[GraphInput], *, tokenizer: Path | None = None
) -> Sample:
    """Read the feeds of one sample, or of a batch; the id is the file's stem.

    Args:
        path: The ``.npz`` file: exactly one array per graph input, under its name. Other arrays
            must be empty, like the caches that the model's own session needs.
        graph_inputs: The inputs of the graph.
        tokenizer: The tokenizer, to show the tokens of a batch of one row as text.

    Raises:
        InputError: The file is damaged or too large; names, types, shapes or batch sizes do not
            fit the graph; an integer would change by a cast, or a number is not finite; the
            tokenizer cannot be used.
    """
    arrays = _read_arrays(path, graph_inputs)
    return sample_of(arrays, graph_inputs, id=path.stem, place=str(path), tokenizer=tokenizer)


def sample_of(
    arrays: Mapping[str, NDArray[np.generic]],
    graph_inputs: Sequence[GraphInput],
    *,
    id: str,
    place: str,
    tokenizer: Path | None = None,
) -> Sample:
    """The sample, or the batch, that arrays are: one for each graph input, under its name.

    Raises:
        InputError: Types, shapes or batch sizes do not fit the graph, an integer would change by a
            cast, or a number is not finite.
    """
    warnings: list[Warning_] = []
    feeds: Feeds = {}
    for each in graph_inputs:
        check_shape(each, arrays[each.name].shape, place=f"{place}:{each.name}")
        feeds[each.name], changed = _cast(arrays[each.name], each, f"{place}:{each.name}")
        if changed:
            warnings += _rounded(each, arrays[each.name])
    lengths = {name: len(array) for name, array in feeds.items() if array.ndim}
    if (problem := first_axes(graph_inputs, lengths)) is not None:
        raise InputError(problem, place=place)
    return Sample(
        id=id,
        kind="tensors",
        feeds=feeds,
        facts=InputFacts(kind="tensors"),
        units=_units(feeds, graph_inputs, tokenizer) if tokenizer else None,
        warnings=tuple(warnings),
        subject=ids_input(sides(graph_inputs).source),
    )


def names_in(path: Path) -> frozenset[str]:
    """Names of the arrays in a file.

    Raises:
        InputError: The file does not exist or cannot be read.
    """
    with _opened(path) as archive:
        return frozenset(_members(archive, path))


def read_array(path: Path, graph_input: GraphInput) -> Sample:
    """Read the array of one input from a ``.npy`` file.

    Raises:
        InputError: The file cannot be read, or does not fit the input.
    """
    try:
        with path.open("rb") as stream:
            array = read_npy(stream, path.stat().st_size, str(path))
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", place=str(path)) from error
    return array_sample(array, graph_input, id=path.stem, place=str(path))


def array_sample(
    array: NDArray[np.generic], graph_input: GraphInput, *, id: str, place: str
) -> Sample:
    """The array of one input.

    Raises:
        InputError: It does not fit the input.
    """
    check_shape(graph_input, array.shape, place=place)
    fitting, changed = _cast(array, graph_input, place)
    return Sample(
        id=id,
        kind="tensors",
        feeds={graph_input.name: fitting},
        facts=InputFacts(kind="tensors"),
        warnings=_rounded(graph_input, array) if changed else (),
        subject=graph_input.name,
    )


def _rounded(graph_input: GraphInput, array: NDArray[np.generic]) -> tuple[Warning_, ...]:
    message = f"{graph_input.name} was rounded from {array.dtype} to {graph_input.dtype}"
    return (Warning_(code="rounded", message=message),)


def filled(path: Path, names: Collection[str]) -> bool:
    """Whether a file holds real arrays of these names that are not empty.

    Raises:
        InputError: The file does not exist or cannot be read.
    """
    with _opened(path) as archive:
        members = _members(archive, path)
        arrays = (_read_array(archive, members[n], f"{path}:{n}") for n in names if n in members)
        return any(array.size and array.dtype.kind == "f" for array in arrays)


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """The archive; what is wrong with it is an :class:`InputError`."""
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except FileNotFoundError as error:
        raise InputError("there is no such file", place=str(path)) from error
    except _BAD_ZIP as error:
        raise InputError(f"is not a readable .npz file: {error}", place=str(path)) from error


def _read_arrays(path: Path, graph_inputs: Sequence[GraphInput]) -> dict[str, NDArray[np.generic]]:
    with _opened(path) as archive:
        members = _members(archive, path)
        arrays = {
            name: _read_array(archive, member, f"{path}:{name}") for name, member in members.items()
        }
    # Empty caches, which the model's own session needs, hold no numbers that could be lost.
    known = {each.name for each in graph_inputs}
    arrays = {n: array for n, array in arrays.items() if n in known or array.size}
    hint = f"Write it again: np.savez(FILE, {', '.join(f'{e.name}=…' for e in graph_inputs)})."
    check_names(set(arrays), graph_inputs, place=str(path), hint=hint)
    return arrays


def _members(archive: zipfile.ZipFile, path: Path) -> dict[str, zipfile.ZipInfo]:
    """The members by the names of their arrays; their size is checked before any is unpacked."""
    members = archive.infolist()
    total = sum(member.file_size for member in members)
    if total > TENSOR_LIMIT:
        message = f"unpacks to {total:,} bytes, more than {TENSOR_LIMIT:,}"
        raise InputError(message, place=str(path))
    names = [member.filename for member in members]
    if len(set(names)) < len(names):
        raise InputError("holds two arrays of the same name", place=str(path))
    for name in names:
        if not name.endswith(_SUFFIX):
            raise InputError(f"holds {name!r}, which is no array", place=str(path))
    return {member.filename.removesuffix(_SUFFIX): member for member in members}


def check_names(
    names: AbstractSet[str], graph_inputs: Sequence[GraphInput], *, place: str, hint: str = ""
) -> None:
    """Refuse arrays that are not exactly one for each graph input.

    Raises:
        InputError: One is missing, or there is another.
    """
    wanted = {each.name for each in graph_inputs}
    parts = [
        f"{what}: {', '.join(sorted(which))}"
        for what, which in (("missing", wanted - names), ("unknown", names - wanted))
        if which
    ]
    if parts:
        message = f"does not hold one array per graph input ({'; '.join(parts)})"
        raise InputError(f"{message}; {describe(graph_inputs)}", place=place, hint=hint)


def _read_array(
    archive: zipfile.ZipFile, member: zipfile.ZipInfo, place: str
) -> NDArray[np.generic]:
    """One ``.npy`` member; its header is compared with its size before it is unpacked."""
    with archive.open(member) as stream:
        return read_npy(stream, member.file_size, place)


def read_npy(stream: IO[bytes], length: int, place: str) -> NDArray[np.generic]:
    """The array in a ``.npy`` stream of ``length`` bytes.

    Raises:
        InputError: The length does not match the header, or the array does not hold numbers.
    """
    try:
        version = np.lib.format.read_magic(stream)
        read_header = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        shape, fortran, dtype = read_header(stream)
    except _BAD_HEADER as error:
        raise InputError(f"is not an .npy array: {error}", place=place) from error
    if dtype.kind not in "biuf":
        raise InputError(f"holds {dtype}, not numbers", place=place)
    size = math.prod(shape) * dtype.itemsize
    if min(shape, default=0) < 0 or size != length - stream.tell():
        raise InputError(f"does not hold the {size:,} bytes that its header declares", place=place)
    data = bytearray(stream.read(size))
    return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")


def _cast(
    array: NDArray[np.generic], graph_input: GraphInput, place: str
) -> tuple[NDArray[np.generic], bool]:
    """The array in the graph's type, and whether float values were rounded."""
    target = np.dtype(graph_input.dtype)
    wanted = f"{array.dtype} cannot be given to {describe_input(graph_input)}"
    if array.dtype.kind + target.kind not in _CASTS:
        raise InputError(f"{wanted} without loss", place=place)
    if array.dtype.kind == "f" and np.isnan(array).any():
        raise InputError("holds NaN", place=place)
    with np.errstate(over="ignore"):
        result = array.astype(target, order="C", copy=False)
    if target.kind == "f" and np.isinf(result).any() and not np.isinf(array).any():
        raise InputError(f"{wanted}: a value is too large", place=place)
    if array.dtype.kind == "f":
        return result, not np.array_equal(result.astype(array.dtype), array)
    if array.dtype.kind in "iu" and not _survives(array, target):
        raise InputError(f"{wanted}: a value is too large", place=place)
    return result, False


def cast_exactly(
    array: NDArray[np.generic], graph_input: GraphInput, place: str
) -> NDArray[np.generic]:
    """Real numbers in the graph's type; to integers only where they are whole.

    Raises:
        InputError: A number does not fit the type.
    """
    if graph_input.dtype.kind in "iub" and array.dtype.kind == "f":
        with np.errstate(invalid="ignore"):  # of one that is too large
            whole = array.astype(np.int64)
        if not np.array_equal(whole, array):
            raise InputError(
                f"holds numbers that are not whole, for {describe_input(graph_input)}", place=place
            )
        array = whole
    return _cast(array, graph_input, place)[0]


def _survives(array: NDArray[np.generic], target: np.dtype[np.generic]) -> bool:
    """Whether integers keep their value; a float type holds all of them up to a power of two."""
    if array.size == 0:
        return True
    least, most = int(array.min()), int(array.max())
    if target.kind == "f":
        exact = 1 << (int(np.finfo(target.name).nmant) + 1)
        return -exact <= least and most <= exact
    info = np.iinfo(target.name)
    return int(info.min) <= least and most <= int(info.max)


def _units(feeds: Feeds, graph_inputs: Sequence[GraphInput], tokenizer: Path) -> Units | None:
    """Tokens of the input that receives ids; ``None`` if there is no such input, or several."""
    name = ids_input(sides(graph_inputs).source)
    if name is None or feeds[name].ndim != 2 or len(feeds[name]) != 1:
        return None
    return id_units(load_tokenizer(tokenizer), [int(each) for each in feeds[name][0]])
