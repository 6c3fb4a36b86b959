"""Opening an input file: its suffix decides how it is read."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, Literal

from palrp_onnx.errors import InputError
from palrp_onnx.inputs.beside import beside
from palrp_onnx.inputs.chat import read_chat
from palrp_onnx.inputs.image import ImageReader, default_preprocessor
from palrp_onnx.inputs.produced import Beginning, sides
from palrp_onnx.inputs.reading import read_stream
from palrp_onnx.inputs.sample import GraphInput, Sample
from palrp_onnx.inputs.tensors import held, read_npz
from palrp_onnx.inputs.text import TEXT_LIMIT, TextReader, decode_text, read_text
from palrp_onnx.inputs.tokenizer_files import default_tokenizer
from palrp_onnx.inputs.tokens import usable_tokenizer

_TEXT = (".txt",)
_IMAGE = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif")
_TENSORS = (".npz",)


def open_sample(
    source: Path | Literal["-"],
    *,
    model_path: Path,
    graph_inputs: Sequence[GraphInput],
    tokenizer: Path | None,
    pair: Path | None = None,
    stdin: BinaryIO | None = None,
    start: str | None = None,
    chat: bool = False,
) -> Sample:
    """Read one input: text, an image or tensors by its suffix; ``-`` is text from stdin.

    The decoder of a sequence-to-sequence graph gets the tokens that its texts begin with, if the
    tensors do not hold others.

    Args:
        source: The file, or ``-``.
        model_path: The model; the files that belong to it are in its folder, or one folder up.
        graph_inputs: The inputs of the graph, in graph order.
        tokenizer: The tokenizer, a file or a folder, if it is not beside the model.
        pair: A second text file, for models that take pairs.
        stdin: The stream that ``-`` stands for; standard input of the process by default.
        start: The text that the decoder begins with, instead of what the model's files say.
        chat: Whether the file holds messages, which the tokenizer's chat template makes a text.

    Raises:
        InputError: The suffix is unknown, or the file cannot be used.
    """
    both = sides(graph_inputs)

    def read(inputs: Sequence[GraphInput]) -> Sample:
        if chat and isinstance(source, Path):
            return _open_chat(source, model_path, inputs, tokenizer)
        return _open_source(source, model_path, inputs, tokenizer, pair, stdin)

    if not both.produced:
        if start is not None:
            raise InputError("only a decoder with an encoder begins with a text", place=start)
        return read(graph_inputs)
    words = tokenizer or usable_tokenizer(default_tokenizer(model_path))
    begin = Beginning(both.produced, model_path=model_path, tokenizer=words, start=start)
    tensors = isinstance(source, Path) and source.suffix.lower() in _TENSORS
    if tensors and source != "-" and begin.name in held(source):
        return begin.shown(read(graph_inputs))
    return begin.of(read(both.source))


def _open_chat(
    source: Path, model_path: Path, graph_inputs: Sequence[GraphInput], tokenizer: Path | None
) -> Sample:
    text = read_chat(source, tokenizer or default_tokenizer(model_path))
    reader = _text_reader(model_path, graph_inputs, tokenizer)
    return reader.read(text, id=source.stem, complete=True)


def _open_source(
    source: Path | Literal["-"],
    model_path: Path,
    graph_inputs: Sequence[GraphInput],
    tokenizer: Path | None,
    pair: Path | None,
    stdin: BinaryIO | None,
) -> Sample:
    suffix = "" if source == "-" else Path(source).suffix.lower()
    if pair is not None and source != "-" and suffix not in _TEXT:
        raise InputError("only texts can be given in pairs", place=str(source))
    if source == "-":
        stream = sys.stdin.buffer if stdin is None else stdin
        text = decode_text(read_stream(stream, limit=TEXT_LIMIT, place="stdin"), place="stdin")
        second = None if pair is None else read_text(pair)
        return _text_reader(model_path, graph_inputs, tokenizer).read(text, pair=second, id="stdin")
    if suffix in _TEXT:
        return _text_reader(model_path, graph_inputs, tokenizer).read_file(source, pair_path=pair)
    if suffix in _IMAGE:
        return ImageReader(default_preprocessor(model_path), graph_inputs).read_file(source)
    if suffix in _TENSORS:
        words = tokenizer or usable_tokenizer(default_tokenizer(model_path))
        return read_npz(source, graph_inputs, tokenizer=words)
    known = f"text ({_list(_TEXT)}), images ({_list(_IMAGE)}) and tensors ({_list(_TENSORS)})"
    problem, hint = f"unknown file type {suffix!r}", f"supported are {known}"
    if source.is_dir():
        problem, hint = "is a folder, not one input", "palrp-onnx batch explains all its files"
    elif not source.exists():
        problem, hint = "there is no such file", f"{hint}; a text itself is read from stdin: -"
    raise InputError(problem, place=str(source), hint=hint)


def _text_reader(
    model_path: Path, graph_inputs: Sequence[GraphInput], tokenizer: Path | None
) -> TextReader:
    config = beside(model_path, "config.json")
    return TextReader(tokenizer or default_tokenizer(model_path), graph_inputs, config=config)


def _list(suffixes: tuple[str, ...]) -> str:
    return ", ".join(suffixes)
