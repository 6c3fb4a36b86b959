"""What is wrong with the numbers of a file, seen in its trial run.

Quantisers break models silently: a mask of −∞ makes a scale infinite, every attention score NaN,
and a guard behind the softmax turns that into zeros. Such a file runs, and attends to nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

from palrp_onnx.analysis.analysis import Analysis
from palrp_onnx.analysis.arrays import not_a_number


def find_faults(analysis: Analysis) -> Iterator[tuple[str, str]]:
    """(code, message) of everything that is wrong."""
    for node in analysis.model.graph:
        if node.op_type != "Softmax" or node.outputs[0] not in analysis.content:
            continue
        if not_a_number(node.outputs[0], analysis.trial):
            layer = analysis.depth[node.outputs[0]]
            yield (
                "no-attention",
                f"the attention of layer {layer - 1} is not a number ({node.name}): nothing passes "
                "through it, and the explanation is of the model without it. Scales of its "
                "quantisation are likely infinite",
            )
