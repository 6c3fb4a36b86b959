"""Opening an input file: its suffix decides how it is read."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, Literal

from palrp_onnx.errors import InputError
from palrp_onnx.inputs.beside import beside
from palrp_onnx.inputs.chat import read_chat
from palrp_onnx.inputs.image import ImageReader
from palrp_onnx.inputs.kinds import IMAGE, SOUND, TABLE, TENSORS, TEXT, unknown_kind
from palrp_onnx.inputs.processor import default_preprocessor
from palrp_onnx.inputs.reading import read_stream
from palrp_onnx.inputs.sample import GraphInput, Sample
from palrp_onnx.inputs.sound import SoundReader, timed
from palrp_onnx.inputs.table import read_table
from palrp_onnx.inputs.tensors import read_npz
from palrp_onnx.inputs.text import TEXT_LIMIT, TextReader, decode_text, read_text
from palrp_onnx.inputs.tokenizer_files import default_tokenizer
from palrp_onnx.inputs.tokens import usable_tokenizer


def open_sample(
    source: Path | Literal["-"],
    *,
    model_path: Path,
    graph_inputs: Sequence[GraphInput],
    tokenizer: Path | None,
    pair: Path | None = None,
    windows: int | None = None,
    stdin: BinaryIO | None = None,
    chat: bool = False,
) -> Sample:
    """Read one input: its suffix says what it is; ``-`` is text from stdin.

    Args:
        source: The file, or ``-``.
        model_path: The model; the files that belong to it are in its folder, or one folder up.
        graph_inputs: The inputs of the graph, in graph order.
        tokenizer: The tokenizer, a file or a folder, if it is not beside the model.
        pair: A second text file, for models that take pairs.
        windows: Read a text that is too long in windows that share this number of tokens; −1: half
            of each.
        stdin: The stream that ``-`` stands for; standard input of the process by default.
        chat: Whether the file holds messages, which the tokenizer's chat template makes a text.

    Raises:
        InputError: The suffix is unknown, or the file cannot be used.
    """
    if source != "-" and source.is_dir():
        raise unknown_kind(source)
    suffix = "" if source == "-" else Path(source).suffix.lower()
    if pair is not None and source != "-" and suffix not in TEXT:
        raise InputError("only texts can be given in pairs", place=str(source))
    if windows is not None and (chat or (source != "-" and suffix not in TEXT)):
        raise InputError("only a text or a pair can be read in windows", place=str(source))
    if source == "-" or chat or suffix in TEXT:
        reader = _text_reader(model_path, graph_inputs, tokenizer)
        id = "stdin" if source == "-" else source.stem
        if chat:
            if source == "-":
                raise InputError("messages are read from a file", hint="--chat messages.json")
            text = read_chat(source, tokenizer or default_tokenizer(model_path))
            return reader.read(text, id=id, complete=True)
        text = read_stdin(stdin) if source == "-" else read_text(source)
        second = None if pair is None else read_text(pair)
        if windows is not None:
            return reader.read_windows(text, None if windows < 0 else windows, id=id, pair=second)
        return reader.read_given(text, second, id=id)
    if suffix in IMAGE:
        return ImageReader(default_preprocessor(model_path), graph_inputs).read_file(source)
    if suffix in SOUND:
        return SoundReader(default_preprocessor(model_path), graph_inputs).read_file(source)
    if suffix in TABLE:
        return read_table(source, graph_inputs)
    if suffix in TENSORS:
        words = tokenizer or usable_tokenizer(default_tokenizer(model_path))
        return timed(read_npz(source, graph_inputs, tokenizer=words), model_path)
    raise unknown_kind(source)


def read_stdin(stdin: BinaryIO | None = None) -> str:
    """The text on standard input, or on another stream.

    Raises:
        InputError: It is not text, or too long.
    """
    stream = sys.stdin.buffer if stdin is None else stdin
    return decode_text(read_stream(stream, limit=TEXT_LIMIT, place="stdin"), place="stdin")


def _text_reader(
    model_path: Path, graph_inputs: Sequence[GraphInput], tokenizer: Path | None
) -> TextReader:
    config = beside(model_path, "config.json")
    return TextReader(tokenizer or default_tokenizer(model_path), graph_inputs, config=config)
