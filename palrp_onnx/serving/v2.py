"""The Open Inference Protocol, V2: tensors in, the model's outputs or the maps out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from msgspec import UNSET

from palrp_onnx.entries import Entries, units_of, words_of
from palrp_onnx.errors import InputError
from palrp_onnx.explanation import Explanation
from palrp_onnx.inputs.sample import GraphInput
from palrp_onnx.record import PARTS, Attribution, Map, encode
from palrp_onnx.serving.rows import RowParts, text_of, texts_of_target
from palrp_onnx.serving.served import Asked, Served
from palrp_onnx.serving.tensors import BYTES, InferRequest, datatype
from palrp_onnx.types import Array

#: Inputs besides those of the graph: what a row may be given as, and its target.
TEXT, PAIR, IMAGE, TARGET = "text", "text_pair", "image", "target"
#: Outputs of ``explain`` that are only there if they are asked for.
_ON_REQUEST = ("record",)


def asked_v2(
    request: InferRequest, given: Mapping[str, Array | list[bytes]], inputs: Sequence[GraphInput]
) -> list[Asked]:
    """The rows of a request; arrays alone are one input, which may have several.

    Raises:
        InputError: Inputs have different numbers of rows, or one is none of the model's.
    """
    known = {each.name: each for each in inputs}
    left = dict(given)
    target = left.pop(TARGET) if TARGET in left and TARGET not in known else None
    for name, array in left.items():
        _check(name, array, known)
    counts = {name: len(each) for name, each in left.items() if np.ndim(each) or _is_list(each)}
    if len(set(counts.values())) > 1 and any(map(_is_list, left.values())):
        raise InputError(f"Inputs have different numbers of rows: {counts}")
    rows = max(counts.values(), default=1)
    targets = _targets(target, request, rows)
    if not any(map(_is_list, left.values())):
        if len(set(targets)) > 1:
            raise InputError("A target for every row goes with texts and images")
        row = RowParts(named={k: each for k, each in left.items() if isinstance(each, np.ndarray)})
        return [Asked(row.value("row"), "row", targets[0] if targets else ())]
    return [Asked(_row(left, known, k).value(str(k)), str(k), targets[k]) for k in range(rows)]


def _is_list(given: object) -> bool:
    return isinstance(given, list)


def _check(name: str, given: Array | list[bytes], known: Mapping[str, GraphInput]) -> None:
    """Whether there is such an input, of this type."""
    place = f"input {name[:80]!r}"
    if name not in known and not (name in (TEXT, PAIR, IMAGE) and isinstance(given, list)):
        hint = f"Inputs: {', '.join(known)}; {TEXT}, {PAIR} and {IMAGE} of type {BYTES}."
        raise InputError("The model has no such input", place=place, hint=hint)
    if isinstance(given, np.ndarray) and given.dtype != np.dtype(known[name].dtype):
        wanted = datatype(np.dtype(known[name].dtype))
        raise InputError(f"The input has the type {wanted}", place=place)


def _targets(
    given: Array | list[bytes] | None, request: InferRequest, rows: int
) -> list[tuple[str, ...]]:
    """The targets of every row."""
    place = f"input {TARGET!r}"
    if given is None:
        return [texts_of_target(request.parameters.get(TARGET))] * rows
    if isinstance(given, np.ndarray) and given.dtype.kind not in "iu":
        raise InputError("Targets are texts or whole numbers", place=place)
    listed = given.ravel().tolist() if isinstance(given, np.ndarray) else given
    if len(listed) != rows:
        raise InputError(f"{len(listed)} targets for {rows} rows", place=place)
    return [
        texts_of_target(text_of(each, place) if isinstance(each, bytes) else each)
        for each in listed
    ]


def _row(
    given: Mapping[str, Array | list[bytes]], known: Mapping[str, Any], number: int
) -> RowParts:
    texts = {name: each[number] for name, each in given.items() if isinstance(each, list)}
    own = {
        name: texts.pop(name) for name in (TEXT, PAIR, IMAGE) if name in texts and name not in known
    }
    named: dict[str, Array | str] = {
        name: text_of(each, f"input {name!r}") for name, each in texts.items()
    }
    arrays = {name: each for name, each in given.items() if isinstance(each, np.ndarray)}
    named |= {k: each[number : number + 1] if each.ndim else each for k, each in arrays.items()}
    return RowParts(
        text=text_of(own[TEXT], f"input {TEXT!r}") if TEXT in own else None,
        text_pair=text_of(own[PAIR], f"input {PAIR!r}") if PAIR in own else None,
        image=own.get(IMAGE),
        named=named,
    )


def joined_outputs(rows: Sequence[Mapping[str, Array]]) -> dict[str, Array]:
    """The outputs of several rows, one after the other.

    Raises:
        InputError: Rows have different shapes.
    """
    try:
        return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}
    except ValueError as error:
        raise InputError(
            "Rows of different lengths have outputs of different shapes",
            hint="Ask for one row at a time.",
        ) from error


def outputs_of(found: Sequence[Explanation], request: InferRequest) -> dict[str, Array]:
    """The outputs of ``explain``, one row an explanation: those that are asked for.

    Rows are filled up with zeros and empty texts to the longest; ``unit_count`` and ``word_count``
    say how long each is. Maps of a further explained input NAME are in ``relevance_total/NAME`` and
    so on.
    """
    makers: dict[str, Callable[[], Array]] = {}
    records = [each.record for each in found]
    for place, first in enumerate(records[0].maps):
        suffix = f"/{first.input}" if place else ""
        shown = [record.maps[place] for record in records]
        makers |= {f"{name}{suffix}": make for name, make in _of_maps(records, shown).items()}
    makers |= {
        "target": lambda: _texts(
            [record.target.label or record.target.index for record in records]
        ),
        "target_value": lambda: np.array([record.target.value for record in records]),
        "prediction": lambda: _texts([_said(record) for record in records]),
        "residual": lambda: np.array([record.residual for record in records]),
        "record": lambda: _texts([encode(record).decode() for record in records]),
    }
    wanted = {each.name for each in request.outputs} or makers.keys() - set(_ON_REQUEST)
    return {name: make() for name, make in makers.items() if name in wanted}


def _of_maps(
    records: Sequence[Attribution], shown: Sequence[Map]
) -> dict[str, Callable[[], Array]]:
    makers: dict[str, Callable[[], Array]] = {
        f"relevance_{part}": partial(_padded, [getattr(each.relevance, part) for each in shown])
        for part in PARTS
    }
    makers["units"] = lambda: _padded([[e.text for e in units_of(each)] for each in shown])
    makers["unit_count"] = lambda: np.array([len(each.relevance.total) for each in shown])
    if all(each.units.kind == "token" for each in shown):

        def words() -> list[Entries]:
            return [words_of(record, each) for record, each in zip(records, shown, strict=True)]

        makers["words"] = lambda: _padded([[e.text for e in each] for each in words()])
        makers["word_relevance"] = lambda: _padded([each.total.tolist() for each in words()])
        makers["word_count"] = lambda: np.array([len(each) for each in words()])
    return makers


def _said(record: Attribution) -> str | int | None:
    found = record.prediction
    if found is UNSET:
        return None
    return found.index if found.label is None else found.label


def _texts(values: Sequence[object]) -> Array:
    array = np.empty(len(values), object)
    array[:] = ["" if each is None else str(each) for each in values]
    return array


def _padded(rows: Sequence[Sequence[Any]]) -> Array:
    """Rows of numbers or of texts, filled up to the longest."""
    text = any(isinstance(each, str) for row in rows for each in row)
    array = np.full((len(rows), max(map(len, rows))), "" if text else 0, object if text else "f4")
    for place, row in enumerate(rows):
        array[place, : len(row)] = row
    return array


def metadata(name: str, served: Served) -> dict[str, Any]:
    """The metadata of a model."""
    model = served.loaded.model
    return {
        "name": name,
        "versions": [served.version],
        "platform": "onnxruntime_onnx",
        "inputs": [_signature(each) for each in model.inputs],
        "outputs": [_signature(each) for each in model.outputs],
        **served.metadata(),
    }


def _signature(value: GraphInput) -> dict[str, Any]:
    shape = [each if isinstance(each, int) else -1 for each in value.shape or ()]
    return {"name": value.name, "datatype": datatype(np.dtype(value.dtype)), "shape": shape}
