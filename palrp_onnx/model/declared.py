"""Declared shapes and types of values, as far as ONNX Runtime relies on them.

The runtime infers the shape of every value itself; a declared shape that differs causes a warning
at most. Exporters with free axes for inputs alone leave the lengths of their example on all other
values. So declared lengths of computed values are dropped here, and shapes follow from the inputs.
Declared types are binding.

Before IR version 4 every initializer had to be listed among the inputs, as a default that a caller
could replace. In an explanation initializers are constants.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx
import onnx_ir as ir

#: Key in ``ir.Value.meta``: the shape that the file declares for the value.
_SHAPE = "declared shape"
#: Initializers of more bytes are not passed to shape inference.
_LARGE = 1000
#: The long name of the standard's domain.
_STANDARD = "ai.onnx"
#: Opset of a graph without operations of the standard.
_ANY_OPSET = 17
#: First IR version in which initializers need not be inputs.
_FIRST_WITH_CONSTANTS = 4


def normalise_declared(model: ir.Model) -> ir.Model:
    """Drop declared shapes of computed values, and inputs with an initializer, in place."""
    _make_constants(model)
    _name_the_standard(model)
    for value in model.graph.inputs:
        if value.shape is not None and any(isinstance(d, int) and d < 0 for d in value.shape):
            free = (None if isinstance(d, int) and d < 0 else d for d in value.shape)
            value.shape = ir.Shape(list(free))  # some tools write −1 for a free axis
    for value in _computed(model):
        if value.shape is not None and isinstance(value.type, ir.TensorType):
            value.meta[_SHAPE] = tuple(d if isinstance(d, int) else None for d in value.shape)
            producer = value.producer()
            known = producer is not None and not producer.domain
            value.shape = None if known else ir.Shape([None] * value.shape.rank())
    return model


def infer_shapes(model: ir.Model) -> None:
    """Infer types and shapes from inputs and initializers, in place.

    Where inference finds no shape, the declared number of axes is used.
    """
    _infer(model)
    lacking = [v for v in _computed(model) if v.shape is None and _SHAPE in v.meta]
    for value in lacking:
        value.shape = ir.Shape([None] * len(value.meta[_SHAPE]))
    if lacking:
        _infer(model)


def _infer(model: ir.Model) -> None:
    """Enter the types and shapes that the onnx package infers; none where that fails.

    The pass of onnx-ir does the same in time that is quadratic in the number of weights.
    """
    try:
        inferred = onnx.shape_inference.infer_shapes(
            _without_weights(model), check_type=True, strict_mode=True, data_prop=True
        )
    except Exception:  # operations outside of the standard, or used against it
        return
    _enter(model.graph, inferred.graph)


def _without_weights(model: ir.Model) -> onnx.ModelProto:
    """The model with all initializers as inputs, and without the data of large ones."""
    graph = model.graph
    stored, own = list(graph.initializers.values()), list(graph.inputs)
    for value in stored:
        if (tensor := value.const_value) is not None:
            value.shape = value.shape or ir.Shape(tensor.shape.numpy())
            value.dtype = value.dtype or tensor.dtype
    large = [v for v in stored if v.const_value is None or v.const_value.nbytes > _LARGE]
    for value in large:
        del graph.initializers[value.name or ""]
    graph.inputs.extend(stored)
    try:
        return ir.serde.serialize_model(model)
    finally:
        graph.inputs.clear()
        graph.inputs.extend(own)
        for value in large:
            graph.initializers.add(value)


def _enter(graph: ir.Graph, inferred: onnx.GraphProto) -> None:
    """Enter types and shapes of the values of a graph and of its subgraphs."""
    infos = (*inferred.input, *inferred.value_info, *inferred.output)
    found = {info.name: info.type for info in infos}
    for value in (*graph.inputs, *(v for node in graph for v in node.outputs)):
        if value.name in found:
            _give(value, found[value.name])
    for node, proto in zip(graph, inferred.node, strict=True):
        for attribute in proto.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                _enter(node.attributes[attribute.name].as_graph(), attribute.g)


def _give(value: ir.Value, known: onnx.TypeProto) -> None:
    """Enter the type of a value and, where it is known, its shape."""
    kind = ir.serde.deserialize_type_proto_for_type(known)
    shape = ir.serde.deserialize_type_proto_for_shape(known)
    if shape is not None and value.shape != shape:
        value.shape = shape
    if kind is not None and value.type != kind:
        value.type = kind


def declared_length(value: ir.Value, axis: int) -> int | None:
    """The length of an axis that the file declares; ``None`` where it declares none.

    It may differ from that of a run: graphs that depend on it must be compared with the file.
    """
    shape: tuple[int | None, ...] | None = value.meta.get(_SHAPE)
    return None if shape is None or not -len(shape) <= axis < len(shape) else shape[axis]


def _name_the_standard(model: ir.Model) -> None:
    """Rename the standard's domain to its short name, and import it where the file does not.

    A file whose operations are all of other domains need not import it.
    """
    imports = model.opset_imports
    if (version := imports.pop(_STANDARD, None)) is not None:
        imports.setdefault("", version)
    imports.setdefault("", _ANY_OPSET)
    for body in (model.graph, *(each.graph for each in model.functions.values())):
        for node in body.all_nodes():
            if node.domain == _STANDARD:
                node.domain = ""


def _make_constants(model: ir.Model) -> None:
    """Remove initializers from the inputs."""
    graph = model.graph
    for value in [v for v in graph.inputs if v.is_initializer()]:
        graph.inputs.remove(value)
        assert value.const_value is not None
        value.dtype, value.shape = (
            value.const_value.dtype,
            ir.Shape(value.const_value.shape.numpy()),
        )
    model.ir_version = max(model.ir_version, _FIRST_WITH_CONSTANTS)


def _computed(model: ir.Model) -> Iterator[ir.Value]:
    """Values of graphs and functions that are neither inputs of the model nor initializers."""
    for body in (model.graph, *(each.graph for each in model.functions.values())):
        for node in body.all_nodes():
            yield from node.outputs
        for graph in body.subgraphs():
            yield from graph.inputs
