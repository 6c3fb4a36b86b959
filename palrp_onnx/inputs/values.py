"""What a program has in its hands → a sample: texts, files, images, arrays, pairs, messages."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from PIL import Image

from palrp_onnx.errors import InputError
from palrp_onnx.inputs.beside import beside
from palrp_onnx.inputs.chat import render_chat
from palrp_onnx.inputs.ids import IdReader
from palrp_onnx.inputs.image import ImageReader, takes_images
from palrp_onnx.inputs.kinds import ARRAY, IMAGE, SOUND, TABLE, TENSORS, TEXT
from palrp_onnx.inputs.open import open_sample
from palrp_onnx.inputs.patches import patch_inputs
from palrp_onnx.inputs.processor import default_preprocessor
from palrp_onnx.inputs.produced import read_both, sides
from palrp_onnx.inputs.purposes import IDS, purposes
from palrp_onnx.inputs.sample import GraphInput, Sample
from palrp_onnx.inputs.several import Given, Readers, names_held, open_several
from palrp_onnx.inputs.signature import describe, is_integer
from palrp_onnx.inputs.tensors import check_names, sample_of
from palrp_onnx.inputs.text import TextReader, read_text
from palrp_onnx.inputs.tokenizer_files import default_tokenizer
from palrp_onnx.inputs.tokens import usable_tokenizer
from palrp_onnx.record import Warning_
from palrp_onnx.types import Array

#: Suffixes of input files, and the length that no name of a file has.
KINDS = (*TEXT, *IMAGE, *SOUND, *TABLE, *TENSORS, *ARRAY)
_LONGEST_NAME = 4096
#: Number of texts of a pair.
_PAIR = 2
#: What can be explained: see `ValueReader.read`.
Value: TypeAlias = (
    str
    | os.PathLike[str]
    | Image.Image
    | Array
    | Sequence[Any]
    | Mapping[str, Any]
    | Sample
    | Given
)

_ALSO_FILE = Warning_(
    code="also-file",
    message="the text is also the name of a file, which was not read: that is pathlib.Path(…)",
)


@dataclass(frozen=True)
class _Messages:
    """What the chat template makes a text of."""

    content: Any


class ValueReader:
    """Reads values for one graph; tokenizer and image processor are opened once. Not thread-safe.

    Args:
        model_path: The model; the files that belong to it are in its folder, or one folder up.
        graph_inputs: The inputs of the graph, in graph order.
        tokenizer: The tokenizer, a file or a folder, if it is not beside the model.
    """

    def __init__(
        self, model_path: Path, graph_inputs: Sequence[GraphInput], *, tokenizer: Path | None = None
    ) -> None:
        self.model_path = model_path
        self.inputs = tuple(graph_inputs)
        self._both = sides(graph_inputs)
        self._tokenizer = tokenizer
        self._readers: Readers = {}

    def read(
        self,
        value: Value,
        *,
        id: str | None = None,
        windows: int | None = None,
        start: str | None = None,
    ) -> Sample:
        """Read one value.

        - A ``str`` is the text itself. For a graph that takes no text it is the path of a file.
        - A ``pathlib.Path`` is a file; its suffix says of what kind.
        - A ``PIL.Image.Image`` is preprocessed as an image file.
        - Two texts ``(a, b)`` are a pair; of ``(text, [choice, …])`` the second are choices. Other
          tuples are what several inputs of a graph get, as an image and texts; of these,
          :class:`palrp_onnx.inputs.Given` has the name of its input.
        - An array is what the only input of the graph gets, as it is; a list of whole numbers, or
          an array with one axis of them, are the ids of one text.
        - A mapping has what each input gets, by its name: arrays, or any of the above.
        - Messages, ``[{"role": …, "content": …}]`` or ``{"messages": […]}`` with further variables,
          go through the tokenizer's chat template.
        - A :class:`palrp_onnx.inputs.Given` with a ``str`` is a text, whatever the graph takes.

        Args:
            value: The value.
            id: Name of the sample; by default that of the file, or the kind of the value.
            windows: Read a text that is too long in windows that share this number of tokens; −1:
                half of each.
            start: What the decoder of an encoder begins with, instead of what the model's files
                say.

        Raises:
            InputError: The value is none of these, or does not fit the graph.
        """
        if isinstance(value, Sample):
            return value if id is None else replace(value, id=id)
        plain, name = self._plain(value), id or _name_of(value)
        given = None if windows is not None else _given(plain)
        read = partial(self._read, plain, given, name or "text")
        if windows is not None:
            read = partial(self._in_windows, plain, windows, name or "text")
        sample = read_both(
            read,
            self.inputs,
            held=self._held(plain, given),
            model_path=self.model_path,
            tokenizer=self._existing,
            start=start,
        )
        if isinstance(value, str) and self.takes_text and _names_file(value):
            sample = replace(sample, warnings=(*sample.warnings, _ALSO_FILE))
        return sample if id is None else replace(sample, id=id)

    @cached_property
    def takes_text(self) -> bool:
        """Whether a text gives something to an input of the graph."""
        found = purposes(self._both.source)
        open_ = (each for each in self._both.source if found[each.name] is None)
        return IDS in found.values() or any(map(is_integer, open_))

    @property
    def takes_image(self) -> bool:
        """Whether an image gives something to an input of the graph."""
        return any(map(takes_images, self._both.source)) or bool(patch_inputs(self._both.source))

    def _plain(self, value: Any) -> Any:
        """The value, with paths as such, and with arrays of other libraries as arrays."""
        if isinstance(value, str):
            return value if self.takes_text else Path(value)
        if isinstance(value, Given):
            return value.path if value.name is None else (value,)
        if isinstance(value, Mapping) and "messages" in value:
            return _Messages(dict(value))
        if isinstance(value, Mapping):
            return {name: _part(each) for name, each in value.items()}
        if isinstance(value, tuple):
            return _pair(tuple(map(_part, value)))
        if isinstance(value, list) and value and all(isinstance(each, Mapping) for each in value):
            return _Messages(value)
        if isinstance(value, list) and any(isinstance(each, str) for each in value):
            raise InputError(
                "a list of texts is no single input",
                hint="(a, b) is a pair of texts; explain_many explains many.",
            )
        return _part(value)

    def _in_windows(
        self, value: Any, windows: int, name: str, _inputs: Sequence[GraphInput]
    ) -> Sample:
        texts = _pair(value if isinstance(value, tuple) else (value,))
        if not all(isinstance(each, str) for each in texts) or len(texts) > _PAIR:
            raise InputError("only a text or a pair can be read in windows", place=name)
        text, pair = (*texts, None)[:_PAIR]
        shared = None if windows < 0 else windows
        return self._texts.read_windows(text, shared, id=name, pair=pair)

    def _held(self, value: Any, given: Sequence[Given] | None) -> frozenset[str]:
        """Names of the inputs that have something of their own."""
        if isinstance(value, Path):
            return names_held([Given(value)])
        return names_held(given or [])

    def _read(
        self,
        value: Any,
        given: Sequence[Given] | None,
        name: str,
        inputs: Sequence[GraphInput],
    ) -> Sample:
        match value:
            case str():
                return self._texts.read(value, id=name)
            case (str() as text, str() as pair):
                return self._texts.read_given(text, pair, id=name)
            case (str() as text, tuple() as choices) if self._texts.takes_choices:
                return self._texts.read_choices(text, choices, id=name)
            case Path() if _is_text(value):
                return self._texts.read(read_text(value), id=name)
            case Path():
                return open_sample(
                    value,
                    model_path=self.model_path,
                    graph_inputs=inputs,
                    tokenizer=self._tokenizer,
                )
            case Image.Image():
                return self._images.read(value, id=name)
            case _Messages():
                text = render_chat(value.content, self._tokenizer_place, place=name)
                return self._texts.read(text, id=name, complete=True)
            case np.ndarray():
                return self._array(value, inputs)
            case dict() if all(isinstance(each, np.ndarray) for each in value.values()):
                return self._arrays(value, inputs)
        if given is None:
            raise InputError(f"{len(value)} texts are no pair", hint="(a, b) is one.")
        return open_several(
            given,
            model_path=self.model_path,
            graph_inputs=inputs,
            tokenizer=self._tokenizer,
            readers=self._readers,
        )

    def _array(self, array: Array, inputs: Sequence[GraphInput]) -> Sample:
        """The array of the only input, or the ids of one text."""
        if array.ndim == 1 and array.dtype.kind in "iu" and self.takes_text:
            reader = IdReader(self._both.source, self._existing)
            return reader.read([int(each) for each in array], id="ids")
        if len(inputs) != 1:
            raise InputError(
                f"one array for {len(inputs)} inputs; {describe(inputs)}",
                hint="Give a mapping with one array for each input, by its name.",
            )
        return self._arrays({inputs[0].name: array}, inputs)

    def _arrays(self, arrays: Mapping[str, Array], inputs: Sequence[GraphInput]) -> Sample:
        known = {each.name for each in inputs}  # empty caches hold no numbers that could be lost
        arrays = {name: each for name, each in arrays.items() if name in known or each.size}
        check_names(set(arrays), inputs, place="arrays")
        return sample_of(arrays, inputs, id="arrays", place="arrays", tokenizer=self._existing)

    @cached_property
    def _texts(self) -> TextReader:
        config = beside(self.model_path, "config.json")
        return TextReader(self._tokenizer_place, self._both.source, config=config)

    @cached_property
    def _images(self) -> ImageReader:
        return ImageReader(default_preprocessor(self.model_path), self._both.source)

    @property
    def _tokenizer_place(self) -> Path:
        return self._tokenizer or default_tokenizer(self.model_path)

    @cached_property
    def _existing(self) -> Path | None:
        """The tokenizer; ``None`` where there is none, for arrays alone."""
        return self._tokenizer or usable_tokenizer(default_tokenizer(self.model_path))


def _given(value: Any) -> list[Given] | None:
    """The parts of a value that is for several inputs; ``None`` where it is not."""
    match value:
        case dict():
            return [Given(each, name) for name, each in value.items()]
        case tuple() if not all(isinstance(each, str) for each in value):
            return [each if isinstance(each, Given) else Given(each) for each in value]
    return None


def _part(value: Any) -> Any:
    """A text, texts, a file, an image, or an array."""
    if isinstance(value, str | Image.Image | np.ndarray | Given):
        return value
    if isinstance(value, os.PathLike):
        return Path(value)
    if isinstance(value, list | tuple) and value and all(isinstance(each, str) for each in value):
        return tuple(value)
    try:
        array = np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{type(value).__name__} is no input: {error}") from error
    if array.dtype.kind not in "biuf":
        raise InputError(
            f"{type(value).__name__} is no input",
            hint="Give a text, a pathlib.Path, an image of Pillow, arrays, a pair or a mapping.",
        )
    return array


def _pair(parts: tuple[Any, ...]) -> tuple[Any, ...]:
    """Several parts; if all are texts or text files, the texts."""
    if not all(isinstance(each, str) or _is_text(each) for each in parts):
        return parts
    return tuple(each if isinstance(each, str) else read_text(each) for each in parts)


def _name_of(value: Any) -> str | None:
    """The name of what has one: of a file, of the first of several, of an opened image."""
    if isinstance(value, tuple) and value:
        return _name_of(value[0])
    if isinstance(value, Given):
        return value.id
    if isinstance(value, Image.Image):
        return Path(getattr(value, "filename", "") or "image").stem
    if isinstance(value, list | Mapping):
        return "messages"
    return Path(value).stem if isinstance(value, os.PathLike) else None


def _names_file(text: str) -> bool:
    """Whether a text is also the name of a file that could be read as an input."""
    if len(text) > _LONGEST_NAME or Path(text).suffix.lower() not in KINDS:
        return False
    try:
        return Path(text).is_file()
    except (OSError, ValueError):
        return False


def _is_text(value: Any) -> bool:
    """Whether it is a text file."""
    return isinstance(value, Path) and value.suffix.lower() in TEXT
