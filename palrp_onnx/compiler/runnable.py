"""The graph of an explanation as a session opens it: bytes, with what the session has to know."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from palrp_onnx.compiler.interface import OPTIONAL

if TYPE_CHECKING:
    import onnx_ir as ir


class Runnable(Struct, frozen=True, kw_only=True):
    """A serialised graph.

    Attributes:
        data: The graph; weights are references to the model's files.
        optional: The inputs of the graph that had defaults, and that are required here: ONNX
            Runtime cannot bind an input with a default.
        inputs: Names of all inputs.
        outputs: Names of all outputs, each once.
        rounds_inside: Whether kernels round activations, which they only do on packed weights.
        widens: Whether large weights are dequantised or cast, and wait for nothing. In the order of
            the graph, all of these would come first, and stay.
    """

    data: bytes
    optional: tuple[str, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    rounds_inside: bool
    widens: bool

    @classmethod
    def of(cls, graph: ir.Model) -> Runnable:
        """The graph, whose inputs of the target become required, in place."""
        import onnx_ir as ir

        from palrp_onnx.model.native import rounds_inside
        from palrp_onnx.model.open import required

        without = required(graph)
        added = (v for v in graph.graph.inputs if v.name in OPTIONAL)
        optional = [v.name or "" for v in added if v.is_initializer() or v.name in without]
        for name in optional:
            if (value := graph.graph.initializers.pop(name, None)) is not None:
                value.const_value = None
        return cls(
            data=ir.serde.serialize_model(graph).SerializeToString(),
            optional=tuple(optional),
            inputs=tuple(v.name or "" for v in graph.graph.inputs),
            # A file may list one value twice among its outputs.
            outputs=tuple(dict.fromkeys(v.name or "" for v in graph.graph.outputs)),
            rounds_inside=rounds_inside(graph.graph),
            widens=_widens_weights(graph.graph),
        )


def _widens_weights(graph: ir.Graph) -> bool:
    from palrp_onnx.compiler.late_weights import is_large
    from palrp_onnx.model.ops import Trait, has

    widening = Trait.DEQUANTISE | Trait.RETYPES
    return any(
        has(node, widening)
        and all(v is None or v.is_initializer() for v in node.inputs)
        and is_large(node.inputs[0])
        for node in graph
    )
