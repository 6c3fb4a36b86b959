"""Records → arrays for the graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from palrp_onnx.errors import InputError
from palrp_onnx.inputs import (
    GraphInput,
    ImageReader,
    Sample,
    TextReader,
    default_preprocessor,
    default_tokenizer,
    read_npz,
)
from palrp_onnx.inputs.beside import beside
from palrp_onnx.inputs.ids import IdReader
from palrp_onnx.inputs.produced import Beginning, sides
from palrp_onnx.inputs.sound import SoundReader, timed
from palrp_onnx.inputs.tensors import names_in
from palrp_onnx.inputs.text import read_text
from palrp_onnx.inputs.tokens import usable_tokenizer
from palrp_onnx.jobs.records import Fields


class SampleReader:
    """Reads records for one graph. Not thread-safe.

    The decoder of an encoder gets what its texts begin with, so that its first token is explained.

    Args:
        model_path: The model; the files that belong to it are in its folder, or one folder up.
        graph_inputs: The inputs of the graph, in graph order.
        tokenizer: The tokenizer, a file or a folder, if it is not beside the model.

    Raises:
        InputError: The given tokenizer cannot be used for this graph.
    """

    def __init__(
        self, model_path: Path, graph_inputs: Sequence[GraphInput], tokenizer: Path | None
    ) -> None:
        self._model_path = model_path
        self._inputs = graph_inputs
        self._both = sides(graph_inputs)
        self._tokenizer = tokenizer or default_tokenizer(model_path)
        if tokenizer is not None:
            self._text  # noqa: B018 - reads it, so that a bad one is reported before anything runs

    def read(self, fields: Fields, name: str, folder: Path) -> Sample:
        """The sample of one record, without the original image.

        Raises:
            InputError: The input cannot be used.
        """
        sample = self._read(fields, name, folder)
        if self._begin is None:
            return sample
        given = self._begin.name in sample.feeds
        return self._begin.shown(sample) if given else self._begin.of(sample)

    def _read(self, fields: Fields, name: str, folder: Path) -> Sample:
        if fields.text is not None:
            return self._text.read_given(fields.text, fields.text_pair, id=name)
        if fields.text_file is not None:
            return self._text.read(read_text(folder / fields.text_file), id=name)
        if fields.input_ids is not None:
            return self._ids.read(fields.input_ids, id=name)
        if fields.image is not None:
            sample = self._image.read_file(folder / fields.image)
            return replace(sample, id=name, image=None)
        if fields.sound is not None:
            return replace(self._sound.read_file(folder / fields.sound), id=name)
        assert fields.tensors is not None
        return self._tensors(folder / fields.tensors, name)

    def picture(self, path: Path) -> Sample:
        """The sample of an image with the original, to draw maps on.

        Raises:
            InputError: The image cannot be used.
        """
        return self._image.read_file(path)

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
