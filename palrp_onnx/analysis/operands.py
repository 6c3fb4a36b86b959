"""The judgement: the role of every operand that is combined with content, from observations.

Roles follow from data flow and from the values of trial runs, never from names. A value without
content is judged where it is combined with content. If it varies along an axis that runs over
tokens, it is a position, a token type or a mask, by its values and by what it depends on; if not,
it is a parameter. A sum of such values with different roles is mixed, and its terms are judged at
the content value that the sum is combined with.

Nothing is run or changed here. A mixed sum that is combined with several content values is listed
once for each of them (:class:`Mixture`). Its terms have the role at the last of them, until a pass
has made a copy of the sum for each.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from palrp_onnx.analysis.arrays import MASKED, is_mask, not_a_number, varying_axes
from palrp_onnx.analysis.axes import BATCH, TOKEN
from palrp_onnx.analysis.content import chosen_values, dependencies, fed_values
from palrp_onnx.analysis.convolutions import Attended, convolution_terms
from palrp_onnx.analysis.layout import Axes, sources
from palrp_onnx.analysis.masking import Choices
from palrp_onnx.analysis.observations import Observations, Operand
from palrp_onnx.analysis.roles import OVERRIDABLE, OVERRIDDEN, Fact, Role
from palrp_onnx.analysis.sources import factor_axes, selected_tables
from palrp_onnx.errors import UsageError
from palrp_onnx.model.ops import NARY, Trait, has
from palrp_onnx.model.values import is_float
from palrp_onnx.types import Array

#: Operations that add terms, or choose between them.
TERMS = Trait.SUM | Trait.CHOICE
#: Key in ``ir.Value.meta``: the name that a moved term of a sum had in the file.
TERM = "palrp_onnx.term"
#: Reason why an operand that varies along the tokens is no position.
SAME_WHERE_UNMASKED = "the same for every token that is not masked"
_MIXED = Fact(Role.MIXED, "a sum of operands with different roles")
#: A node and a value that it reads.
_Use = tuple[ir.Node, ir.Value]


@dataclass
class Mixture:
    """A mixed sum that is combined with one content value.

    Attributes:
        operand: The operand (node, index) that is the sum.
        reads: The sum, and mixed sums among its terms → the operands through which each reaches
            the content value.
    """

    operand: Operand
    reads: dict[ir.Value, list[Operand]] = field(default_factory=dict)


@dataclass
class Judgement:
    """Roles that were judged.

    Attributes:
        operands: Role of every operand (node, index) of nodes that yield content, and of the terms
            of mixed sums.
        axes_of: Operand → the content value whose axes it is aligned with.
        mixtures: The mixed operands of nodes that yield content, in graph order.
        applied: Names whose override took effect.
    """

    operands: dict[Operand, Fact] = field(default_factory=dict)
    axes_of: dict[Operand, ir.Value] = field(default_factory=dict)
    mixtures: list[Mixture] = field(default_factory=list)
    applied: set[str] = field(default_factory=set)


def is_aligned(node: ir.Node) -> bool:
    """Whether a node combines its real operands entry by entry, aligned from the right.

    ``Pow`` does too, but its exponent has to be a single number.
    """
    return has(node, NARY) or node.op_type == "PRelu" or _only_retypes(node)


def is_sum(node: ir.Node) -> bool:
    """Whether a node adds, chooses between or casts its operands: a mixed sum stays mixed."""
    return has(node, TERMS) or _only_retypes(node)


def _only_retypes(node: ir.Node) -> bool:
    return has(node, Trait.RETYPES) and len(node.inputs) == 1


def judge(seen: Observations) -> Judgement:
    """Judge the role of every operand that is combined with content.

    Raises:
        UsageError: A value cannot have the role of its override.
    """
    judge = _Judge(seen)
    judge.decide()
    judge.decide_branches()
    return judge.found


class _ContentTraits(NamedTuple):
    """The properties of a content value that decide the roles of its operands.

    Attributes:
        flags: Flags of its axes.
        chosen: Whether a later softmax or maximum chooses among its entries.
        columns: Whether it holds columns of real inputs, unchanged or selected.
    """

    flags: Axes
    chosen: bool
    columns: bool


class _Judge:
    """Judges the operands of one graph."""

    def __init__(self, seen: Observations) -> None:
        graph, inputs = seen.model.graph, seen.inputs
        self._seen = seen
        self._graph = graph
        self._content = seen.content
        self._scaling = seen.scaling.facts()
        self._fed = fed_values(graph)
        self._selected = selected_tables(graph, seen.content, seen.shapes)
        self._segments = dependencies(graph, inputs.named(Role.SEGMENT))
        self._masking = dependencies(graph, inputs.named(Role.MASK))
        self._chosen = chosen_values(graph, seen.content)
        self._brought = dependencies(graph, inputs.explained())
        self._real_tables = {
            v.name for v in graph.inputs if is_float(v) and len(seen.shapes.get(v, ())) == 2
        }
        self._choices = Choices()
        self._places: dict[ir.Value, _ContentTraits] = {}
        self._facts: dict[tuple[ir.Node, ir.Value, _ContentTraits], Fact] = {}
        self._terms: dict[tuple[ir.Node, ir.Value, _ContentTraits], list[_Use]] = {}
        self.found = Judgement(applied={name for name in seen.overrides if name in inputs.facts})

    def decide(self) -> None:
        """Judge all operands of nodes that yield content, and the terms of those that are mixed."""
        for node in self._graph:
            axes_of = next((v for v in node.outputs if v in self._content), None)
            if axes_of is None:
                continue
            for index, value in enumerate(node.inputs):
                if value is not None:
                    fact = self._operand(node, index, value, axes_of)
                    self._record((node, index), fact, axes_of)

    def decide_branches(self) -> None:
        """Judge convolutions that are added to their own input: the branch may be a position.

        It is one before the first attention, if no operand carries positions and there is only one
        such convolution: several in a row are layers.
        """
        seen, operands = self._seen, self.found.operands
        branches = convolution_terms(self._graph, seen.content, seen.axes, seen.shapes)
        none = not any(fact.role is Role.POSITION for fact in operands.values())
        attended = Attended(seen.depth)
        first = [
            (node, index)
            for node, index in branches
            if not seen.depth[node.outputs[0]] and attended(node.outputs[0])
        ]
        for (node, index), reason in branches.items():
            value = node.inputs[index]
            assert value is not None
            name, found = value.name or "", none and first == [(node, index)]
            if name in seen.overrides:
                found, reason = seen.overrides[name] is Role.POSITION, OVERRIDDEN
                if seen.overrides[name] not in (Role.POSITION, Role.CONTENT):
                    continue
                self.found.applied.add(name)
            if found:
                operands[node, index] = Fact(Role.POSITION, reason)

    def _record(self, operand: Operand, fact: Fact, axes_of: ir.Value) -> None:
        """Record the role of an operand and, where it is mixed, the roles of its terms."""
        mixture = Mixture(operand)
        if fact.role is Role.MIXED:
            self.found.mixtures.append(mixture)
        left = [(operand, fact)]
        while left:
            (node, index), fact = left.pop()
            self.found.operands[node, index] = fact
            self.found.axes_of[node, index] = axes_of
            value = node.inputs[index]
            producer = value.producer() if value is not None else None
            if fact.role is not Role.MIXED or value is None or producer is None:
                continue
            reads = mixture.reads.setdefault(value, [])
            reads.append((node, index))
            if len(reads) == 1:
                left += [
                    ((producer, k), self._term(producer, term, axes_of))
                    for k, term in reversed(list(enumerate(producer.inputs)))
                    if term is not None
                ]

    def _term(self, node: ir.Node, value: ir.Value, axes_of: ir.Value) -> Fact:
        if not is_float(value):
            return Fact(Role.INDEX, "not a real operand")
        return self._free(node, value, self._place(axes_of))

    def _operand(self, node: ir.Node, index: int, value: ir.Value, axes_of: ir.Value) -> Fact:
        if (node, index) in self._scaling:
            return self._scaling[node, index]
        if value in self._content:
            if not_a_number(value, self._seen.trial):
                return Fact(Role.INDEX, "what is not a number carries nothing")
            return Fact(Role.CONTENT, "depends on the explained input")
        if not is_float(value) or node in self._seen.inputs.lookups:
            return Fact(Role.INDEX, "not a real operand")
        return self._free(node, value, self._place(axes_of))

    def _place(self, axes_of: ir.Value) -> _ContentTraits:
        if axes_of not in self._places:
            flags = self._seen.axes[axes_of]
            columns = flags == (BATCH, TOKEN) and self._columns(axes_of)
            self._places[axes_of] = _ContentTraits(flags, self._choices(axes_of), columns)
        return self._places[axes_of]

    def _columns(self, value: ir.Value) -> bool:
        """Whether a value holds columns of real inputs [B, F], unchanged or selected."""
        found = {name for name, _ in sources(self._seen.layouts.layouts[value][1])}
        names = found or self._brought.get(value, frozenset())
        return bool(names) and names <= self._real_tables

    # --- values without content -----------------------------------------------------------------
    def _free(self, node: ir.Node, value: ir.Value, place: _ContentTraits) -> Fact:
        """Role of a value without content that ``node`` combines with the content at ``place``."""
        left = [(node, value)]
        while left:
            terms = self._unjudged(*left[-1], place)
            left += reversed(terms)
            if not terms:
                left.pop()
        return self._facts[node, value, place]

    def _unjudged(self, node: ir.Node, value: ir.Value, place: _ContentTraits) -> list[_Use]:
        """Judge a value, or return the terms of a sum that have to be judged first.

        There is no recursion, as chains of sums may be long; and no value is judged twice, as a
        term may be reached on many paths.
        """
        key = (node, value, place)
        if key in self._facts:
            return []
        if key not in self._terms:
            fact = self._by_itself(node, value, place)
            if fact is not None:
                self._facts[key] = fact
                return []
            self._terms[key] = _terms_of(value)
        terms = self._terms[key]
        left = [term for term in terms if (*term, place) not in self._facts]
        if not left:
            roles = {self._facts[(*term, place)].role for term in terms}
            mixed = Role.MIXED in roles or len(roles) > 1
            self._facts[key] = _MIXED if mixed else self._varying(node, value, place)
        return left

    def _by_itself(self, node: ir.Node, value: ir.Value, place: _ContentTraits) -> Fact | None:
        """The role of a value; ``None`` for a sum that varies along tokens: its terms decide."""
        flags, array = place.flags, self._seen.entries(value)
        for name in (value.name, value.meta.get(TERM)):
            if name in self._seen.overrides:
                return self._follow(str(name), array, flags)
        if has(node, Trait.PRODUCT) and array is not None:
            return self._factor(node, value, array, flags)
        if not _aligned(node, flags):
            return Fact(Role.PARAMETER, f"a parameter of {node.op_type}")
        if array is None:
            return Fact(Role.PARAMETER, "constant")
        if self._hides(node, value, array, place):
            return Fact(Role.MASK, "zero or very negative: switches scores off")
        if not varying_axes(array, flags):
            if segment := self._segments.get(value):
                return Fact(Role.SEGMENT, f"looked up by {', '.join(sorted(segment))}")
            return Fact(Role.PARAMETER, "the same for every token")
        if self._of_mask(value, flags):
            off = place.chosen and bool((np.abs(array) > -MASKED).any())
            return Fact(
                Role.MASK if off or has(node, Trait.SCALE) else Role.PARAMETER, SAME_WHERE_UNMASKED
            )
        if (weights := self._per_column(node, array, place)) is not None:
            return Fact(Role.PARAMETER, weights)
        return None if _terms_of(value) else self._varying(node, value, place)

    def _varying(self, node: ir.Node, value: ir.Value, place: _ContentTraits) -> Fact:
        """The role of a value that varies along tokens, and is no sum of different roles."""
        array = self._seen.entries(value)
        assert array is not None
        if segment := self._segments.get(value):
            return Fact(Role.SEGMENT, f"varies with {', '.join(sorted(segment))}")
        weighs = has(node, Trait.SCALE | Trait.CHOICE) or node.op_type == "Min"
        if weighs and np.isin(array, (0.0, 1.0)).all():
            return Fact(Role.MASK, "zeros and ones that weigh tokens")
        if value in self._chosen:
            return Fact(Role.PARAMETER, "chosen by content")
        return Fact(
            Role.POSITION,
            f"does not depend on content, varies along the token axis "
            f"{', '.join(str(a) for a in varying_axes(array, place.flags))}",
        )

    def _hides(self, node: ir.Node, value: ir.Value, array: Array, place: _ContentTraits) -> bool:
        """Whether an operand only switches off entries that a softmax or a maximum chooses among.

        It may be zero everywhere in an example without padding. An operand that is very negative
        everywhere is a constant, except at a ``Where`` or if it is −∞.
        """
        known = [array, *(a for a in [self._seen.again.get(value.name or "")] if a is not None)]
        signed = [-a if _subtracted(node, value) else a for a in known]
        if not any(map(is_mask, signed)) or not all(is_mask(a) or not a.any() for a in signed):
            return False
        if any(np.isneginf(a).any() for a in signed):
            return True
        some = node.op_type == "Where" or any((a == 0).any() for a in signed)
        return some and place.chosen

    def _of_mask(self, value: ir.Value, flags: Axes | None = None) -> bool:
        """Whether only a mask makes an operand vary along tokens (without flags: at all)."""
        again = self._seen.again.get(value.name or "")
        if again is None or value not in self._masking or not again.size:
            return False
        return not (np.ptp(again) > 0 if flags is None else varying_axes(again, flags))

    def _per_column(self, node: ir.Node, array: Array, place: _ContentTraits) -> str | None:
        """Why numbers that vary along tokens are weights of columns; ``None`` if they are not."""
        if place.columns:
            return "one number for every column"
        shapes = self._seen.shapes
        content = [v for v in node.inputs if v in self._content and v in shapes]
        wide = array.ndim and array.shape[-1] > 1 and not place.flags[-1] & TOKEN
        narrow = all(shapes[v] and shapes[v][-1] == 1 for v in content if v is not None)
        if node.op_type == "Mul" and content and wide and narrow:
            return "a linear layer for every column"
        return None

    def _follow(self, name: str, array: Array | None, flags: Axes) -> Fact:
        role = self._seen.overrides[name]
        self.found.applied.add(name)
        if role is Role.CONTENT:
            raise UsageError(
                "Only inputs of the graph can be content",
                place=f"value {name!r}",
                hint=f"Possible roles: {', '.join(r.value for r in OVERRIDABLE[1:])}.",
            )
        if role is Role.POSITION and (array is None or not varying_axes(array, flags)):
            raise UsageError(
                "The value is the same for every token, so it cannot be a position",
                place=f"value {name!r}",
                hint="`palrp-onnx inspect MODEL --why NAME` prints the role of a value.",
            )
        return Fact(role, OVERRIDDEN)

    def _factor(self, node: ir.Node, value: ir.Value, array: Array, flags: Axes) -> Fact:
        """Role of a factor of a matrix product whose other factor is content.

        Weights depend on nothing. A table of positions depends on the length or, if it is stored in
        the file, runs along the tokens of the product.
        """
        index = list(node.inputs).index(value)
        sources = factor_axes(node, index, self._seen.shapes)
        along = [a for a, own in sources.items() if own is not None and flags[a] & TOKEN]
        if (node, index) in self._selected:
            reason = "a factor whose entries are picked by relative position"
        elif along:
            reason = f"a factor that runs along the token axis {along[0]}"
        elif value in self._fed and self._by_length(value, array):
            reason = "a factor that is made from the length of the input"
        else:
            return Fact(Role.PARAMETER, f"a parameter of {node.op_type}")
        if self._of_mask(value):
            return Fact(Role.PARAMETER, SAME_WHERE_UNMASKED)
        if value in self._chosen:
            return Fact(Role.PARAMETER, "chosen by content")
        if value in self._segments or _selects(array):
            return Fact(Role.PARAMETER, "selects or averages tokens")
        return Fact(Role.POSITION, reason)

    def _by_length(self, value: ir.Value, array: Array) -> bool:
        """Whether a value that depends on input shapes depends on their length, not on the batch.

        It does if it differs between examples of two lengths, or if only one length is known.
        """
        inputs = [v for v in self._graph.inputs if not v.is_initializer()]
        other = self._seen.again.get(value.name or "")
        if not any(_free(v) for v in inputs):
            return False
        again = [self._seen.again.get(v.name or "") for v in inputs]
        same = all(
            a is None or a.shape == self._seen.shapes[v] for v, a in zip(inputs, again, strict=True)
        )
        return same or other is None or not np.array_equal(other, array)


def _terms_of(value: ir.Value) -> list[_Use]:
    """The real terms of a sum, each with the node that adds it; none where a value is no sum."""
    node = value.producer()
    if node is None or not is_sum(node):
        return []
    return [(node, v) for v in node.inputs if v is not None and is_float(v)]


def _free(value: ir.Value) -> bool:
    """Whether an axis of an input, other than the first, has no fixed length."""
    return value.shape is None or any(not isinstance(dim, int) for dim in list(value.shape)[1:])


def _subtracted(node: ir.Node, value: ir.Value) -> bool:
    return node.op_type == "Sub" and node.inputs[1] is value


def _aligned(node: ir.Node, flags: Axes) -> bool:
    """Whether a node's operands are aligned with its result by right-aligned broadcasting."""
    if node.op_type == "Concat":
        return not flags[node.attributes.get_int("axis", 0) % len(flags)] & TOKEN
    return is_aligned(node)


def _selects(array: Array) -> bool:
    """Whether a matrix has at most two different entries, as zeros and one other number."""
    return len(np.unique(array)) <= 2
