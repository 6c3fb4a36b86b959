"""What an evaluation has done so far, so that it goes on where it was stopped."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any, Generic, TypeVar

import msgspec
import numpy as np

from palrp_onnx.errors import InputError, UsageError
from palrp_onnx.inputs.sample import Sample
from palrp_onnx.types import Array

#: What an evaluation keeps of one sample under one method: a dataclass of numbers and arrays.
Kept = TypeVar("Kept")
Decoded = TypeVar("Decoded")


class _Line(msgspec.Struct, frozen=True):
    id: str
    digest: str
    found: msgspec.Raw


class Journal(Generic[Kept]):
    """What is known of every sample that is done, one JSON object a line, appended at once.

    A sample is known by its name and what goes into the model: one that was edited is done again.

    Args:
        path: Where it is kept.
        kind: What is kept.
        settings: Everything else that the numbers depend on; the first line of the file.

    Raises:
        UsageError: The file was written with other settings.
        InputError: It holds something else.
    """

    def __init__(self, path: Path, kind: type[Kept], settings: Mapping[str, Any]) -> None:
        self._path = path
        self._decoder = msgspec.json.Decoder(dict[str, kind], dec_hook=_as_array)  # type: ignore[valid-type]
        self._known: dict[tuple[str, str], dict[str, Kept]] = {}
        own = msgspec.json.encode(settings, order="sorted")
        if not path.exists() or not path.stat().st_size:
            path.write_bytes(own + b"\n")
            return
        data = path.read_bytes()
        first, *lines = data.splitlines()
        if first != own:
            self._decoded(first, msgspec.json.Decoder(dict[str, Any]))
            raise UsageError(
                "The evaluation was begun with other settings",
                place=str(path),
                hint="Use the same ones, or another file.",
            )
        if not data.endswith(b"\n"):  # the line that was being written when it was stopped
            path.write_bytes(data[: data.rindex(b"\n") + 1])
            lines = lines[:-1]
        for line in lines:
            self._read(line)

    def find(self, sample: Sample, *more: Array) -> dict[str, Kept] | None:
        """What is known of a sample by method, if it is done.

        Args:
            sample: The sample.
            more: Arrays beside its inputs that the numbers depend on.
        """
        return self._known.get((sample.id, _digest(sample, more)))

    def add(self, found: Mapping[str, Kept], sample: Sample, *more: Array) -> None:
        """Keep what was found of a sample."""
        digest = _digest(sample, more)
        self._known[sample.id, digest] = dict(found)
        data = {"id": sample.id, "digest": digest, "found": found}
        with self._path.open("ab") as stream:
            stream.write(msgspec.json.encode(data, enc_hook=_as_list) + b"\n")

    def _read(self, line: bytes) -> None:
        entry = self._decoded(line, msgspec.json.Decoder(_Line))
        found = self._decoded(entry.found, self._decoder)
        self._known[entry.id, entry.digest] = found

    def _decoded(
        self, data: bytes | msgspec.Raw, decoder: msgspec.json.Decoder[Decoded]
    ) -> Decoded:
        try:
            return decoder.decode(data)
        except (msgspec.DecodeError, ValueError) as error:
            raise InputError("The file holds no evaluation", place=str(self._path)) from error


def recalled(
    journal: Journal[Kept] | None,
    make: Callable[[], dict[str, Kept]],
    sample: Sample,
    *more: Array,
) -> dict[str, Kept]:
    """What the journal knows of a sample, or is told now; simply made where there is none."""
    if journal is None:
        return make()
    found = journal.find(sample, *more)
    if found is None:
        found = make()
        journal.add(found, sample, *more)
    return found


def _digest(sample: Sample, more: tuple[Array, ...]) -> str:
    digest = sha256()
    named = [*sorted(sample.feeds.items()), *(("", array) for array in more)]
    for name, array in named:
        digest.update(f"{name}:{array.dtype.str}:{array.shape};".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _as_list(value: object) -> object:
    if isinstance(value, np.ndarray):
        return value.tolist()
    raise NotImplementedError(f"{type(value)} in a journal")


def _as_array(kind: type, value: object) -> Array:
    del kind  # arrays are all that is not known to msgspec
    array = np.asarray(value)
    # JSON has null for what is not finite.
    return array.astype(np.float64) if array.dtype == object else array
