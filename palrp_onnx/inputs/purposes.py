"""What a text provides for each input of a graph: ids, mask, token types or positions.

It follows from the graph. The names that Transformers uses decide where the graph leaves it open,
and must not contradict it; elsewhere the caller has to say it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

from palrp_onnx.analysis.roles import Role
from palrp_onnx.errors import InputError, RoleError, UsageError
from palrp_onnx.inputs.sample import GraphInput
from palrp_onnx.inputs.signature import is_integer
from palrp_onnx.model.signature import answered, with_values

if TYPE_CHECKING:
    import onnx_ir as ir

    from palrp_onnx.analysis.inputs import InputRoles

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
    if (known := answered(graph_inputs)) is not None:
        return dict(known.purposes)
    graph_inputs = with_values(graph_inputs)
    graph = _Graph(graph_inputs)
    found = {
        each.name: each.receives or NAMES.get(each.name) or graph.purpose(each)
        for each in graph_inputs
    }
    for each in graph_inputs:
        if each.receives is None and each.name in NAMES:
            graph.check(each, found)
    return found


def ids_input(graph_inputs: Sequence[GraphInput]) -> str | None:
    """Name of the input that receives token ids; ``None`` if there is no such input, or several."""
    if (known := answered(graph_inputs)) is not None:
        return known.ids
    graph_inputs = with_values(graph_inputs)
    graph = _Graph(graph_inputs)
    integers = [each for each in graph_inputs if is_integer(each)]
    for receives in (graph.looks_up, lambda each: NAMES.get(each.name) == IDS, lambda _: True):
        found = [each.name for each in integers if receives(each)]
        if len(found) == 1:
            return found[0]
    return None


class _Graph:
    """The graph of some inputs, if they were read from one."""

    def __init__(self, graph_inputs: Sequence[GraphInput]) -> None:
        self._inputs = graph_inputs

    def purpose(self, each: GraphInput) -> str | None:
        """What an input receives by the structure of the graph."""
        value = each.value
        if self._roles is None or value is None or each.name in self._roles.doubts:
            return None
        if self.looks_up(each):
            return IDS
        match self._roles.facts[each.name].role:
            case Role.SEGMENT:
                return TYPES
            case Role.POSITION:
                return POSITIONS
            case Role.MASK:
                return self._kind_of_mask(each.name, value) if _matters(value) else UNUSED
        return None

    def looks_up(self, each: GraphInput) -> bool:
        """Whether an input looks up words."""
        return self._roles is not None and each.name in self._roles.looked_up()

    def check(self, each: GraphInput, found: Mapping[str, str | None]) -> None:
        """Check that a name of Transformers does not contradict the graph.

        Words, positions and token types are told apart by their tables, which is likely and no
        more: there the name decides, unless there are more token types than words or positions.
        """
        if self._roles is None or each.value is None:
            return
        named, words = NAMES[each.name], self._roles.looked_up()
        problem = ""
        if named == MASK and each.name in words:
            problem = "it indexes a table"
        elif named == MASK and each.dtype.kind == "f" and _is_fixed(each):
            if self._kind_of_mask(each.name, each.value) != MASK:
                problem = "its zeros do not hide tokens, so that a text cannot be padded"
        elif named == IDS and self._roles.facts[each.name].role is Role.MASK and words:
            problem = f"it indexes no table, and {', '.join(sorted(words))} does"
        elif named == TYPES:
            rows = {name: self._rows(name) for name in found}
            fewer = [
                name
                for name, what in found.items()
                if what in (IDS, POSITIONS) and 0 < rows[name] < rows[each.name]
            ]
            if fewer:
                problem = f"its table has {rows[each.name]} rows, and that of {fewer[0]} fewer"
        if problem:
            raise InputError(
                f"its name says that it receives {named}, but {problem}",
                place=f"input {each.name}",
                hint=BIND_HINT,
            )

    def _rows(self, name: str) -> int:
        """Rows of the longest table that an input indexes."""
        from palrp_onnx.analysis.inputs import lookups, table_rows

        value = next(each.value for each in self._inputs if each.name == name)
        return max(map(table_rows, lookups(value)), default=0) if value is not None else 0

    @cached_property
    def _roles(self) -> InputRoles | None:
        import onnx_ir as ir

        from palrp_onnx.analysis.inputs import input_roles

        values = [each.value for each in self._inputs if each.value is not None]
        graph = values[0].graph if values else None
        if not isinstance(graph, ir.Graph):
            return None
        try:
            return input_roles(graph)
        except RoleError:  # reported where the graph is explained
            return None

    def _kind_of_mask(self, name: str, value: ir.Value) -> str | None:
        import onnx_ir as ir

        from palrp_onnx.inputs.visibility import keeping_entry

        assert self._roles is not None and isinstance(value.graph, ir.Graph)
        roles = {each: fact.role for each, fact in self._roles.facts.items()}
        entry = keeping_entry(value.graph, roles, name)
        return None if entry is None else (PADDING, MASK)[entry]


def _is_fixed(each: GraphInput) -> bool:
    return any(isinstance(length, int) for length in (each.shape or ())[-1:])


def _matters(value: ir.Value) -> bool:
    """Whether a real output may depend on the entries of an input, and not only on its shape."""

    from palrp_onnx.model.follow import uses_of
    from palrp_onnx.model.ops import Trait, has
    from palrp_onnx.model.values import is_float

    def onward(node: ir.Node, _: int) -> Sequence[ir.Value]:
        return () if has(node, Trait.LENGTH) else node.outputs

    reached = {value}
    for node, _ in uses_of([value], onward):
        if node.graph is not value.graph:
            return True  # in a branch: not followed
        reached.update(onward(node, 0))
    return any(v in reached and is_float(v) for v in value.graph.outputs) if value.graph else True
