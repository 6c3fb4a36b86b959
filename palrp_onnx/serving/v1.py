"""KServe's V1 protocol: instances → predictions, or explanations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Struct

from palrp_onnx.errors import InputError
from palrp_onnx.explanation import Explanation
from palrp_onnx.inputs.sample import GraphInput
from palrp_onnx.serving.rows import RowParts, array_for, texts_of_target
from palrp_onnx.serving.served import Asked
from palrp_onnx.serving.tensors import from_base64, from_json
from palrp_onnx.types import Array


class Encoded(Struct, forbid_unknown_fields=True):
    """Bytes."""

    b64: str


class Instance(Struct, forbid_unknown_fields=True, kw_only=True):
    """A row: a text, a pair, an image, ids, messages, or arrays without the batch axis.

    A string stands for ``{"text": …}``, and a list for the array of the only input.
    """

    id: str | int | None = None
    text: str | None = None
    text_pair: str | None = None
    image: Encoded | str | None = None
    input_ids: list[int] | None = None
    messages: list[dict[str, Any]] | None = None
    inputs: dict[str, Any] | None = None
    target: str | int | list[str | int] | None = None


class V1Parameters(Struct, kw_only=True):
    """What holds for all rows of a request.

    Attributes:
        target: The target, or several, of rows that have none of their own.
        method: One of the methods that are offered.
        words: Whether the answer also has the words of every explanation.
    """

    target: str | int | list[str | int] | None = None
    method: str | None = None
    words: bool = False


class V1Request(Struct, kw_only=True):
    """A request of ``:predict`` and ``:explain``."""

    instances: list[Any]
    parameters: V1Parameters = msgspec.field(default_factory=V1Parameters)


def decode_v1(body: bytes) -> V1Request:
    """The request.

    Raises:
        InputError: It is none.
    """
    request: V1Request = from_json(body, V1Request)
    return request


def asked_v1(request: V1Request, inputs: Sequence[GraphInput]) -> list[Asked]:
    """The rows of a request.

    Raises:
        InputError: One cannot be read.
    """
    usual = request.parameters.target
    return [_asked(each, k, inputs, usual) for k, each in enumerate(request.instances)]


def _asked(instance: Any, number: int, inputs: Sequence[GraphInput], usual: object) -> Asked:
    name = str(number)
    match instance:
        case str():
            row, given = RowParts(text=instance), None
        case dict():
            fields = _fields(instance, name)
            name, given = name if fields.id is None else str(fields.id), fields.target
            row = _row(fields, name, inputs)
        case list() if len(inputs) == 1:
            array = array_for(instance, inputs[0], f"row {name}")
            row, given = RowParts(named={inputs[0].name: array[None]}), None
        case _:
            raise InputError(
                "An instance is a text or an object",
                place=f"row {name}",
                hint='{"text": …}, {"image": {"b64": …}}, {"inputs": {"NAME": […]}}.',
            )
    return Asked(row.value(name), name, texts_of_target(usual if given is None else given))


def _fields(instance: dict[str, Any], name: str) -> Instance:
    try:
        return msgspec.convert(instance, Instance)
    except msgspec.ValidationError as error:
        raise InputError(str(error), place=f"row {name}") from error


def _row(fields: Instance, name: str, inputs: Sequence[GraphInput]) -> RowParts:
    place = f"row {name}"
    image = fields.image.b64 if isinstance(fields.image, Encoded) else fields.image
    ids = fields.input_ids
    if ids is not None and not all(abs(each) < 1 << 63 for each in ids):
        raise InputError("A token is a number of 64 bits", place=place)
    return RowParts(
        text=fields.text,
        text_pair=fields.text_pair,
        image=None if image is None else from_base64(image, place),
        ids=ids,
        messages=fields.messages,
        named=_named(fields.inputs or {}, inputs, place),
    )


def _named(
    given: dict[str, Any], inputs: Sequence[GraphInput], place: str
) -> dict[str, Array | str]:
    known, found = {each.name: each for each in inputs}, dict[str, Array | str]()
    for name, value in given.items():
        if name not in known:
            hint = f"Inputs: {', '.join(known)}."
            raise InputError(f"The model has no input {name[:80]!r}", place=place, hint=hint)
        text = isinstance(value, str)
        found[name] = value if text else array_for(value, known[name], place)[None]
    return found


def predictions(rows: Sequence[dict[str, Array]]) -> dict[str, Any]:
    """The answer of ``:predict``: of one output its row, of several the rows by their names."""
    shown = ({name: _first(array) for name, array in row.items()} for row in rows)
    return {"predictions": [next(iter(row.values())) if len(row) == 1 else row for row in shown]}


def _first(array: Array) -> Any:
    """The only row; all of an output without a batch."""
    return (array[0] if array.ndim and len(array) == 1 else array).tolist()


def explanations(found: Sequence[Explanation], parameters: V1Parameters) -> dict[str, Any]:
    """The answer of ``:explain``: records, and words if these were asked for."""
    answer: dict[str, Any] = {"explanations": [each.record for each in found]}
    if parameters.words:
        answer["words"] = [each.words.to_dicts() for each in found]
    return answer
