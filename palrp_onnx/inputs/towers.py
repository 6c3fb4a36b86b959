"""Which inputs of a graph belong to the same text, where it takes several texts.

The mask, the token types and the positions of a text are combined with what its ids are looked up
as before anything else, so the graph shows whose they are: at every place where such an input first
meets looked-up ids, those of its own text are among them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from palrp_onnx.errors import InputError
from palrp_onnx.inputs.purposes import IDS
from palrp_onnx.inputs.sample import GraphInput
from palrp_onnx.model.signature import with_values

if TYPE_CHECKING:
    import onnx_ir as ir


def texts_of(
    graph_inputs: Sequence[GraphInput], purposes: Mapping[str, str | None]
) -> dict[str, list[GraphInput]]:
    """The inputs of every text, by the name of its ids.

    Args:
        graph_inputs: The inputs that texts provide.
        purposes: What each of them receives.

    Raises:
        InputError: An input meets the ids of several texts at once, or of none.
    """
    ids = [each.name for each in graph_inputs if purposes[each.name] == IDS]
    if len(ids) < 2:
        return {name: list(graph_inputs) for name in ids}
    graph_inputs = with_values(graph_inputs)
    graph = next((each.value.graph for each in graph_inputs if each.value is not None), None)
    found: dict[str, list[GraphInput]] = {name: [] for name in ids}
    for each in graph_inputs:
        own = {each.name} if each.name in ids else _met(graph, each.name, ids)
        if len(own) != 1:
            with_ = f"those of {' and '.join(sorted(own))} at once" if own else "none"
            raise InputError(
                f"the graph takes several texts, and it is open whose {each.name} is: of their "
                f"ids it meets {with_}",
                place=f"input {each.name}",
                hint="Give one array per graph input as .npz.",
            )
        found[own.pop()].append(each)
    return found


def _met(graph: object, name: str, ids: Sequence[str]) -> set[str]:
    """The ids that an input meets at every place where it first meets any."""
    import onnx_ir as ir

    from palrp_onnx.model.ops import Trait, has

    if not isinstance(graph, ir.Graph):
        return set()
    reached: dict[ir.Value | None, frozenset[str]] = {}
    waiting: set[ir.Value] = set()
    for value in graph.inputs:
        if value.name is not None and value.name in ids:
            reached[value] = frozenset([value.name])
        elif value.name == name:
            waiting.add(value)
    meetings: list[frozenset[str]] = []
    for node in graph:
        if has(node, Trait.LENGTH):  # lengths say nothing of whose an input is
            continue
        theirs = frozenset[str]().union(*(reached.get(v, ()) for v in node.inputs))
        if not waiting.isdisjoint(node.inputs):
            if theirs:
                meetings.append(theirs)
            else:
                waiting.update(node.outputs)
                continue
        if theirs:
            reached.update(dict.fromkeys(node.outputs, theirs))
    return set(frozenset.intersection(*meetings)) if meetings else set()
