"""The backward walk: seed, rules, sinks and books, in the tensor language."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import onnx_ir as ir

from palrp_onnx.analysis.analysis import Operand
from palrp_onnx.analysis.axes import BATCH, batch_axis
from palrp_onnx.analysis.roles import Role
from palrp_onnx.errors import RoleError, TargetError, UnsupportedError
from palrp_onnx.model.ops import Trait, has
from palrp_onnx.relevance.ledger import INPUT, KERNEL
from palrp_onnx.relevance.plan import RECEIVING, Plan, Step, View, describe, role_of
from palrp_onnx.relevance.single_row import Rows, RowView, picked_row, rows_before
from palrp_onnx.rules import Shares
from palrp_onnx.tensor.language import Language

T = TypeVar("T")

#: Ledger entry of relevance that reaches an operand with this role.
_BOOKS = {Role.SEGMENT: "segment", Role.PARAMETER: "bias"}


@dataclass
class Caught(Generic[T]):
    """What a walk leaves behind.

    Attributes:
        content: Relevance of every explained input: [B, T, F] for looked-up tokens, else the
            shape of the input.
        positions: Relevance at every position operand, in the shape of the value it meets.
        ledger: Sum per sample [B] by entry; explained inputs by ``INPUT`` and their name.
        watched: Multipliers of the watched values that any reached.
    """

    content: dict[str, T] = field(default_factory=dict)
    positions: dict[Operand, T] = field(default_factory=dict)
    ledger: dict[str, T] = field(default_factory=dict)
    watched: dict[ir.Value, T] = field(default_factory=dict)

    def map(self, function: Callable[[T], T]) -> Caught[T]:
        """The same with ``function`` of everything caught."""
        return Caught(
            {name: function(r) for name, r in self.content.items()},
            {operand: function(r) for operand, r in self.positions.items()},
            {entry: function(r) for entry, r in self.ledger.items()},
            {value: function(m) for value, m in self.watched.items()},
        )

    def require(self, explained: str) -> None:
        """Refuse a walk that never reached the explained input.

        Raises:
            TargetError: It did not.
        """
        if explained not in self.content:
            raise TargetError(
                "No relevance reaches the explained input",
                place=f"input {explained}",
                hint="The output does not depend on it, or the method sends nothing that way; try "
                "another --method.",
            )


def walk(
    op: Language[T],
    plan: Plan,
    values: Callable[[ir.Value], T],
    seed: T,
    rows: Rows[T] | None = None,
    watch: Collection[ir.Value] = (),
) -> Caught[T]:
    """Propagate multipliers from the target back to every sink.

    Args:
        op: The tensor language.
        plan: What to visit.
        values: Forward values.
        seed: Multiplier of the explained output: 1 at the target, −1 at what it is held against.
        rows: The rows of the output that ``seed`` holds, where it does not hold all.
        watch: Values whose whole multipliers are kept. One that is reached in single rows has to be
            among the forward values, for its shape.

    Raises:
        UnsupportedError: A rule does not cover this use of its operation.
    """
    return _Walk(op, plan, values, watch).run(_Sent(seed, rows))


@dataclass(frozen=True)
class _Sent(Generic[T]):
    """A multiplier; with ``rows`` it is zero elsewhere and holds only these."""

    m: T
    rows: Rows[T] | None


class _Walk(Generic[T]):
    def __init__(
        self,
        op: Language[T],
        plan: Plan,
        values: Callable[[ir.Value], T],
        watch: Collection[ir.Value],
    ) -> None:
        self._op = op
        self._plan = plan
        self._values = values
        self._watch = watch
        self._multipliers: dict[ir.Value, _Sent[T]] = {}
        self._caught: Caught[T] = Caught()

    def run(self, seed: _Sent[T]) -> Caught[T]:
        self._multipliers[self._plan.output] = seed
        for step in self._plan.steps:
            sent = [self._multipliers.pop(v, None) for v in step.node.outputs]
            if all(m is None for m in sent):
                continue
            for value, arrived in zip(step.node.outputs, sent, strict=True):
                self._keep(value, arrived)
            if step.entry is None:
                self._catch_lookup(step.node, sent[0])
            else:
                self._visit(step, sent)
        for value, left in self._multipliers.items():
            if value.is_graph_input():
                self._keep(value, left)
                m = self._whole(left, value)
                relevance = self._op.relevance(self._values(value), m)
                self._catch(value.name or "", relevance, value)
        return self._caught

    def _keep(self, value: ir.Value, sent: _Sent[T] | None) -> None:
        """A watched multiplier, now that all consumers have sent theirs."""
        if value in self._watch and sent is not None:
            self._caught.watched[value] = self._whole(sent, value)

    def _whole(self, sent: _Sent[T], like: ir.Value) -> T:
        """The multiplier of all of a value."""
        return sent.m if sent.rows is None else sent.rows.put(self._op, sent.m, self._values(like))

    def _visit(self, step: Step, sent: list[_Sent[T] | None]) -> None:
        assert step.entry is not None
        first = sent[0]
        if step.entry.outputs == "first" and first is None:
            raise UnsupportedError(
                "Relevance reaches only a secondary output", place=describe(step.node)
            )
        if first is not None and first.rows is None and step.node.inputs:
            picked = picked_row(self._op, self._plan, step, self._values, first.m)
            source = step.node.inputs[0]
            if picked is not None and source is not None:
                self._accumulate(source, _Sent(*picked))
                return
        use = self._use(step, sent)
        m: Any = tuple(use.sent) if step.entry.outputs == "all" else use.sent[0]
        try:
            shares = step.entry.rule(self._op, use.view, m)
        except NotImplementedError as error:
            raise UnsupportedError(
                f"The rule does not cover this: {error}", place=describe(step.node)
            ) from error
        absorbed: Sequence[T] = ()
        if isinstance(shares, Shares):
            for entry, relevance in shares.absorbed.items():
                self._book(entry, relevance, step.meeting)
            absorbed, shares = tuple(shares.absorbed.values()), shares.inputs
        if len(shares) != len(step.node.inputs):
            raise RoleError(
                f"The rule returned {len(shares)} multipliers for {len(step.node.inputs)} inputs",
                place=describe(step.node),
            )
        if step.node in self._plan.kernels:
            self._book_kernel(step, use, shares, absorbed)
        for index, share in enumerate(shares):
            if share is not None:
                self._send(step, use, index, share)

    def _use(self, step: Step, sent: list[_Sent[T] | None]) -> _Use[T]:
        """The node as its rule will see it: on rows alone where it can be, else whole."""
        node = step.node
        found = [each.rows for each in sent if each is not None]
        rows = found[0] if all(r == found[0] for r in found) else None
        counted = any((node, k) in self._plan.counted for k in range(len(node.inputs)))
        if rows is not None and not counted:
            before = rows_before(self._plan.analysis, node, node.outputs[0], rows)
            if before is not None:
                view: View[T] = RowView(self._op, self._plan, node, self._values, rows, before)
                return _Use(view, [None if s is None else s.m for s in sent], before, rows)
        whole = [
            None if s is None else self._whole(s, v)
            for s, v in zip(sent, node.outputs, strict=True)
        ]
        view = self._plan.view(step, self._values)
        return _Use(view, whole, (None,) * len(node.inputs), None)

    def _send(self, step: Step, use: _Use[T], index: int, m: T) -> None:
        assert step.entry is not None
        node = step.node
        operand = (node, index)
        role = role_of(self._plan.analysis, operand, self._plan.scaling)
        value = node.inputs[index]
        if value is None or role is None or role not in RECEIVING:
            return
        if role is Role.CONTENT:
            fitted = self._fit(m, use.view.input(index), value, node)
            self._accumulate(value, _Sent(fitted, use.before[index]))
        elif role is Role.MIXED:
            # Kept in the shape of the content it meets, so that samples stay apart.
            self._accumulate(value, _Sent(self._spread(m, use, node), None))
        elif role is Role.POSITION:
            relevance = self._position(operand, use, m)
            self._caught.positions[operand] = self._spread(relevance, use, node)
            self._book("position", relevance, step.meeting)
        else:
            entry = step.entry.books.get(index, _BOOKS[role])
            m = self._narrowed(m, value, step)
            self._book(entry, self._op.relevance(use.view.input(index), m), step.meeting)

    def _book_kernel(
        self, step: Step, use: _Use[T], shares: Sequence[T | None], absorbed: Sequence[T]
    ) -> None:
        """kernel += Σ y ∘ m − Σ_i x_i ∘ m_i − absorbed, with y as the runtime's kernel computes it.

        Linear rules hand on exactly what exact arithmetic makes of the operands, by the adjoint
        identity Σ x ∘ (m Wᵀ) = Σ (x W) ∘ m: this is (y − x W) ∘ m, and x W need not be computed.
        """
        op, m = self._op, use.sent[0]
        assert m is not None
        self._book(KERNEL, op.relevance(use.view.output(), m), step.meeting)
        for relevance in absorbed:
            self._book(KERNEL, op.scale(relevance, -1.0), step.meeting)
        for index, share in enumerate(shares):
            taken = None if share is None else self._taken(step, use, index, share)
            if taken is not None:
                self._add(KERNEL, op.scale(taken, -1.0))

    def _taken(self, step: Step, use: _Use[T], index: int, m: T) -> T | None:
        """Relevance that an operand is sent, per sample; ``None`` where it can receive none."""
        value, node = step.node.inputs[index], step.node
        role = role_of(self._plan.analysis, (node, index), self._plan.scaling)
        if value is None or role is None or role not in RECEIVING:
            return None
        meeting = step.meeting
        if role is Role.POSITION:
            relevance = self._position((node, index), use, m)
        elif role is Role.CONTENT:
            x, meeting = use.view.input(index), value
            relevance = self._op.relevance(x, self._fit(m, x, value, node))
        else:
            relevance = self._op.relevance(use.view.input(index), m)
        axis = batch_axis(self._plan.analysis.axes[meeting])
        return self._op.per_sample(relevance, axis)

    def _position(self, operand: Operand, use: _Use[T], m: T) -> T:
        """Relevance of a position operand, along the axes of the result.

        In a matrix product an operand alone would no longer tell samples and tokens apart.
        """
        if operand in self._plan.counted:
            return self._from_own_place(use.view.input(operand[1]), m)
        if not has(operand[0], Trait.PRODUCT):
            return self._op.relevance(use.view.input(operand[1]), m)
        sent = use.sent[0]
        assert sent is not None
        half = 1.0 / sum(use.view.active(i) for i in range(use.view.arity))
        return self._op.scale(self._op.relevance(use.view.output(), sent), half)

    def _from_own_place(self, bias: T, m: T) -> T:
        """(b_ij − b_ii) ∘ m_ij: a slope has no origin of its own, as the softmax has none.

        Multipliers of the scores of one query add up to zero, so that the sum stays what it is.
        """
        op = self._op
        whole = op.expand_like(bias, m)
        own = op.keep_triangle(op.keep_triangle(whole, 0, upper=True), 0, upper=False)
        return op.relevance(op.sub(whole, op.sum(own, [-1])), m)

    def _spread(self, m: T, use: _Use[T], node: ir.Node) -> T:
        """Rows in the shape of a node's output back in their places."""
        return self._whole(_Sent(m, use.rows), node.outputs[0])

    def _narrowed(self, m: T, value: ir.Value, step: Step) -> T:
        """Summed along the axes that a constant is the same on, but not over samples."""
        shape = self._plan.analysis.shapes.get(value)
        flags = self._plan.analysis.axes[step.meeting]
        if not has(step.node, Trait.BROADCASTS) or shape is None:
            return m
        same = (a for a in range(-len(flags), 0) if a < -len(shape) or shape[a] == 1)
        return self._op.sum(m, [a for a in same if not flags[a] & BATCH])

    def _fit(self, m: T, like: T, value: ir.Value, node: ir.Node) -> T:
        """Undo broadcasting where the trial run showed any."""
        shapes = self._plan.analysis.shapes
        broadcasts = has(node, Trait.BROADCASTS) or node.op_type == "MatMul"
        if broadcasts and shapes[value] != shapes.get(node.outputs[0]):
            return self._op.sum_to(m, like)
        return m

    def _accumulate(self, value: ir.Value, sent: _Sent[T]) -> None:
        self._op.check(sent.m, f"value {value.name!r}")
        known = self._multipliers.get(value)
        if known is not None and known.rows == sent.rows:
            sent = _Sent(self._op.add(known.m, sent.m), sent.rows)
        elif known is not None:
            whole = self._op.add(self._whole(known, value), self._whole(sent, value))
            sent = _Sent(whole, None)
        self._multipliers[value] = sent

    def _catch_lookup(self, node: ir.Node, sent: _Sent[T] | None) -> None:
        assert sent is not None
        value = node.outputs[0]
        relevance = self._op.relevance(self._values(value), self._whole(sent, value))
        self._catch(self._plan.analysis.inputs.lookups[node], relevance, value)

    def _catch(self, name: str, relevance: T, value: ir.Value) -> None:
        known = self._caught.content.get(name)
        self._caught.content[name] = relevance if known is None else self._op.add(known, relevance)
        self._book(f"{INPUT}{name}", relevance, value)

    def _book(self, entry: str, relevance: T, meeting: ir.Value) -> None:
        axis = batch_axis(self._plan.analysis.axes[meeting])
        self._add(entry, self._op.per_sample(relevance, axis))

    def _add(self, entry: str, amount: T) -> None:
        known = self._caught.ledger.get(entry)
        self._caught.ledger[entry] = amount if known is None else self._op.add(known, amount)


@dataclass(frozen=True)
class _Use(Generic[T]):
    """One visit: the node as its rule sees it, and which rows of its operands that holds."""

    view: View[T]
    sent: list[T | None]
    before: tuple[Rows[T] | None, ...]
    rows: Rows[T] | None
