"""The backward walk: seed, rules, sinks and books, in the tensor language."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import onnx_ir as ir

from palrp_onnx.errors import RoleError, TargetError, UnsupportedError
from palrp_onnx.graph.analysis import Operand
from palrp_onnx.graph.axes import BATCH, Axes
from palrp_onnx.graph.roles import Role
from palrp_onnx.relevance.ledger import INPUT
from palrp_onnx.relevance.plan import RECEIVING, Plan, Step, describe
from palrp_onnx.rules import Shares
from palrp_onnx.tensor.language import Language

T = TypeVar("T")

#: Ledger entry of relevance that reaches an operand with this role.
_BOOKS = {Role.SEGMENT: "segment", Role.PARAMETER: "bias", Role.MASK: "other"}


@dataclass
class Caught(Generic[T]):
    """What a walk leaves behind.

    Attributes:
        content: Relevance of every explained input: [B, T, F] for looked-up tokens, else the
            shape of the input.
        positions: Relevance at every position operand, in the shape of the value it meets.
        ledger: Sum per sample [B] by entry; explained inputs by ``INPUT`` and their name.
    """

    content: dict[str, T] = field(default_factory=dict)
    positions: dict[Operand, T] = field(default_factory=dict)
    ledger: dict[str, T] = field(default_factory=dict)

    def require(self, explained: str) -> None:
        """Refuse a walk that never reached the explained input.

        Raises:
            TargetError: It did not.
        """
        if explained not in self.content:
            raise TargetError(
                "The explained output does not depend on the explained input",
                place=f"input {explained}",
            )


def walk(op: Language[T], plan: Plan, values: Callable[[ir.Value], T], seed: T) -> Caught[T]:
    """Propagate multipliers from the target back to every sink.

    Args:
        op: The tensor language.
        plan: What to visit.
        values: Forward values.
        seed: Multiplier of the explained output: 1 at the target, −1 at what it is held against.

    Raises:
        UnsupportedError: A rule does not cover this use of its operation.
    """
    return _Walk(op, plan, values).run(seed)


class _Walk(Generic[T]):
    def __init__(self, op: Language[T], plan: Plan, values: Callable[[ir.Value], T]) -> None:
        self._op = op
        self._plan = plan
        self._values = values
        self._multipliers: dict[ir.Value, T] = {}
        self._caught: Caught[T] = Caught()

    def run(self, seed: T) -> Caught[T]:
        self._multipliers[self._plan.output] = seed
        for step in self._plan.steps:
            sent = [self._multipliers.pop(v, None) for v in step.node.outputs]
            if all(m is None for m in sent):
                continue
            if step.entry is None:
                self._catch_lookup(step.node, sent[0])
            else:
                self._visit(step, sent)
        for value, m in self._multipliers.items():
            if value.is_graph_input():
                self._catch(value.name or "", self._op.relevance(self._values(value), m))
        return self._caught

    def _visit(self, step: Step, sent: list[T | None]) -> None:
        assert step.entry is not None
        m: Any = tuple(sent) if step.entry.outputs == "all" else sent[0]
        if m is None:
            raise UnsupportedError(
                "Relevance reaches only a secondary output", place=describe(step.node)
            )
        view = self._plan.view(step, self._values)
        try:
            shares = step.entry.rule(self._op, view, m)
        except NotImplementedError as error:
            raise UnsupportedError(
                f"The rule does not cover this: {error}", place=describe(step.node)
            ) from error
        if isinstance(shares, Shares):
            for entry, relevance in shares.absorbed.items():
                self._book(entry, relevance, step.meeting)
            shares = shares.inputs
        if len(shares) != len(step.node.inputs):
            raise RoleError(
                f"The rule returned {len(shares)} multipliers for {len(step.node.inputs)} inputs",
                place=describe(step.node),
            )
        for index, share in enumerate(shares):
            if share is not None:
                self._send(step, index, share)

    def _send(self, step: Step, index: int, m: T) -> None:
        assert step.entry is not None
        operand = (step.node, index)
        fact = self._plan.analysis.operands.get(operand)
        value = step.node.inputs[index]
        if fact is None or value is None or fact.role not in RECEIVING:
            return
        if fact.role is Role.CONTENT:
            self._accumulate(value, self._fit(m, value, step.node))
        elif fact.role is Role.MIXED:
            # Kept in the shape of the content it meets, so that samples stay apart.
            self._accumulate(value, m)
        elif fact.role is Role.POSITION:
            relevance = self._op.relevance(self._values(value), m)
            self._caught.positions[operand] = relevance
            self._book("position", relevance, step.meeting)
        else:
            entry = step.entry.books.get(index, _BOOKS[fact.role])
            self._book(entry, self._op.relevance(self._values(value), m), step.meeting)

    def _fit(self, m: T, value: ir.Value, node: ir.Node) -> T:
        """Undo broadcasting where the trial run showed any."""
        shapes = self._plan.analysis.shapes
        if node.op_type in _BROADCASTING and shapes[value] != shapes.get(node.outputs[0]):
            return self._op.sum_to(m, self._values(value))
        return m

    def _accumulate(self, value: ir.Value, m: T) -> None:
        self._op.check(m, f"value {value.name!r}")
        known = self._multipliers.get(value)
        self._multipliers[value] = m if known is None else self._op.add(known, m)

    def _catch_lookup(self, node: ir.Node, m: T | None) -> None:
        assert m is not None
        relevance = self._op.relevance(self._values(node.outputs[0]), m)
        self._catch(self._plan.analysis.inputs.lookups[node], relevance)

    def _catch(self, name: str, relevance: T) -> None:
        known = self._caught.content.get(name)
        self._caught.content[name] = relevance if known is None else self._op.add(known, relevance)
        self._add(f"{INPUT}{name}", self._op.per_sample(relevance, 0))

    def _book(self, entry: str, relevance: T, meeting: ir.Value) -> None:
        axis = batch_axis(self._plan.analysis.axes[meeting], meeting)
        self._add(entry, self._op.per_sample(relevance, axis))

    def _add(self, entry: str, amount: T) -> None:
        known = self._caught.ledger.get(entry)
        self._caught.ledger[entry] = amount if known is None else self._op.add(known, amount)


#: Operations that may broadcast a content operand.
_BROADCASTING = frozenset("Add Sub Mul Div Sum Mean Max Min Where MatMul PRelu".split())


def batch_axis(axes: Axes, value: ir.Value) -> int:
    """The axis (from the right) whose outermost part is the batch.

    Raises:
        RoleError: No axis runs over the batch.
    """
    for axis in range(-len(axes), 0):
        if axes[axis] & BATCH:
            return axis
    raise RoleError("No axis of a value runs over the batch", place=str(value.name))
