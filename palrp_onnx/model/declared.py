"""What a file declares about its values, as far as ONNX Runtime relies on it.

The runtime computes the shape of every value anew; a declared one that differs is a warning at
most. Exporters that are told of free axes for inputs only leave the sizes of their example on
everything else. So declared sizes of computed values are dropped here, and shapes follow from the
inputs. Types bind, and are kept.

Until IR version 4 every initializer had to be listed among the inputs, as a default that a caller
may replace. For an explanation stored values are constants.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir
import onnx_ir.passes.common as passes

#: Key in the ``meta`` of a value: the shape that the file declares for it.
_SHAPE = "declared shape"
#: The long name of the standard's domain.
_STANDARD = "ai.onnx"
#: Of a graph without operations of the standard, which any opset fits.
_ANY_OPSET = 17
#: First IR version in which initializers need not be inputs.
_FIRST_WITH_CONSTANTS = 4


def keep_what_binds(model: ir.Model) -> ir.Model:
    """Drop declared shapes of computed values, and inputs that have a stored value, in place."""
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
    """Types and shapes that follow from inputs and stored values, in place.

    Where inference finds no shape, the declared number of axes stands in for it.
    """
    passes.ShapeInferencePass()(model)
    lacking = [v for v in _computed(model) if v.shape is None and _SHAPE in v.meta]
    for value in lacking:
        value.shape = ir.Shape([None] * len(value.meta[_SHAPE]))
    if lacking:
        passes.ShapeInferencePass()(model)


def declared_length(value: ir.Value, axis: int) -> int | None:
    """The length of an axis as the file declares it, if it does.

    It need not be that of a run: what rests on it has to be compared with the file.
    """
    shape: tuple[int | None, ...] | None = value.meta.get(_SHAPE)
    return None if shape is None or not -len(shape) <= axis < len(shape) else shape[axis]


def _name_the_standard(model: ir.Model) -> None:
    """The standard's domain by its short name, with an opset where the file names none.

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
    """Values of graphs and functions that are neither inputs of the model nor stored."""
    for body in (model.graph, *(each.graph for each in model.functions.values())):
        for node in body.all_nodes():
            yield from node.outputs
        for graph in body.subgraphs():
            yield from graph.inputs
