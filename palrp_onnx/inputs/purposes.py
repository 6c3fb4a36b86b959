"""What a text provides for each input of a graph: ids, mask, token types or positions.

It follows from the graph. The names that Transformers uses decide where the graph leaves it open,
and must not contradict it; elsewhere the caller has to say it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property

import onnx_ir as ir

from palrp_onnx.analysis.inputs import InputRoles, input_roles, real_dependents
from palrp_onnx.analysis.masking import Choices
from palrp_onnx.analysis.polarity import keeps
from palrp_onnx.analysis.roles import Role
from palrp_onnx.errors import InputError, RoleError, UsageError
from palrp_onnx.inputs.sample import GraphInput
from palrp_onnx.model.follow import uses_of
from palrp_onnx.model.ops import Trait, has
from palrp_onnx.model.values import is_float

IDS, MASK, TYPES, POSITIONS = "ids", "mask", "types", "positions"
#: A mask whose zeros keep tokens; an input that no real output depends on.
PADDING, UNUSED = "padding", "unused"
#: What the caller may say.
BINDINGS = (IDS, MASK, TYPES, POSITIONS)
#: Names of Transformers.
NAMES = {
    "input_ids": IDS,
    "attention_mask": MASK,
    "token_type_ids": TYPES,
    "position_ids": POSITIONS,
}
BIND_HINT = f"Say what they receive: --bind NAME={'|'.join(BINDINGS)}; or pass arrays as .npz."


def bind_inputs(
    graph_inputs: Sequence[GraphInput], bindings: Mapping[str, str]
) -> tuple[GraphInput, ...]:
    """The inputs of a graph, with what the caller says that a text provides for them.

    Args:
        graph_inputs: The inputs.
        bindings: Name of an input → ``ids``, ``mask`` (1 for tokens, 0 for padding), ``types`` or
            ``positions``.

    Raises:
        UsageError: There is no such input, or it cannot receive this.
    """
    names = [each.name for each in graph_inputs]
    for name, what in bindings.items():
        if name not in names:
            raise UsageError(
                f"--bind {name}={what}: the graph has no such input", hint=f"Inputs: {names}."
            )
        if what not in BINDINGS:
            raise UsageError(f"--bind {name}={what}: not one of {', '.join(BINDINGS)}")
    return tuple(replace(each, receives=bindings.get(each.name)) for each in graph_inputs)


def purposes(graph_inputs: Sequence[GraphInput]) -> dict[str, str | None]:
    """What each input receives, by name; ``None`` where a text provides nothing or it is open.

    Raises:
        InputError: The name of an input contradicts what the graph does with it.
    """
    graph = _Graph(graph_inputs)
    return {each.name: each.receives or graph.purpose(each) for each in graph_inputs}


class _Graph:
    """The graph of some inputs, if they were read from one."""

    def __init__(self, graph_inputs: Sequence[GraphInput]) -> None:
        self._inputs = graph_inputs
        self._choices = Choices()

    def purpose(self, each: GraphInput) -> str | None:
        named = NAMES.get(each.name)
        found = self._by_structure(each, named)
        if named is None or found is None or found in (named, UNUSED):
            return named or found
        raise InputError(
            f"its name says that it receives {named}, but the graph treats it as {found}",
            place=f"input {each.name}",
            hint=BIND_HINT,
        )

    def _by_structure(self, each: GraphInput, named: str | None) -> str | None:
        value = each.value
        if self._roles is None or value is None or each.name in self._roles.doubts:
            return None
        if each.name in self._roles.looked_up():
            return IDS
        match self._roles.facts[each.name].role:
            case Role.SEGMENT:
                return TYPES
            case Role.POSITION:
                return POSITIONS
            case Role.MASK if not _matters(value):
                return UNUSED
            case Role.MASK if named in (IDS, MASK):
                return MASK
            case Role.MASK:
                kept = keeps(value, self._content(value), self._choices)
                return {True: MASK, False: PADDING}.get(kept) if kept is not None else None
        return None

    @cached_property
    def _roles(self) -> InputRoles | None:
        values = [each.value for each in self._inputs if each.value is not None]
        graph = values[0].graph if values else None
        if not isinstance(graph, ir.Graph):
            return None
        try:
            return input_roles(graph)
        except RoleError:  # reported where the graph is explained
            return None

    def _content(self, mask: ir.Value) -> set[ir.Value]:
        assert self._roles is not None and isinstance(mask.graph, ir.Graph)
        real = [v for v in mask.graph.inputs if v is not mask and is_float(v)]
        return real_dependents(mask.graph, self._roles.lookups, real)


def _matters(value: ir.Value) -> bool:
    """Whether a real output may depend on the entries of an input, and not only on its shape."""

    def onward(node: ir.Node, _: int) -> Sequence[ir.Value]:
        return () if has(node, Trait.LENGTH) else node.outputs

    reached = {value}
    for node, _ in uses_of([value], onward):
        if node.graph is not value.graph:
            return True  # in a branch: not followed
        reached.update(onward(node, 0))
    return any(v in reached and is_float(v) for v in value.graph.outputs) if value.graph else True
