"""The same worker on many machines, as an actor of Ray Data.

Ray schedules, and repeats the work of a lost machine. Actors write nothing, so repeated work has no
side effects. Results are returned in the order of the input and are counted.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from palrp_onnx.errors import InputError, ResourceError, UsageError
from palrp_onnx.files import write_files
from palrp_onnx.jobs.records import Record
from palrp_onnx.jobs.settings import Settings
from palrp_onnx.jobs.sources import read_lines
from palrp_onnx.jobs.tally import Tally, count_lines
from palrp_onnx.jobs.worker import Worker

#: Largest number of lines and of bytes that one task reads.
_LINES, _BYTES = 256, 8 << 20


class RayExplainer:
    """Explains batches of a Ray data set.

    ``ray.data.read_json(...).map_batches(RayExplainer, fn_constructor_args=(model, settings),
    compute=ray.data.ActorPoolStrategy(size=4), num_gpus=1)``. Rows are records of
    ``palrp-onnx batch``, each with an ``id``.

    Args:
        model: Path of the model, the same on every machine.
        settings: How to explain.
    """

    def __init__(self, model: str, settings: Settings | None = None) -> None:
        self._worker = Worker(model, settings or Settings())

    def __call__(self, batch: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Columns ``id`` or ``number``, unchanged, ``line`` (JSON) and ``failed``.

        Raises:
            UsageError: Rows have neither ``id`` nor ``number``.
        """
        key = next((name for name in ("number", "id") if name in batch), None)
        if key is None:
            raise UsageError("Records of a data set need an id", hint="Add a column id.")
        lines = self._worker(list(_records(batch)))
        return {
            key: batch[key],
            "line": np.array([line.data for line in lines], object),
            "failed": np.array([line.failed for line in lines]),
        }


def _records(batch: Mapping[str, NDArray[Any]]) -> Iterator[Record]:
    """Rows as records: raw lines from :func:`_read`, or fields."""
    for row in range(len(next(iter(batch.values())))):
        fields = {name: _plain(column[row]) for name, column in batch.items()}
        if "record" not in fields:
            yield Record(number=row + 1, data={k: v for k, v in fields.items() if v is not None})
            continue
        data = InputError(fields["problem"]) if fields["problem"] else fields["record"]
        folder, source = Path(fields["folder"]), fields["source"]
        yield Record(number=fields["number"], data=data, source=source, folder=folder)


def _plain(value: Any) -> Any:
    """A value of JSON; missing fields of a table are NaN and become ``None``."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    value = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(value, float) and np.isnan(value) else value


def explain_lines(
    model: str | Path,
    settings: Settings,
    source: Path,
    place: Path,
    *,
    actors: int = 2,
    batch_size: int = 64,
    num_gpus: float = 0.0,
) -> Tally:
    """Explain a file of JSON lines on the cluster that Ray is connected to.

    Args:
        model: The model; it and ``source`` have the same path on every machine.
        settings: How to explain.
        source: A file of JSON lines, as for ``palrp-onnx batch``.
        place: The file of results; it is written whole or not at all.
        actors: Number of actors, each with an open model.
        batch_size: Records that an actor gets at a time.
        num_gpus: GPUs per actor.

    Returns:
        Counts over the records.

    Raises:
        ResourceError: Ray is not installed, or did not return every record once.
        OutputError: The result cannot be written.
    """
    ray = _import_ray()
    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = True
    parts = list(_parts(source.resolve()))
    tallies = [Tally()]
    if not parts:
        write_files({place: b""})
        return tallies[0]
    rows = (
        ray.data.from_items(parts, override_num_blocks=len(parts))
        .flat_map(_read)
        .map_batches(
            RayExplainer,
            fn_constructor_args=(str(model), settings.portable()),
            batch_size=batch_size,
            batch_format="numpy",
            compute=ray.data.ActorPoolStrategy(size=actors),
            num_gpus=num_gpus or None,
        )
        .iter_rows()
    )
    expected = (number for part in parts for number in part["numbers"])
    write_files({place: _counted(rows, expected, tallies)})
    return tallies[0]


def _counted(
    rows: Iterable[Mapping[str, Any]], expected: Iterator[int], tallies: list[Tally]
) -> Iterator[bytes]:
    """The lines; their counts are added to the only entry of ``tallies``."""
    for row in rows:
        if next(expected, None) != row["number"]:
            raise ResourceError("Ray returned a record twice, or in another order")
        line = bytes(row["line"])
        tallies[0] += count_lines([line])
        yield line + b"\n"
    if (missing := next(expected, None)) is not None:
        raise ResourceError(f"Ray did not return record {missing} and those after it")


def _parts(source: Path) -> Iterator[dict[str, Any]]:
    """Parts of the file: first byte, size in bytes, first line, and numbers of the records."""
    part: dict[str, Any] = {"source": str(source), "start": 0, "size": 0, "first": 1, "numbers": []}
    with source.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            part["size"] += len(line)
            if not line.isspace():
                part["numbers"].append(number)
            if number - part["first"] + 1 >= _LINES or part["size"] >= _BYTES:
                yield part
                begun = {"start": part["start"] + part["size"], "first": number + 1}
                part = {**part, **begun, "size": 0, "numbers": []}
    if part["numbers"]:
        yield part


def _read(part: dict[str, Any]) -> list[dict[str, Any]]:
    """Records of one part of the file."""
    source = Path(part["source"])
    with source.open("rb") as stream:
        stream.seek(part["start"])
        data = io.BytesIO(stream.read(part["size"]))
    found = []
    for record in read_lines(data, source.name, source.parent):
        broken = isinstance(record.data, InputError)
        found.append(
            {
                "number": record.number + part["first"] - 1,
                "record": b"" if broken else record.data,
                "problem": str(record.data) if broken else "",
                "folder": str(source.parent),
                "source": source.name,
            }
        )
    return found


def _import_ray() -> Any:
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise ResourceError("Ray is not installed", hint='pip install "palrp-onnx[ray]"') from error
    return ray
