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
from palrp_onnx.inputs.kinds import IMAGE, SOUND, TABLE, TENSORS, TEXT, unknown_kind
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
        stdin: The stream that ``-`` stands for; standard input of the process by default.
        chat: Whether the file holds messages, which the tokenizer's chat template makes a text.

    Raises:
        InputError: The suffix is unknown, or the file cannot be used.
    """
    suffix = "" if source == "-" else Path(source).suffix.lower()
    if pair is not None and source != "-" and suffix not in TEXT:
        raise InputError("only texts can be given in pairs", place=str(source))
    if source == "-":
        stream = sys.stdin.buffer if stdin is None else stdin
        text = decode_text(read_stream(stream, limit=TEXT_LIMIT, place="stdin"), place="stdin")
        second = None if pair is None else read_text(pair)
        return _text_reader(model_path, graph_inputs, tokenizer).read(text, pair=second, id="stdin")
    if chat:
        text = read_chat(source, tokenizer or default_tokenizer(model_path))
        reader = _text_reader(model_path, graph_inputs, tokenizer)
        return reader.read(text, id=source.stem, complete=True)
    if suffix in TEXT:
        return _text_reader(model_path, graph_inputs, tokenizer).read_file(source, pair_path=pair)
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


def _text_reader(
    model_path: Path, graph_inputs: Sequence[GraphInput], tokenizer: Path | None
) -> TextReader:
    config = beside(model_path, "config.json")
    return TextReader(tokenizer or default_tokenizer(model_path), graph_inputs, config=config)
