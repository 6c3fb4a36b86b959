"""Several files for one graph: each gives arrays for some of its inputs, by kind or by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from msgspec import structs
from PIL import Image

from palrp_onnx.errors import InputError
from palrp_onnx.inputs.beside import beside
from palrp_onnx.inputs.image import (
    ImageReader,
    all_kept,
    pixel_masks,
    takes_images,
)
from palrp_onnx.inputs.kinds import ARRAY, IMAGE, SOUND, TABLE, TENSORS, TEXT, unknown_kind
from palrp_onnx.inputs.patches import patch_inputs
from palrp_onnx.inputs.preprocessing import read_form
from palrp_onnx.inputs.processor import default_preprocessor
from palrp_onnx.inputs.produced import sides
from palrp_onnx.inputs.purposes import IDS, purposes
from palrp_onnx.inputs.sample import Feeds, GraphInput, Sample
from palrp_onnx.inputs.signature import describe
from palrp_onnx.inputs.sound import SoundReader, takes_sound, timed
from palrp_onnx.inputs.table import read_table
from palrp_onnx.inputs.tensors import array_sample, names_in, read_array, read_npz
from palrp_onnx.inputs.text import TextReader, lines_of, read_text
from palrp_onnx.inputs.tokenizer_files import default_tokenizer
from palrp_onnx.inputs.towers import texts_of
from palrp_onnx.model.signature import first_axes
from palrp_onnx.record import InputFacts
from palrp_onnx.types import Array

#: Readers by their kind and the inputs that they read, so that files beside a model are read once.
Readers = dict[tuple[object, ...], Any]


@dataclass(frozen=True, eq=False)
class Given:
    """What is given, and the input of the graph that it is for, if the caller named it.

    ``path`` is a file, or what others are read from files: a text, texts, an image, an array.
    """

    path: Path | str | tuple[str, ...] | Image.Image | Array
    name: str | None = None

    @property
    def suffix(self) -> str:
        """The suffix of a file; of a value, that of the files that hold such."""
        match self.path:
            case Path():
                return self.path.suffix.lower()
            case str() | tuple():
                return TEXT[0]
            case Image.Image():
                return IMAGE[0]
        return ARRAY[0]

    @property
    def id(self) -> str:
        """The name of the sample that is made of it."""
        if isinstance(self.path, Path):
            return self.path.stem
        return {TEXT[0]: "text", IMAGE[0]: "image"}.get(self.suffix, "array")

    @property
    def place(self) -> str:
        """Where it is, for errors."""
        return str(self.path) if isinstance(self.path, Path) else self.id

    @property
    def file(self) -> Path:
        """The file of a kind that is only given as such."""
        assert isinstance(self.path, Path)
        return self.path

    @property
    def texts(self) -> tuple[str, ...]:
        """The text of a file, or those that are given."""
        if isinstance(self.path, tuple):
            return self.path
        return (self.path if isinstance(self.path, str) else read_text(self.file),)


def names_held(given: Sequence[Given]) -> frozenset[str]:
    """Names of the inputs that have a file, or an array in one, by name.

    Raises:
        InputError: A file does not exist or cannot be read.
    """
    files = [each.file for each in given if each.suffix in TENSORS]
    named = (each.name for each in given if each.name is not None)
    return frozenset(named).union(*map(names_in, files))


def open_several(
    given: Sequence[Given],
    *,
    model_path: Path,
    graph_inputs: Sequence[GraphInput],
    tokenizer: Path | None = None,
    readers: Readers | None = None,
) -> Sample:
    """Read several files to one sample.

    A file with a name is for that input. Images and arrays go to the inputs that they fit; a text
    to those that it provides. If the batch of the texts is none of another input (``text_batch``,
    as CLIP's), every line of a text file is a text of its own. A graph that takes several texts,
    each by ids and a mask of its own, gets each by the name of its ids.

    Args:
        given: The files.
        model_path: The model; the files that belong to it are in its folder, or one folder up.
        graph_inputs: The inputs of the graph, in graph order.
        tokenizer: The tokenizer, if it is not beside the model.
        readers: Readers that earlier samples of this graph have used.

    Raises:
        InputError: A file cannot be used, an input is given twice, or one is missing.
    """
    opened = _Opening(model_path, list(graph_inputs), tokenizer, {} if readers is None else readers)
    parts = {each: opened.read(each) for each in sorted(given, key=_unnamed) if not _text(each)}
    opened.fill_masks()
    if texts := [each for each in given if _text(each)]:
        for own, inputs in opened.by_text(texts):
            parts[own[0]] = opened.read_texts(own, inputs)
    if opened.free:
        raise InputError(
            "no file gives " + ", ".join(each.name for each in opened.free),
            hint=f"{describe(graph_inputs)}; name a file's input: --input NAME=FILE.",
        )
    return _joined([parts[each] for each in given if each in parts], opened.feeds, graph_inputs)


def _lines(given: Given) -> list[str]:
    """One text a line of a file; texts that are given as such are not taken apart."""
    if isinstance(given.path, tuple):
        return [text for text in given.path if text.strip()]
    return [line for text in given.texts for line in lines_of(text)]


def _text(given: Given) -> bool:
    return given.suffix in TEXT


def _unnamed(given: Given) -> bool:
    """Files whose input is named come first, so that the others get the rest."""
    return given.name is None


@dataclass
class _Opening:
    """Inputs that are ``free`` have no array yet."""

    model_path: Path
    free: list[GraphInput]
    tokenizer: Path | None
    readers: Readers

    def __post_init__(self) -> None:
        self.all = list(self.free)
        self.feeds: Feeds = {}
        self.parts: list[Sample] = []

    def read(self, given: Given) -> Sample:
        """A file of any kind but text."""
        suffix = given.suffix
        if isinstance(given.path, Path) and given.path.is_dir():
            raise unknown_kind(given.path)
        if suffix in IMAGE:
            config = default_preprocessor(self.model_path)
            inputs = [] if any(map(takes_images, self.free)) else patch_inputs(self.free)
            other = given.name is not None and self._named(given.name) not in inputs
            if not inputs or other or read_form(config) != "patches":
                inputs = [self._one(given, takes_images, "an image")]
            reader = self._reader(lambda: ImageReader(config, inputs), "image", inputs)
            if isinstance(given.path, Image.Image):
                return self._take(reader.read(given.path, id=given.id))
            return self._take(reader.read_file(given.file))
        if suffix in SOUND:
            chosen = self._one(given, takes_sound, "a sound")
            config = default_preprocessor(self.model_path)
            reader = self._reader(lambda: SoundReader(config, [chosen]), "sound", [chosen])
            return self._take(reader.read_file(given.file))
        if suffix in TABLE:
            chosen = self._one(given, lambda each: len(each.shape or (1, 1)) == _TABLE, "a table")
            return self._take(read_table(given.file, [chosen]))
        if suffix in TENSORS:
            names = names_in(given.file)
            if given.name is not None and names != {given.name}:
                raise InputError(
                    f"holds arrays of its own names, not one of {given.name} alone",
                    place=given.place,
                    hint=f"Leave out the name: --input {given.path}",
                )
            found = read_npz(given.file, [e for e in self.free if e.name in names])
            return self._take(timed(found, self.model_path))
        if suffix in ARRAY:
            chosen = self._one(given, lambda _: True, "an array")
            if isinstance(given.path, np.ndarray):
                return self._take(array_sample(given.path, chosen, id=given.id, place=chosen.name))
            return self._take(read_array(given.file, chosen))
        raise unknown_kind(given.file)

    def by_text(self, given: Sequence[Given]) -> list[tuple[list[Given], Sequence[GraphInput]]]:
        """The files of each text that the graph takes, and the inputs that are given from it.

        Raises:
            InputError: It is open which text a file is, or whose an input is.
        """
        found = purposes(self.all)
        inputs = [each for each in self.free if found[each.name] is not None]
        rows = [e for e in inputs if found[e.name] == IDS and len(e.shape or ()) <= _TABLE]
        several = len(rows) > 1
        if not several or sides(self.all).produced:
            return [([*given], inputs)]
        texts, files = texts_of(inputs, found), dict[str, list[Given]]()
        for each in sorted(given, key=_unnamed):
            left = [name for name in texts if name not in files]
            name = left[0] if each.name is None and len(left) == 1 else each.name
            if name not in texts:
                raise InputError(
                    f"the graph takes several texts, by {' and '.join(texts)}",
                    place=each.place,
                    hint=" ".join(f"--input {name}=FILE" for name in texts),
                )
            files.setdefault(name, []).append(each)
        return [(files[name], inputs) for name, inputs in texts.items() if name in files]

    def read_texts(self, given: Sequence[Given], inputs: Sequence[GraphInput]) -> Sample:
        """One text, or several as rows."""
        if (name := given[0].name) is not None:
            self._named(name)
            inputs = [replace(e, receives=IDS) if e.name == name else e for e in inputs]
        config = beside(self.model_path, "config.json")
        tokenizer = self.tokenizer or default_tokenizer(self.model_path)
        reader = self._reader(lambda: TextReader(tokenizer, inputs, config=config), "text", inputs)
        texts = [text for each in given for text in each.texts]
        if _own_batch(reader.ids, [e for e in self.all if e.name in self.feeds]):
            lines = [line for each in given for line in _lines(each)]
            return self._take(reader.read_rows(lines, id=given[0].id))
        if len(texts) > 1:
            raise InputError(
                "several texts for one sample, whose inputs share a batch",
                place=given[-1].place,
                hint="palrp-onnx batch explains many samples.",
            )
        return self._take(reader.read(texts[0], id=given[0].id))

    def _reader(self, make: Callable[[], Any], kind: str, inputs: Sequence[GraphInput]) -> Any:
        key = (kind, *((each.name, each.receives) for each in inputs))
        if key not in self.readers:
            self.readers[key] = make()
        return self.readers[key]

    def fill_masks(self) -> None:
        """Masks of pixels keep all of them."""
        image = next((part for part in self.parts if part.kind == "image"), None)
        if image is None:
            return
        pixels = image.feeds[image.subject or ""]
        size = pixels.shape[1:3] if pixels.shape[-1] in (1, 3) else pixels.shape[2:]
        masks = [each for each in pixel_masks(self.all) if each in self.free]
        self.feeds |= all_kept(masks, size)
        self.free = [each for each in self.free if each not in masks]

    def _named(self, name: str) -> GraphInput:
        if chosen := next((each for each in self.free if each.name == name), None):
            return chosen
        twice = name in self.feeds
        raise InputError(
            f"{name} is given twice" if twice else f"the graph has no input {name}",
            hint=describe(self.all),
        )

    def _one(self, given: Given, fits: Callable[[GraphInput], bool], what: str) -> GraphInput:
        if given.name is not None:
            return self._named(given.name)
        found = [each for each in self.free if fits(each)]
        if len(found) != 1:
            names = ", ".join(each.name for each in found)
            raise InputError(
                f"{what} fits {names}" if found else f"no further input takes {what}",
                place=given.place,
                hint=f"Name it: --input NAME={given.place}. {describe(self.all)}",
            )
        return found[0]

    def _take(self, sample: Sample) -> Sample:
        self.parts.append(sample)
        self.feeds |= sample.feeds
        self.free = [each for each in self.free if each.name not in sample.feeds]
        return sample


#: Number of axes of a table.
_TABLE = 2


def _own_batch(ids: GraphInput, others: Sequence[GraphInput]) -> bool:
    """Whether the first axis of a text has a length of its own, with a symbol or a number."""
    firsts = {each.shape[0] if each.shape else None for each in others}
    own = ids.shape[0] if ids.shape else None
    return bool(others) and own not in (None, 1) and own not in firsts


def _second_texts(parts: Sequence[Sample]) -> list[Sample]:
    """The samples, with the places of units of all texts but the first in the lines of a second."""
    found, at = list[Sample](), -1
    for part in parts:
        units, text = part.units, part.facts.text
        if at >= 0 and text is not None and units is not None:
            shift = [0 if special else at for special in units.special]
            moved = structs.replace(
                units,
                start=[k + more for k, more in zip(units.start, shift, strict=True)],
                end=[k + more for k, more in zip(units.end, shift, strict=True)],
                sequence=[1] * len(units.text),
            )
            part = replace(part, units=moved)
        if text is not None:
            at = 0 if at < 0 else at + len(text) + 1
        found.append(part)
    return found


def _joined(parts: Sequence[Sample], feeds: Feeds, graph_inputs: Sequence[GraphInput]) -> Sample:
    lengths = {name: len(array) for name, array in feeds.items() if array.ndim}
    if (problem := first_axes(graph_inputs, lengths)) is not None:
        raise InputError(problem)
    facts = [part.facts for part in parts]
    texts = [each.text for each in facts if each.text is not None]
    parts = _second_texts(parts)
    return Sample(
        id="+".join(dict.fromkeys(part.id for part in parts)),
        kind="several",
        feeds={each.name: feeds[each.name] for each in graph_inputs},
        facts=InputFacts(
            kind="several",
            truncated=any(each.truncated for each in facts),
            text=texts[0] if texts else None,
            text_pair="\n".join(texts[1:]) or None,
            size=next((each.size for each in facts if each.size is not None), None),
            seconds=next((each.seconds for each in facts if each.seconds is not None), None),
            step=next((each.step for each in facts if each.step is not None), None),
        ),
        warnings=tuple(warning for part in parts for warning in part.warnings),
        parts=tuple(parts),
    )
