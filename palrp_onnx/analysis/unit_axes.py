"""The axes of every value along which samples and units of the explained input run.

They are followed from the input by the links of every operation (:mod:`palrp_onnx.analysis.dims`).
Nothing is said of the places of the units along them: merged, shifted and cut axes count as well.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from palrp_onnx.analysis.dims import How, Link, index_entries, links_of
from palrp_onnx.analysis.observations import Observations

#: No entry of such an axis belongs to some units rather than to others.
_ENDING = (How.NEW, How.SUMMED)


def links_in(seen: Observations, value: ir.Value) -> tuple[Link, ...] | None:
    """Links of the axes of a computed value; ``None`` where they are unknown."""
    node = value.producer()
    assert node is not None
    return links_of(node, value, seen.shapes, lambda v: index_entries(v, seen.indices))


def ends_of(seen: Observations, name: str) -> list[ir.Value]:
    """Where relevance of an explained input is collected: its lookups, or the input itself."""
    looked_up = [n.outputs[0] for n, own in seen.inputs.lookups.items() if own == name]
    return looked_up or [v for v in seen.model.graph.inputs if v.name == name]


def unit_axes(seen: Observations, name: str) -> Mapping[ir.Value, frozenset[int]]:
    """Content value that depends on an explained input → axes along which its units run.

    Axes of samples are among them. Axes are counted from the front.

    Args:
        seen: The observations.
        name: The explained input.
    """
    flags = seen.input_axes(name).flags
    start = frozenset(k for k, flag in enumerate(flags) if flag)
    found = dict.fromkeys(ends_of(seen, name), start)
    for value in seen.content:
        node = value.producer()
        if value in found or node is None or not any(v in found for v in node.inputs):
            continue
        links = links_in(seen, value) or ()
        found[value] = frozenset(
            axis
            for link in links
            if link.how not in _ENDING
            and any(own in found.get(node.inputs[k], ()) for k, own in link.axes)  # type: ignore[arg-type]
            for axis in link.results
        )
    return found
