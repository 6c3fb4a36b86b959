"""What a row of a request holds → what the library reads. No text of a request names a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from palrp_onnx.errors import InputError, UsageError
from palrp_onnx.inputs.image import decode_image
from palrp_onnx.inputs.sample import GraphInput
from palrp_onnx.inputs.several import Given
from palrp_onnx.inputs.values import Value
from palrp_onnx.types import Array

#: Arrays, and texts, by the names of the inputs that get them.
Named = Mapping[str, Array | str]


@dataclass(frozen=True)
class RowParts:
    """What is given for one row.

    Attributes:
        text: The text, or the first of a pair.
        text_pair: The second text.
        image: The bytes of an image file.
        ids: Tokens, special ones included.
        messages: What the chat template makes a text of.
        named: Arrays and texts by the names of graph inputs.
    """

    text: str | None = None
    text_pair: str | None = None
    image: bytes | None = None
    ids: Sequence[int] | None = None
    messages: list[Any] | None = None
    named: Named = field(default_factory=dict)

    def value(self, id: str) -> Value:
        """The value for :meth:`palrp_onnx.LoadedModel.read`.

        Raises:
            InputError: There is nothing, what there is does not go together, or the bytes are no
                image.
        """
        alone = [self.ids is not None, self.messages is not None]
        others = (self.text, self.text_pair, self.image, *self.named)
        if sum(alone) + any(each is not None for each in others) > 1:
            raise InputError("Ids and messages go with no other input", place=f"row {id}")
        if self.ids is not None:
            return np.array(self.ids, np.int64)
        if self.messages is not None:
            return {"messages": self.messages}
        if self.text_pair is not None:
            if self.text is None or self.image is not None or self.named:
                raise InputError("text_pair goes with text alone", place=f"row {id}")
            return self.text, self.text_pair
        arrays = {k: each for k, each in self.named.items() if isinstance(each, np.ndarray)}
        given = [Given(each, name) for name, each in self.named.items()]
        if self.image is not None:
            given.append(Given(decode_image(self.image, id=id)))
        if self.text is not None:
            given.append(Given(self.text))
        if not given:
            raise InputError("There is no input", place=f"row {id}")
        if len(arrays) == len(given):
            return arrays
        if len(given) == 1 and given[0].name is None:
            path = given[0].path
            return given[0] if isinstance(path, str) else path
        return tuple(given)


def texts_of_target(target: object) -> tuple[str, ...]:
    """The texts of one or several targets; a number is an index, never a label.

    Raises:
        UsageError: It is none of these.
    """
    if target is None:
        return ()
    listed = target if isinstance(target, list) else [target]
    if not listed or not all(type(each) in (str, int) for each in listed):
        raise UsageError("A target is a text or a whole number, or a list of these")
    return tuple(f"index:{each}" if isinstance(each, int) else str(each) for each in listed)


def text_of(data: bytes, place: str) -> str:
    """A text in UTF-8.

    Raises:
        InputError: It is not.
    """
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise InputError("The text is not in UTF-8", place=place) from error


def array_for(value: Any, graph_input: GraphInput, place: str) -> Array:
    """A nested list of JSON as an array in the type of an input.

    Raises:
        InputError: It is ragged, or its numbers do not fit the type.
    """
    try:
        array = np.asarray(value)
    except (ValueError, OverflowError, RecursionError) as error:
        raise InputError("The lists of an array have different lengths", place=place) from error
    dtype = np.dtype(graph_input.dtype)
    allowed = {"b": "b", "i": "iu", "u": "iu", "f": "iuf"}.get(dtype.kind, "")
    if array.size and array.dtype.kind not in allowed:
        raise InputError(f"The array is not {dtype.name}", place=place)
    with np.errstate(over="ignore", invalid="ignore"):
        cast = array.astype(dtype)
    if dtype.kind in "iu" and not np.array_equal(cast, array):
        raise InputError(f"A number does not fit {dtype.name}", place=place)
    return cast
