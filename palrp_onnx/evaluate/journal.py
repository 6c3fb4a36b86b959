"""The results of an evaluation so far, so that it can be resumed after an interruption."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, Generic, TypeVar

import msgspec
import numpy as np

from palrp_onnx.errors import InputError, UsageError
from palrp_onnx.inputs.sample import Sample
from palrp_onnx.types import Array

#: The result of an evaluation for one sample and one method: a dataclass of numbers and arrays.
Found = TypeVar("Found")
Decoded = TypeVar("Decoded")


class _Line(msgspec.Struct, frozen=True):
    id: str
    digest: str
    found: msgspec.Raw


class Journal(Generic[Found]):
    """Results of finished samples: one JSON object per line, appended as soon as it is known.

    A sample is identified by its name and its arrays: one that was edited is evaluated again.

    Args:
        path: The file.
        kind: Type of the results.
        settings: Everything else that results depend on; the first line of the file.

    Raises:
        UsageError: The file was written with other settings.
        InputError: The file is not a journal.
    """

    def __init__(self, path: Path, kind: type[Found], settings: Mapping[str, Any]) -> None:
        self._path = path
        self._decoder = msgspec.json.Decoder(dict[str, kind], dec_hook=_as_array)  # type: ignore[valid-type]
        self._known: dict[tuple[str, str], dict[str, Found]] = {}
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
                hint="Use the same settings, or another file.",
            )
        if not data.endswith(b"\n"):  # the last line is incomplete: the evaluation was interrupted
            path.write_bytes(data[: data.rindex(b"\n") + 1])
            lines = lines[:-1]
        for line in lines:
            self._read(line)

    def find(self, sample: Sample, *more: Array) -> dict[str, Found] | None:
        """Results of a sample by method, or ``None`` if it is not finished.

        Args:
            sample: The sample.
            more: Arrays besides its inputs that the results depend on.
        """
        return self._known.get((sample.id, _digest(sample, more)))

    def add(self, found: Mapping[str, Found], sample: Sample, *more: Array) -> None:
        """Add the results of a sample."""
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
    journal: Journal[Found] | None,
    make: Callable[[], dict[str, Found]],
    sample: Sample,
    *more: Array,
) -> dict[str, Found]:
    """Results of a sample from the journal; if it has none, they are made and added to it."""
    if journal is None:
        return make()
    found = journal.find(sample, *more)
    if found is None:
        found = make()
        journal.add(found, sample, *more)
    return found


def recalled_together(
    journal: Journal[Found] | None,
    make: Callable[[Sequence[Sample]], list[dict[str, Found]]],
    samples: Sequence[Sample],
) -> list[dict[str, Found]]:
    """The same of several samples; those that the journal has none of are made together."""
    known = [None if journal is None else journal.find(sample) for sample in samples]
    missing = [sample for sample, own in zip(samples, known, strict=True) if own is None]
    made = iter(make(missing) if missing else [])
    found = []
    for sample, own in zip(samples, known, strict=True):
        if own is None:
            own = next(made)
            if journal is not None:
                journal.add(own, sample)
        found.append(own)
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
    del kind  # arrays are the only type that msgspec does not know
    array = np.asarray(value)
    # Numbers that are not finite are null in JSON.
    return array.astype(np.float64) if array.dtype == object else array
