"""Input files → arrays for the graph, and the units (tokens, patches) that they stand for."""

from __future__ import annotations

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
