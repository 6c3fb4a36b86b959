"""The backward walk: seed, rules, sinks and ledger, in the tensor language."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any, Generic, TypeVar

import onnx_ir as ir

from palrp_onnx.analysis.analysis import Operand
from palrp_onnx.analysis.axes import BATCH, sample_place
from palrp_onnx.analysis.roles import Role
from palrp_onnx.errors import RoleError, TargetError, UnsupportedError
from palrp_onnx.model.ops import Trait, has
from palrp_onnx.relevance.ledger import INPUT, KERNEL
from palrp_onnx.relevance.plan import RECEIVING, Plan, Step, View, describe, role_of
from palrp_onnx.relevance.score_sums import NO_SUMS, ScoreSums, find_score_sums
from palrp_onnx.relevance.single_row import Rows, RowView, picked_row, rows_before
from palrp_onnx.rules import Shares, softmax
from palrp_onnx.tensor.language import Language

T = TypeVar("T")

#: Role of an operand → ledger entry for its relevance.
LEDGER_ENTRY = {Role.SEGMENT: "segment", Role.PARAMETER: "bias", Role.MASK: "other"}


@dataclass
class Caught(Generic[T]):
    """The result of a walk, in units of the target.

    Attributes:
        content: Relevance of every explained input: [B, T, F] for looked-up tokens, else the
            shape of the input.
        positions: Relevance of every position operand, in the shape of its node's output.
        ledger: Sum per sample [B] by entry; explained inputs by ``INPUT`` and their name.
        watched: Multipliers of the watched values that received any.
    """

    content: dict[str, T] = field(default_factory=dict)
    positions: dict[Operand, T] = field(default_factory=dict)
    ledger: dict[str, T] = field(default_factory=dict)
    watched: dict[ir.Value, T] = field(default_factory=dict)

    def map(self, function: Callable[[T], T]) -> Caught[T]:
        """The same with ``function`` applied to every tensor."""
        return Caught(
            {name: function(r) for name, r in self.content.items()},
            {operand: function(r) for operand, r in self.positions.items()},
            {entry: function(r) for entry, r in self.ledger.items()},
            {value: function(m) for value, m in self.watched.items()},
        )

    def require(self, *explained: str) -> None:
        """Refuse a walk that did not reach these explained inputs.

        Raises:
            TargetError: It did not.
        """
        for name in explained:
            if name not in self.content:
                raise TargetError(
                    "No relevance reaches the explained input",
                    place=f"input {name}",
                    hint="The output does not depend on it, or the method sends nothing that way; "
                    "try another --method.",
                )


def walk(
    op: Language[T],
    plan: Plan,
    values: Callable[[ir.Value], T],
    seed: T,
    rows: Rows[T] | None = None,
    watch: Collection[ir.Value] = (),
    *,
    by_products: bool = False,
) -> Caught[T]:
    """Propagate multipliers from the target back to every sink.

    Args:
        op: The tensor language.
        plan: What to visit.
        values: Forward values.
        seed: Multiplier of the explained output: 1 at the target, −1 at the class it is compared
            with.
        rows: The rows of the output that ``seed`` holds, if it does not hold all.
        watch: Values whose multipliers are returned, in full. A value that receives single rows has
            to be among the forward values, for its shape.
        by_products: Whether sums over attention scores are taken from the products on either side
            where they follow from these: :mod:`palrp_onnx.relevance.score_sums`.

    Raises:
        UnsupportedError: A rule does not cover this use of its operation.
        RoleError: A rule returned a wrong number of multipliers.
    """
    score_sums = find_score_sums(plan) if by_products else NO_SUMS
    return _Walk(op, plan, values, watch, score_sums).run(_Sent(seed, rows))


@dataclass(frozen=True)
class _Sent(Generic[T]):
    """A multiplier; with ``rows`` it holds these alone, and is zero elsewhere."""

    m: T
    rows: Rows[T] | None


class _Walk(Generic[T]):
    def __init__(
        self,
        op: Language[T],
        plan: Plan,
        values: Callable[[ir.Value], T],
        watch: Collection[ir.Value],
        score_sums: ScoreSums,
    ) -> None:
        self._op = op
        self._plan = plan
        self._values = values
        self._watch = watch
        self._score_sums = score_sums
        #: Softmax → Σ s ∘ m of every query, and the rows that these are.
        self._totals: dict[ir.Node, tuple[T, Rows[T] | None]] = {}
        #: Operands whose relevance is still to be taken from the entry of a softmax.
        self._owed: set[Operand] = set()
        self._multipliers: dict[ir.Value, _Sent[T]] = {}
        self._caught: Caught[T] = Caught()

    def run(self, seed: _Sent[T]) -> Caught[T]:
        self._multipliers[self._plan.output] = seed
        for step in self._plan.steps:
            sent = [self._multipliers.pop(v, None) for v in step.node.outputs]
            if all(m is None for m in sent):
                continue
            for value, arrived in zip(step.node.outputs, sent, strict=True):
                self._store_watched(value, arrived)
            if step.entry is None:
                self._catch_lookup(step.node, sent[0])
            else:
                self._visit(step, sent)
        for value, left in self._multipliers.items():
            if value.is_graph_input():
                self._store_watched(value, left)
                self._catch(value.name or "", left, value)
        return self._caught

    def _store_watched(self, value: ir.Value, sent: _Sent[T] | None) -> None:
        """Store the multiplier of a watched value; all its consumers have been visited."""
        if value in self._watch and sent is not None:
            self._caught.watched[value] = self._whole(sent, value)

    def _whole(self, sent: _Sent[T], like: ir.Value) -> T:
        """The multiplier in the shape of the value, rows put back in their places."""
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
            shares = self._shares(step, use, m)
        except NotImplementedError as error:
            raise UnsupportedError(
                f"The rule does not cover this: {error}", place=describe(step.node)
            ) from error
        absorbed: Sequence[T] = ()
        if isinstance(shares, Shares):
            for entry, relevance in shares.absorbed.items():
                self._enter(entry, relevance, step.axes_of)
            absorbed, shares = tuple(shares.absorbed.values()), shares.inputs
        if len(shares) != len(step.node.inputs):
            raise RoleError(
                f"The rule returned {len(shares)} multipliers for {len(step.node.inputs)} inputs",
                place=describe(step.node),
            )
        if step.node in self._plan.kernels:
            self._enter_kernel(step, use, shares, absorbed)
        self._note_sums(step, use, shares)
        for index, share in enumerate(shares):
            if share is not None:
                self._send(step, use, index, share)

    def _shares(self, step: Step, use: _Use[T], m: Any) -> Sequence[T | None] | Shares[T]:
        """What the rule of a node sends."""
        assert step.entry is not None
        total, rows = self._totals.pop(step.node, (None, None))
        if total is None or rows != use.rows:
            return step.entry.rule(self._op, use.view, m)
        below = self._score_sums.below.get(step.node)
        if below is not None:
            self._owed.add(below)
        return softmax.with_total(self._op, use.view, m, total, rest=below is not None)

    def _note_sums(self, step: Step, use: _Use[T], shares: Sequence[T | None]) -> None:
        """Sums over attention scores that follow from a product that makes or reads them."""
        op, node, m = self._op, step.node, use.sent[0]
        count = float(sum(use.view.active(k) for k in range(use.view.arity)))
        above = self._score_sums.above.get(node)
        if above is not None and m is not None:
            total = op.sum(op.relevance(use.view.output(), m), [-1])
            self._totals[above] = op.scale(total, 1.0 / count), use.rows
        for index, share in enumerate(shares):
            value = node.inputs[index]
            if (node, index) in self._owed and share is not None and value is not None:
                passed = self._per_sample(op.relevance(use.view.input(index), share), value)
                self._add("softmax", op.scale(passed, -count))

    def _use(self, step: Step, sent: list[_Sent[T] | None]) -> _Use[T]:
        """The node as its rule sees it: single rows if possible, else whole values."""
        node = step.node
        found = [each.rows for each in sent if each is not None]
        rows = found[0] if all(r == found[0] for r in found) else None
        alibi = any((node, k) in self._plan.alibi for k in range(len(node.inputs)))
        if rows is not None and not alibi:
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
        if value is None or role is None:
            return
        if role not in RECEIVING and operand not in self._plan.real_masks:
            return
        if role is Role.CONTENT:
            fitted = self._fit(m, use.view.input(index), value, node)
            self._accumulate(value, _Sent(fitted, use.before[index]))
        elif role is Role.MIXED:
            # In the shape of the node's output, so that samples stay separate.
            self._accumulate(value, _Sent(self._spread(m, use, node), None))
        elif role is Role.POSITION:
            relevance = self._position(operand, use, m)
            self._caught.positions[operand] = self._spread(relevance, use, node)
            self._enter("position", relevance, step.axes_of)
        else:
            entry = step.entry.ledger.get(index, LEDGER_ENTRY[role])
            m = self._narrowed(m, value, step)
            self._enter(entry, self._op.relevance(use.view.input(index), m), step.axes_of)

    def _enter_kernel(
        self, step: Step, use: _Use[T], shares: Sequence[T | None], absorbed: Sequence[T]
    ) -> None:
        """kernel += Σ y ∘ m − Σ_i x_i ∘ m_i − absorbed, where the runtime's kernel computes y.

        By the adjoint identity Σ x ∘ (m Wᵀ) = Σ (x W) ∘ m, linear rules pass on the relevance of
        the exact product x W. So the entry is (y − x W) ∘ m, without computing x W.
        """
        op = self._op
        for index, m in enumerate(use.sent):
            if m is not None:
                self._enter(KERNEL, op.relevance(use.view.output(index), m), step.axes_of)
        for relevance in absorbed:
            self._enter(KERNEL, op.scale(relevance, -1.0), step.axes_of)
        for index, share in enumerate(shares):
            taken = None if share is None else self._taken(step, use, index, share)
            if taken is not None:
                self._add(KERNEL, op.scale(taken, -1.0))

    def _taken(self, step: Step, use: _Use[T], index: int, m: T) -> T | None:
        """Relevance of an operand per sample; ``None`` where it can receive none."""
        value, node = step.node.inputs[index], step.node
        role = role_of(self._plan.analysis, (node, index), self._plan.scaling)
        if value is None or role is None or role not in RECEIVING:
            return None
        axes_of = step.axes_of
        if role is Role.POSITION:
            relevance = self._position((node, index), use, m)
        elif role is Role.CONTENT:
            x, axes_of = use.view.input(index), value
            relevance = self._op.relevance(x, self._fit(m, x, value, node))
        else:
            relevance = self._op.relevance(use.view.input(index), m)
        return self._per_sample(relevance, axes_of)

    def _position(self, operand: Operand, use: _Use[T], m: T) -> T:
        """Relevance of a position operand, along the axes of the node's output.

        In a matrix product the operand itself need not have axes of samples and tokens.
        """
        if operand in self._plan.alibi:
            return self._from_own_place(use.view.input(operand[1]), m)
        if not has(operand[0], Trait.PRODUCT):
            return self._op.relevance(use.view.input(operand[1]), m)
        sent = use.sent[0]
        assert sent is not None
        half = 1.0 / sum(use.view.active(i) for i in range(use.view.arity))
        return self._op.scale(self._op.relevance(use.view.output(), sent), half)

    def _from_own_place(self, bias: T, m: T) -> T:
        """(b_ij − b_ii) ∘ m_ij, since a softmax ignores what is added to all scores of a query.

        The multipliers of the scores of one query sum to zero, so that the total is unchanged.
        """
        op = self._op
        whole = op.expand_like(bias, m)
        own = op.triangle(op.triangle(whole, 0, upper=True), 0, upper=False)
        return op.relevance(op.sub(whole, op.sum(own, [-1])), m)

    def _spread(self, m: T, use: _Use[T], node: ir.Node) -> T:
        """A multiplier or relevance in the shape of the node's output, rows put in their places."""
        return self._whole(_Sent(m, use.rows), node.outputs[0])

    def _narrowed(self, m: T, value: ir.Value, step: Step) -> T:
        """``m`` summed along the last axes that a constant is broadcast on, except the batch.

        Others are left: to sum rows of numbers is slower than to multiply them.
        """
        shape = self._plan.analysis.shapes.get(value)
        flags = self._plan.analysis.axes[step.axes_of]
        if not has(step.node, Trait.BROADCASTS) or shape is None:
            return m
        last = range(-1, -len(flags) - 1, -1)
        same = takewhile(lambda a: a < -len(shape) or shape[a] == 1, last)
        axes = sorted(a for a in same if not flags[a] & BATCH)
        return self._op.sum(self._op.wide(m), axes) if axes else m

    def _fit(self, m: T, like: T, value: ir.Value, node: ir.Node) -> T:
        """Undo broadcasting where the trial run showed any."""
        shapes = self._plan.analysis.shapes
        own, whole = shapes[value], shapes.get(node.outputs[0], ())
        if node.op_type == "MatMul" and min(len(own), len(whole)) > 1:
            broadcast = own[:-2] != whole[:-2]  # the last two axes are those of the matrices
        else:
            broadcast = node.op_type == "MatMul" or has(node, Trait.BROADCASTS)
            broadcast = broadcast and own != whole
        return self._op.sum_to(m, like) if broadcast else m

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
        table, start = node.inputs[0], self._plan.start
        origin = None
        if start is not None and table is not None:
            origin = self._op.row(self._values(table), start)
        self._catch(self._plan.analysis.inputs.lookups[node], sent, node.outputs[0], origin)

    def _catch(self, name: str, sent: _Sent[T], value: ir.Value, origin: T | None = None) -> None:
        """Relevance of an explained input; (x − x₀) ∘ m from an origin x₀, x₀ ∘ m is ``other``."""
        x, m = self._values(value), self._whole(sent, value)
        if origin is not None:
            self._enter("other", self._op.relevance(origin, m), value)
            x = self._op.sub(x, origin)
        if len(self._plan.analysis.known) > 1:  # one may be as long as another, or of length one
            m = self._op.sum_to(m, x)
        relevance = self._op.relevance(x, m)
        known = self._caught.content.get(name)
        self._caught.content[name] = relevance if known is None else self._op.add(known, relevance)
        self._enter(f"{INPUT}{name}", relevance, value)

    def _enter(self, entry: str, relevance: T, axes_of: ir.Value) -> None:
        self._add(entry, self._per_sample(relevance, axes_of))

    def _per_sample(self, relevance: T, axes_of: ir.Value) -> T:
        """Sum per sample [B] of relevance with the axes of a content value."""
        analysis = self._plan.analysis
        place = sample_place(analysis.axes[axes_of], analysis.layouts.layouts.get(axes_of, ()))
        if place.inner:
            relevance = self._op.samples_first(relevance, place.axis, place.inner)
        return self._op.per_sample(relevance, place.axis)

    def _add(self, entry: str, amount: T) -> None:
        known = self._caught.ledger.get(entry)
        self._caught.ledger[entry] = amount if known is None else self._op.add(known, amount)


@dataclass(frozen=True)
class _Use(Generic[T]):
    """The values of one visit.

    Attributes:
        view: The node as its rule sees it.
        sent: Multipliers of its outputs.
        before: The rows that ``view`` holds of each input, ``None`` for a whole one.
        rows: The rows that it holds of the outputs, ``None`` for whole ones.
    """

    view: View[T]
    sent: list[T | None]
    before: tuple[Rows[T] | None, ...]
    rows: Rows[T] | None
