"""Constants that a file defines several times under one name."""

from __future__ import annotations

import onnx


def keep_last_constants(model: onnx.ModelProto) -> None:
    """Remove ``Constant`` nodes whose result a later one defines again, in place.

    A file must not do this, but ONNX Runtime runs it with the last of them.
    """
    seen: set[str] = set()
    nodes = list(model.graph.node)
    kept = []
    for node in reversed(nodes):
        if node.op_type == "Constant" and not node.domain:
            if node.output[0] in seen:
                continue
            seen.add(node.output[0])
        kept.append(node)
    if len(kept) < len(nodes):
        del model.graph.node[:]
        model.graph.node.extend(reversed(kept))
