"""``DynamicQuantizeLSTM``: an LSTM whose weights are quantised.

Its kernel rounds the activations of every step to bytes, too. The rewritten LSTM does not; as for
other integer products, the forward pass uses the kernel (``model/native.py``).
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from palrp_onnx.model.lowering.builder import Builder, Fused, rank_of
from palrp_onnx.model.lowering.table import lowers


@lowers("DynamicQuantizeLSTM")
def _dynamic_quantize_lstm(b: Builder, node: Fused) -> Sequence[ir.Value | None]:
    weights = (_weights(b, node, k, scale) for k, scale in ((1, 8), (2, 10)))
    rest = (node.optional(k) for k in range(3, 8))
    attributes = {name: each.value for name, each in node.node.attributes.items()}
    found = b.ops("LSTM", 3, node.input(0), *weights, *rest, **attributes)
    return [value if node.wants(k) else None for k, value in enumerate(found)]


def _weights(b: Builder, node: Fused, index: int, scale: int) -> ir.Value:
    """Weights [D, 4 H, features], stored as [D, features, 4 H].

    Scales and zero points are [D], or [D, 4 H].
    """
    stored, factor = node.input(index), node.input(scale)
    whole = b.cast_like(stored, factor)
    if (zero := node.optional(scale + 1)) is not None:
        whole = b.op("Sub", whole, _spread(b, b.cast_like(zero, factor)))
    return b.transpose(b.op("Mul", whole, _spread(b, factor)), 0, 2, 1)


def _spread(b: Builder, numbers: ir.Value) -> ir.Value:
    return b.unsqueeze(numbers, 1, 2) if rank_of(numbers) == 1 else b.unsqueeze(numbers, 1)
