"""Input files → arrays for the graph, and the units (tokens, patches) that they stand for."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from palrp_onnx.inputs.continuation import Continuation
    from palrp_onnx.inputs.image import ImageReader
    from palrp_onnx.inputs.labels import read_labels
    from palrp_onnx.inputs.open import open_sample
    from palrp_onnx.inputs.processor import default_preprocessor
    from palrp_onnx.inputs.purposes import bind_inputs
    from palrp_onnx.inputs.sample import Feeds, GraphInput, ImageGeometry, Sample
    from palrp_onnx.inputs.several import Given, open_several
    from palrp_onnx.inputs.tensors import read_npz
    from palrp_onnx.inputs.text import TextReader
    from palrp_onnx.inputs.tokenizer_files import default_tokenizer
    from palrp_onnx.inputs.tokens import unknown_token

__all__ = [
    "Continuation",
    "Feeds",
    "Given",
    "GraphInput",
    "ImageGeometry",
    "ImageReader",
    "Sample",
    "TextReader",
    "bind_inputs",
    "default_preprocessor",
    "default_tokenizer",
    "open_sample",
    "open_several",
    "read_labels",
    "read_npz",
    "unknown_token",
]

_HOMES = {
    "Continuation": "continuation",
    "Feeds": "sample",
    "Given": "several",
    "GraphInput": "sample",
    "ImageGeometry": "sample",
    "ImageReader": "image",
    "Sample": "sample",
    "TextReader": "text",
    "bind_inputs": "purposes",
    "default_preprocessor": "processor",
    "default_tokenizer": "tokenizer_files",
    "open_sample": "open",
    "open_several": "several",
    "read_labels": "labels",
    "read_npz": "tensors",
    "unknown_token": "tokens",
}


def __getattr__(name: str) -> Any:
    """Names are imported when asked for: a text needs nothing of images."""
    if name in _HOMES:
        return getattr(import_module(f"palrp_onnx.inputs.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
