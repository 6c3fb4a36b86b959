"""Records → arrays for the graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from palrp_onnx.errors import InputError
from palrp_onnx.inputs import (
    Continuation,
    Given,
    GraphInput,
    ImageReader,
    Sample,
    TextReader,
    default_preprocessor,
    default_tokenizer,
    open_several,
    read_npz,
)
from palrp_onnx.inputs.beside import beside
from palrp_onnx.inputs.ids import IdReader
from palrp_onnx.inputs.kinds import KNOWN
from palrp_onnx.inputs.produced import Beginning, sides, whole_source
from palrp_onnx.inputs.several import Readers, names_held
from palrp_onnx.inputs.sound import SoundReader, timed
from palrp_onnx.inputs.tensors import names_in
from palrp_onnx.inputs.text import read_text
from palrp_onnx.inputs.tokens import load_tokenizer, usable_tokenizer
from palrp_onnx.jobs.records import Fields


class SampleReader:
    """Reads records for one graph. Not thread-safe.

    The decoder of an encoder gets what its texts begin with, so that its first token is explained.

    Args:
        model_path: The model; the files that belong to it are in its folder, or one folder up.
        graph_inputs: The inputs of the graph, in graph order.
        tokenizer: The tokenizer, a file or a folder, if it is not beside the model.
        windows: Read texts that are too long in windows that share this number of tokens; −1: half
            of each.
        columns: Names of units by input.

    Raises:
        InputError: The given tokenizer cannot be used.
    """

    def __init__(
        self,
        model_path: Path,
        graph_inputs: Sequence[GraphInput],
        tokenizer: Path | None,
        *,
        windows: int | None = None,
        columns: Mapping[str, tuple[str, ...]] | None = None,
    ) -> None:
        self._model_path = model_path
        self._inputs = graph_inputs
        self._both = sides(graph_inputs)
        self._given_tokenizer = tokenizer
        self._tokenizer = tokenizer or default_tokenizer(model_path)
        self._windows, self._columns = windows, columns or {}
        self._readers: Readers = {}
        if tokenizer is not None:
            load_tokenizer(tokenizer)  # a bad one is reported before anything runs

    def read(self, fields: Fields, name: str, folder: Path, *, originals: bool = False) -> Sample:
        """The sample of one record.

        Args:
            fields: The record.
            name: Its id.
            folder: Paths are relative to this folder.
            originals: Whether it has the original images, to draw maps on.

        Raises:
            InputError: The input cannot be used.
        """
        sample = replace(self._read(fields, name, folder), id=name, columns=self._columns)
        if not originals:
            parts = tuple(replace(part, image=None) for part in sample.parts)
            sample = replace(sample, image=None, parts=parts)
        if self._begin is None:
            return sample
        if sample.windows:
            raise whole_source(name)
        given = self._begin.name in sample.feeds
        return self._begin.shown(sample) if given else self._begin.of(sample)

    def continued(self, sample: Sample, text: str) -> tuple[Sample, str]:
        """The sample with the tokens of a text that follows, and the target that these are.

        Raises:
            InputError: The text has no tokens, or nothing can follow this sample.
        """
        own = sample.parts[-1] if self._begin is not None else sample
        if own.units is None or own.windows:
            raise InputError(
                "only a text that is read as a whole, or a decoder, has a continuation",
                place=sample.id,
            )
        first = len(own.units.id)
        tokens = self._continuation.tokens(sample, text)
        for token in tokens:
            sample = self._continuation.extend(sample, token)
        return sample, f"span:{first}-{first + len(tokens) - 1}"

    def _read(self, fields: Fields, name: str, folder: Path) -> Sample:
        if len(fields.given) > 1 or fields.named:
            return self._several(fields, folder)
        if fields.text is not None or fields.text_file is not None:
            text = (
                read_text(folder / (fields.text_file or "")) if fields.text is None else fields.text
            )
            if self._windows is None:
                return self._text.read_given(text, fields.text_pair, id=name)
            overlap = None if self._windows < 0 else self._windows
            return self._text.read_windows(text, overlap, id=name, pair=fields.text_pair)
        if fields.input_ids is not None:
            return self._ids.read(fields.input_ids, id=name)
        if fields.image is not None:
            return self._image.read_file(folder / fields.image)
        if fields.sound is not None:
            return self._sound.read_file(folder / fields.sound)
        assert fields.tensors is not None
        return self._tensors(folder / fields.tensors, name)

    def _several(self, fields: Fields, folder: Path) -> Sample:
        """Files and texts of several inputs, as ``explain`` reads them."""
        files = (fields.text_file, fields.image, fields.sound, fields.tensors)
        given: list[Given] = [Given(folder / file) for file in files if file is not None]
        for name, value in fields.named.items():
            file = folder / value
            given.append(Given(file if file.suffix.lower() in KNOWN else value, name))
        if fields.text is not None:
            given.append(Given(fields.text))
        held = self._begin is None or self._begin.name in names_held(given)
        return open_several(
            given,
            model_path=self._model_path,
            graph_inputs=self._inputs if held else self._both.source,
            tokenizer=self._given_tokenizer,
            readers=self._readers,
        )

    def _tensors(self, path: Path, name: str) -> Sample:
        held = self._begin is None or self._begin.name in names_in(path)
        inputs = self._inputs if held else self._both.source
        sample = read_npz(path, inputs, tokenizer=self._existing)
        rows = max((len(array) for array in sample.feeds.values() if array.ndim), default=1)
        if rows > 1:
            raise InputError(
                f"A record is one row; the file holds {rows}",
                place=str(path),
                hint="Write one file a row.",
            )
        return replace(timed(sample, self._model_path), id=name)

    @cached_property
    def _begin(self) -> Beginning | None:
        if not self._both.produced:
            return None
        return Beginning(self._both.produced, model_path=self._model_path, tokenizer=self._existing)

    @cached_property
    def _continuation(self) -> Continuation:
        return Continuation(self._existing, self._inputs, model_path=self._model_path)

    @cached_property
    def _existing(self) -> Path | None:
        return usable_tokenizer(self._tokenizer)

    @cached_property
    def _text(self) -> TextReader:
        config = beside(self._model_path, "config.json")
        return TextReader(self._tokenizer, self._both.source, config=config)

    @cached_property
    def _ids(self) -> IdReader:
        return IdReader(self._both.source, self._existing)

    @cached_property
    def _sound(self) -> SoundReader:
        return SoundReader(default_preprocessor(self._model_path), self._both.source)

    @cached_property
    def _image(self) -> ImageReader:
        return ImageReader(default_preprocessor(self._model_path), self._both.source)
