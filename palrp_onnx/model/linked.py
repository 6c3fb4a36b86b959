"""A model file that is a link: external data beside the link is followed into the real folder.

Caches of downloads keep every file under its digest, and give it its name by a link::

    snapshots/REVISION/onnx/model.onnx       -> ../../../blobs/DIGEST
    snapshots/REVISION/onnx/model.onnx_data  -> ../../../blobs/OTHER_DIGEST

ONNX Runtime reads external data from one folder, and follows no link out of it. So the folder is
that of the real file, and names of external data that stand beside the link are replaced by those
of the files that they lead to.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePath

from onnx import GraphProto, ModelProto, NodeProto, TensorProto

from palrp_onnx.errors import ModelError


def follow_links(model: ModelProto, path: Path) -> dict[str, str]:
    """Replace the names of external data beside a linked model file, in place.

    Args:
        model: The model; data that is stored in the file itself has the file's real name.
        path: The file, as it was given.

    Returns:
        New name → name in the file; empty for a file that is no link.

    Raises:
        ModelError: Data beside the link is in another folder than the real model file.
    """
    file = path.resolve()
    beside = path.parent.resolve()
    names: dict[str, str] = {}
    if beside == file.parent:
        return names
    for tensor in _tensors(model):
        for entry in tensor.external_data:
            if entry.key == "location" and entry.value != file.name:
                found = _followed(beside, file.parent, entry.value)
                if found is not None:
                    names[found] = entry.value
                    entry.value = found
    return names


def _followed(beside: Path, real: Path, location: str) -> str | None:
    """Name in the real folder of data beside the link; ``None`` where there is none beside it."""
    if PurePath(location).is_absolute() or ".." in PurePath(location).parts:
        return None  # refused with all others that lead out
    try:
        target = (beside / location).resolve()
        there = target.is_file()
    except (OSError, RuntimeError, ValueError):  # a loop of links, a NUL, a name that is too long
        return None
    if not there:
        return None
    if not target.is_relative_to(real):
        raise ModelError(
            f"The model is a link into {real}, but its external data {location!r} is elsewhere",
            place=str(target),
            hint="Copy both into one folder: cp -L.",
        )
    return str(target.relative_to(real))


def _tensors(model: ModelProto) -> Iterator[TensorProto]:
    yield from _in_graph(model.graph)
    for function in model.functions:
        yield from _in_nodes(function.node)


def _in_graph(graph: GraphProto) -> Iterator[TensorProto]:
    yield from graph.initializer
    yield from _in_nodes(graph.node)


def _in_nodes(nodes: Iterator[NodeProto]) -> Iterator[TensorProto]:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            for graph in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from _in_graph(graph)
