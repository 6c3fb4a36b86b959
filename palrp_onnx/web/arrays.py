"""Arrays that pages feed: one sample, in a type that browsers have."""

from __future__ import annotations

from palrp_onnx.errors import UnsupportedError
from palrp_onnx.inputs.sample import GraphInput
from palrp_onnx.inputs.signature import describe_input

_TYPES = ("float32", "float64", "int64", "int32", "int8", "uint8", "bool")


def array_type(graph_input: GraphInput) -> str:
    """The type of an input, by the name that ONNX Runtime Web has for it.

    Raises:
        UnsupportedError: Browsers have no arrays of this type, or the graph takes several samples.
    """
    name, shape = str(graph_input.dtype), graph_input.shape or ()
    if len(shape) > 1 and isinstance(shape[0], int) and shape[0] != 1:
        raise UnsupportedError(
            f"A page gives a graph one sample: {describe_input(graph_input)}",
            place=graph_input.name,
            hint="Export the model with a dynamic batch axis.",
        )
    if name not in _TYPES:
        raise UnsupportedError(
            f"A page feeds no arrays of this type: {describe_input(graph_input)}",
            place=graph_input.name,
        )
    return name
