"""A model repository for the Triton Inference Server, from a compiled explainer.

Layout and fields are those of Triton's model configuration: ``dims`` has no batch axis if
``max_batch_size`` is set, free axes are −1, and a value of one number per sample has the ``dims``
[1] and is reshaped to []. Inputs with a default value are optional.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import onnx
from onnx import TensorProto

from palrp_onnx.compiler.manifest import Manifest
from palrp_onnx.errors import ModelError, UsageError

#: Most samples of several requests that the server may run as one batch.
MAX_BATCH = 8
#: How long the first of these requests waits for others, in microseconds.
MAX_DELAY_US = 1000

_TYPES: dict[int, str] = {
    TensorProto.BOOL: "TYPE_BOOL",
    TensorProto.UINT8: "TYPE_UINT8",
    TensorProto.UINT16: "TYPE_UINT16",
    TensorProto.UINT32: "TYPE_UINT32",
    TensorProto.UINT64: "TYPE_UINT64",
    TensorProto.INT8: "TYPE_INT8",
    TensorProto.INT16: "TYPE_INT16",
    TensorProto.INT32: "TYPE_INT32",
    TensorProto.INT64: "TYPE_INT64",
    TensorProto.FLOAT16: "TYPE_FP16",
    TensorProto.FLOAT: "TYPE_FP32",
    TensorProto.DOUBLE: "TYPE_FP64",
    TensorProto.BFLOAT16: "TYPE_BF16",
}


def repository(explainer: bytes, name: str, folder: Path) -> dict[Path, bytes | Path]:
    """The files of one model in a repository, by their path in it.

    Args:
        explainer: A compiled explainer, serialised.
        name: Name of the model and of its folder.
        folder: Folder of the explainer's external data.

    Returns:
        The content of each file, or the file to copy.

    Raises:
        UsageError: ``name`` is not valid for a folder.
        ModelError: A value has a type that Triton does not have, or an unknown rank.
    """
    if not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*", name):
        raise UsageError(f"{name!r} cannot name a model: letters, digits, '_', '-' and '.' only")
    model = onnx.load_model_from_string(explainer)
    files: dict[Path, bytes | Path] = {
        Path(name, "config.pbtxt"): configuration(model, name).encode(),
        Path(name, "1", "model.onnx"): explainer,
    }
    for location in external_files(model):
        files[Path(name, "1", location)] = folder / location
    return files


def configuration(model: onnx.ModelProto, name: str) -> str:
    """``config.pbtxt`` of a compiled explainer.

    Requests are batched only if every input has a free batch axis and samples are separate.

    Raises:
        ModelError: A value has a type that Triton does not have, or an unknown rank.
    """
    defaults = {each.name for each in model.graph.initializer}
    required = [each for each in model.graph.input if each.name not in defaults]
    manifest = Manifest.read({each.key: each.value for each in model.metadata_props})
    mixed = manifest is not None and manifest.mixed is not None
    batched = bool(required) and not mixed and all(map(_is_free, required))
    lines = [
        f"name: {_quoted(name)}",
        'backend: "onnxruntime"',
        f"max_batch_size: {MAX_BATCH if batched else 0}",
    ]
    for each in model.graph.input:
        lines += _value("input", each, batched, optional=each.name in defaults)
    for each in model.graph.output:
        lines += _value("output", each, batched, optional=False)
    lines.append("instance_group [ { count: 1, kind: KIND_AUTO } ]")
    if batched:
        lines.append(f"dynamic_batching {{ max_queue_delay_microseconds: {MAX_DELAY_US} }}")
    return "\n".join(lines) + "\n"


def _value(field: str, value: onnx.ValueInfoProto, batched: bool, *, optional: bool) -> list[str]:
    tensor = value.type.tensor_type
    place = f"{field} {value.name!r}"
    if tensor.elem_type not in _TYPES:
        raise ModelError("Triton does not have the type of this value", place=place)
    if not tensor.HasField("shape"):
        raise ModelError("The rank is not known, which Triton's configuration needs", place=place)
    dims = [each.dim_value or -1 for each in tensor.shape.dim][batched:]
    lines = [
        f"{field} {{",
        f"  name: {_quoted(value.name)}",
        f"  data_type: {_TYPES[tensor.elem_type]}",
        f"  dims: {dims or [1]}",
    ]
    if not dims:
        lines.append("  reshape { shape: [] }")
    if optional:
        lines.append("  optional: true")
    return [*lines, "}"]


def _is_free(value: onnx.ValueInfoProto) -> bool:
    shape = value.type.tensor_type.shape.dim
    return bool(shape) and not shape[0].dim_value


def external_files(model: onnx.ModelProto) -> Iterator[str]:
    """Files of external weights. Compiling leaves weights in initializers alone."""
    found = {
        entry.value
        for tensor in model.graph.initializer
        for entry in tensor.external_data
        if entry.key == "location"
    }
    yield from sorted(found)


def _quoted(text: str) -> str:
    """A string in the protobuf text format, with octal escapes for all but plain ASCII."""
    plain = (
        chr(byte) if 32 <= byte < 127 and byte not in b'"\\' else f"\\{byte:03o}"
        for byte in text.encode()
    )
    return f'"{"".join(plain)}"'
