"""Faulty numbers in a file, found in its trial run.

Quantisers can break a model without an error: a mask of −∞ makes a scale infinite and every
attention score NaN, and a guard after the softmax replaces NaN by 0. The file then runs without
attention.
"""

from __future__ import annotations

from collections.abc import Iterator

from palrp_onnx.analysis.analysis import Analysis
from palrp_onnx.analysis.arrays import not_a_number


def find_faults(analysis: Analysis) -> Iterator[tuple[str, str]]:
    """Code and message of every fault."""
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
