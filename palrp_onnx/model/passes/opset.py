"""Raising a graph to a later opset.

The converter of the ``onnx`` package does it, with two faults that are mended here. Numbers that
were attributes become stored float32 numbers, whatever the type of the value beside them. And
images are resized with other places between pixels than before opset 11.
"""

from __future__ import annotations

import numpy as np
import onnx
import onnx.version_converter
import onnx_ir as ir

from palrp_onnx.errors import ModelError
from palrp_onnx.model.changes import Changes
from palrp_onnx.model.declared import infer_shapes
from palrp_onnx.model.lowering.table import REFUSED
from palrp_onnx.model.values import constant
from palrp_onnx.types import Array

#: First opset in which places between pixels are attributes of ``Resize``.
_WITH_PLACES = 11
#: Operations whose attributes become operands: index of the first of these.
_MOVED = {"Clip": 1, "Pad": 2}


def raise_opset(model: ir.Model, opset: int, place: str) -> Changes:
    """Raise the graph to ``opset``, in place, where its own is older; the log says from where.

    Raises:
        ModelError: The converter does not raise the graph.
    """
    before = model.opset_imports.get("", 0)
    if before >= opset:
        return Changes()
    infer_shapes(model)
    nodes = list(model.graph.all_nodes())
    types = {v.name: v.dtype for n in nodes for v in (*n.inputs, *n.outputs) if v is not None}
    for node in nodes:
        if node.op_type == "Dropout" and not node.domain:  # masks became truth values
            for mask in node.outputs[1:]:
                mask.type = mask.shape = None
    reasons = {n.outputs[0].name: n.meta[REFUSED] for n in nodes if REFUSED in n.meta}
    resized = [n for n in nodes if n.op_type in ("Resize", "Upsample") and not n.domain]
    resized_to = {n.outputs[0].name for n in resized if before < _WITH_PLACES}
    try:
        newer = onnx.version_converter.convert_version(ir.to_proto(model), opset)
        model.graph = ir.from_proto(newer).graph
    except Exception as error:  # the exception types of the converter are not public
        raise ModelError(
            f"The graph cannot be raised to opset {opset}, which is needed to compile it",
            place=place,
            hint="Use --engine numpy.",
        ) from error
    for node in model.graph.all_nodes():
        if node.outputs[0].name in reasons:
            node.meta[REFUSED] = reasons[node.outputs[0].name]
        if node.op_type in _MOVED:
            _give_type(node, types)
        elif node.outputs[0].name in resized_to:
            smaller = any((_stored(value) < 1).any() for value in node.inputs[2:3])
            node.attributes.add(ir.AttrString("coordinate_transformation_mode", "asymmetric"))
            node.attributes.add(ir.AttrString("nearest_mode", "ceil" if smaller else "floor"))
    return Changes.of({f"opset {before} to {opset}": 1})


def _stored(value: ir.Value | None) -> Array:
    """The entries of a stored array; none for another value."""
    maker = None if value is None else value.producer()
    if maker is not None and maker.op_type == "Constant":
        return maker.attributes["value"].as_tensor().numpy()
    found = constant(value)
    return np.empty(0) if found is None else found


def _give_type(node: ir.Node, types: dict[str | None, ir.DataType | None]) -> None:
    """Store the numbers that were attributes in the type of the value beside them."""
    first = node.inputs[0]
    kind = None if first is None else types.get(first.name)
    for index in range(_MOVED[node.op_type], len(node.inputs)):
        value = node.inputs[index]
        maker = None if value is None else value.producer()
        if kind is None or maker is None or maker.op_type != "Constant":
            continue
        stored = maker.attributes["value"].as_tensor()
        if stored.dtype != kind and stored.dtype == ir.DataType.FLOAT:
            with np.errstate(over="ignore"):  # no bound is the largest number, then infinity
                with_type = ir.Tensor(stored.numpy().astype(kind.numpy()), dtype=kind)
            maker.attributes.add(ir.AttrTensor("value", with_type))
            assert value is not None
            value.type = ir.TensorType(kind)
