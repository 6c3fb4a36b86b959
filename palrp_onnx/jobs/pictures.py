"""Pictures of the records with the largest target values."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec
from msgspec import Struct

from palrp_onnx.files import make_folder, write_files
from palrp_onnx.jobs.parts import EXPLAINED
from palrp_onnx.jobs.reading import SampleReader
from palrp_onnx.jobs.records import Record, parse
from palrp_onnx.jobs.settings import Shard
from palrp_onnx.record import Attribution, decode
from palrp_onnx.render.png import render_png

FOLDER = "pictures"


class _Value(Struct):
    value: float


class _Target(Struct):
    target: _Value


def draw(
    folder: Path, count: int, source: Iterable[Record], shard: Shard, reader: SampleReader
) -> list[Path]:
    """Draw the ``count`` records of the parts in ``folder`` with the largest ``|target.value|``.

    Of equal values the first records are taken. Files are ``pictures/NUMBER.png``, with the
    record's number in the input. The input is read once more, for images to draw on.

    Raises:
        InputError: An image no longer exists.
        OutputError: A picture cannot be written.
    """
    chosen = {place: line for _, place, line in _largest(folder, count)}
    made: list[Path] = []
    if not chosen:
        return made
    make_folder(folder / FOLDER)
    own = (record for place, record in enumerate(source) if shard.has(place))
    for place, record in enumerate(own):
        if place in chosen:
            path = folder / FOLDER / f"{record.number:08}.png"
            write_files({path: _draw(decode(chosen.pop(place)), record, reader)})
            made.append(path)
        if not chosen:
            break
    return made


def _largest(folder: Path, count: int) -> list[tuple[float, int, bytes]]:
    def valued() -> Iterator[tuple[float, int, bytes]]:
        for place, line in enumerate(_lines(folder)):
            if line.startswith(EXPLAINED):
                value = msgspec.json.decode(line, type=_Target).target.value
                yield abs(value), place, line

    return heapq.nlargest(count, valued(), key=lambda each: (each[0], -each[1]))


def _lines(folder: Path) -> Iterator[bytes]:
    """All lines of all parts, in order."""
    for path in sorted(folder.glob("part-*.jsonl"), key=lambda p: (len(p.name), p.name)):
        with path.open("rb") as stream:
            yield from stream


def _draw(line: Attribution, record: Record, reader: SampleReader) -> bytes:
    """The maps; those of images are drawn on them."""
    fields = parse(record)
    if fields.image is None and not fields.named:
        return render_png(line)
    sample = reader.read(fields, line.id, record.folder, originals=True)
    (image, box), *_ = found = [sample.picture_of(each.input) for each in line.maps]
    further = {each.input: seen for each, seen in zip(line.maps[1:], found[1:], strict=True)}
    return render_png(line, image=image, box=box, further=further)
