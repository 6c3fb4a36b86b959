"""Records of a data set: their fields and names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from msgspec import UNSET, Struct, UnsetType

from palrp_onnx.errors import InputError

KINDS = ("text", "text_file", "image", "sound", "input_ids", "tensors")


@dataclass(frozen=True)
class Record:
    """One record of a source, not parsed yet.

    Attributes:
        number: The line of a file or the row of a table, counted from 1.
        data: A JSON object as bytes, its fields, or the error with which reading it failed.
        source: Name of the source, for messages.
        folder: Paths in the record are relative to this folder.
    """

    number: int
    data: bytes | Mapping[str, Any] | InputError
    source: str = "record"
    folder: Path = Path()

    @property
    def place(self) -> str:
        """Source and number, for messages."""
        return f"{self.source}:{self.number}"


class Fields(Struct, frozen=True, forbid_unknown_fields=True):
    """The fields of a record: one of `KINDS`, several for a graph that takes several, and others.

    Attributes:
        id: By default the record's number.
        text: The text, or the first of a pair.
        text_pair: The second text.
        text_file: Path of a text file in UTF-8.
        image: Path of an image.
        sound: Path of a sound.
        input_ids: Tokens, special ones included.
        tensors: Path of an ``.npz`` file: for every graph input an array of one row.
        inputs: Paths of files by the name of the input that each is for; a text without the suffix
            of a kind of files is a text.
        continuation: A text that follows, or that a decoder produces: the sum of the
            log-probabilities of its tokens is the target.
        target: The target as for ``--target``, or an index.
        meta: Any JSON value; copied to the result.
    """

    id: str | int | None = None
    text: str | None = None
    text_pair: str | None = None
    text_file: str | None = None
    image: str | None = None
    sound: str | None = None
    input_ids: list[int] | None = None
    tensors: str | None = None
    inputs: dict[str, str | None] | None = None
    continuation: str | None = None
    target: str | int | None = None
    meta: Any | UnsetType = UNSET

    @property
    def given(self) -> list[str]:
        """The fields that hold inputs."""
        named = ["inputs"] if self.named else []
        return [kind for kind in KINDS if getattr(self, kind) is not None] + named

    @property
    def named(self) -> dict[str, str]:
        """Paths by input; a column of a table may be empty."""
        return {name: path for name, path in (self.inputs or {}).items() if path is not None}


class _RecordName(Struct, frozen=True):
    id: str | int | None = None


def parse(record: Record) -> Fields:
    """Read the fields of a record.

    Raises:
        InputError: It is not a JSON object, has an unknown field or one of a wrong type, has no
            input, or several that do not go together.
    """
    data = record.data
    if isinstance(data, InputError):
        raise data
    try:
        fields = (
            msgspec.json.decode(data, type=Fields)
            if isinstance(data, bytes)
            else msgspec.convert(data, Fields)
        )
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        message = f"The record cannot be read: {error}"
        raise InputError(message, place=record.place, hint=_hint()) from error
    given = fields.given
    if not given:
        message = "A record has an input; this one has none"
        raise InputError(message, place=record.place, hint=_hint())
    for name, beside in (("input_ids", ["input_ids"]), ("text_pair", ["text"])):
        if getattr(fields, name) is not None and given != beside:
            what = "text alone" if name != beside[0] else "no other input"
            message = f"{name} goes with {what}; this record has {' and '.join(given)}"
            raise InputError(message, place=record.place)
    if fields.text is not None and fields.text_file is not None:
        raise InputError("A record has one text: text or text_file", place=record.place)
    if fields.continuation is not None and fields.target is not None:
        raise InputError("The target is the continuation; leave out one", place=record.place)
    return fields


def _hint() -> str:
    return f"Fields: {', '.join(KINDS)}, inputs; text_pair, continuation, id, target, meta."


def name_of(record: Record) -> str:
    """The id of a record, by default its number; also of a record that is otherwise invalid."""
    found: str | int | None = None
    try:
        if isinstance(record.data, bytes):
            found = msgspec.json.decode(record.data, type=_RecordName).id
        elif isinstance(record.data, Mapping):
            found = msgspec.convert({"id": record.data.get("id")}, _RecordName).id
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        pass
    return str(record.number if found is None else found)
