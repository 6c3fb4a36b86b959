"""Axes of a result ← axes of the operands, for every operation: one map, read in two directions.

:mod:`palrp_onnx.analysis.axes` reads it forwards, to find the layout of a result.
:mod:`palrp_onnx.analysis.sources` reads it backwards, to find the row of each operand that one row
of the result depends on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from math import prod

import onnx_ir as ir

from palrp_onnx.model.ops import AxisRule, Trait, has, row_of
from palrp_onnx.model.values import constant, constant_axes
from palrp_onnx.types import Array, Shape

#: Integer operand → its entries, ``None`` where they are unknown.
Known = Callable[[ir.Value | None], Array | None]
#: (operand, axis), both from the front; ``None`` for an axis where the operand's rank is unknown.
OperandAxis = tuple[int, int | None]


class How(Enum):
    """How entries along axes of a result come from entries along axes of operands."""

    #: Entry i from entry i of each, or from the only entry of one that has length one.
    SAME = auto()
    #: Aligned, but it is unknown which entries depend on which.
    LOOSE = auto()
    #: Merged and split in row-major order.
    REGROUPED = auto()
    #: Repeated, as a whole.
    REPEATED = auto()
    #: A contiguous part, or entries with padding around them.
    CUT = auto()
    #: Concatenated operands.
    JOINED = auto()
    #: Entries that another operand selects.
    SELECTED = auto()
    #: Entries, some of them overwritten at indices that another operand holds.
    SCATTERED = auto()
    #: All entries are combined to one, or the axis is removed.
    SUMMED = auto()
    #: Entry i from all entries, mostly from entry i.
    NORMALISED = auto()
    #: Entry i from entries 0 to i.
    ACCUMULATED = auto()
    #: Some of the entries, in another order; all of them decide which.
    CHOSEN = auto()
    #: Windows of entries.
    POOLED = auto()
    #: An axis that no operand has.
    NEW = auto()


@dataclass(frozen=True)
class Link:
    """Some axes of a result and the axes of operands that they come from.

    Attributes:
        how: How entries of the result come from entries of the operands.
        results: Axes of the result; none where axes of operands are removed.
        axes: Axes of the operands.
    """

    how: How
    results: tuple[int, ...]
    axes: tuple[OperandAxis, ...]


@dataclass(frozen=True)
class ShapedNode:
    """A node with the shapes around it.

    Attributes:
        node: The node.
        output: The result.
        before: Shape of every operand, () where it is left out, ``None`` where it is unknown.
        after: Shape of the result.
        known: Entries of integer operands.
        shapes: Shapes of all values.
    """

    node: ir.Node
    output: ir.Value
    before: Sequence[Shape | None]
    after: Shape
    known: Known
    shapes: Mapping[ir.Value, Shape]

    @property
    def first(self) -> Shape:
        """Shape of the first operand."""
        return (self.before[0] if self.before else None) or ()

    def axis(self, default: int = 0) -> int:
        """The attribute ``axis``, from the front of the first operand."""
        return self.node.attributes.get_int("axis", default) % len(self.first)

    def operand(self, index: int) -> ir.Value | None:
        """An operand, ``None`` where it is left out."""
        return self.node.inputs[index] if index < len(self.node.inputs) else None


Links = Iterable[Link]


def index_entries(value: ir.Value | None, indices: Mapping[str, Array]) -> Array | None:
    """The entries of a constant, or of an index in the trial run; ``None`` where unknown.

    Args:
        value: An integer operand.
        indices: Integer values of the trial run, by name.
    """
    found = constant(value)
    return indices.get(value.name or "") if found is None and value is not None else found


def links_of(
    node: ir.Node,
    output: ir.Value,
    shapes: Mapping[ir.Value, Shape],
    known: Known = constant,
) -> tuple[Link, ...] | None:
    """The links of all axes of ``output``; ``None`` where they are unknown.

    Every axis of the result is in exactly one link. Axes that are summed over come first.

    Args:
        node: The node.
        output: One of its results.
        shapes: Lengths of axes, in a trial run.
        known: Entries of integer operands.
    """
    before = [shapes.get(v) if v is not None else () for v in node.inputs]
    operation = ShapedNode(node, output, before, shapes[output], known, shapes)
    links = _RULES[row_of(node).axes](operation)
    return None if links is None else tuple(links)


# --- entry by entry ------------------------------------------------------------------------------
def _pairs(
    operands: Iterable[tuple[int, Shape | None]], axis: int, rank: int
) -> tuple[OperandAxis, ...]:
    """The axes of operands that are aligned, from the right, with an axis of the result."""
    found: list[OperandAxis] = []
    for index, shape in operands:
        own = None if shape is None else len(shape) - rank + axis
        if own is None or own >= 0:
            found.append((index, own))
    return tuple(found)


def _broadcast(
    how: How, operands: Iterable[tuple[int, Shape | None]], after: Shape
) -> Iterator[Link]:
    listed = list(operands)
    return (Link(how, (k,), _pairs(listed, k, len(after))) for k in range(len(after)))


_RETYPED = Trait.RETYPES | Trait.LIKE


def _aligned(o: ShapedNode) -> Links:
    operands = list(enumerate(o.before))
    retyped = has(o.node, _RETYPED)  # other operands are parameters
    return _broadcast(How.SAME, operands[:1] if retyped else operands, o.after)


def _loose(o: ShapedNode) -> Links:
    return _broadcast(How.LOOSE, enumerate(o.before), o.after)


def _same(results: Iterable[int], axes: Iterable[int], operand: int = 0) -> Iterator[Link]:
    pairs = zip(results, axes, strict=True)
    return (Link(How.SAME, (k,), ((operand, own),)) for k, own in pairs)


# --- movement ------------------------------------------------------------------------------------
def _reshaped(o: ShapedNode) -> Links | None:
    before, after = _nonempty(o.first), _nonempty(o.after)
    if before != after and (0 in (*before, *after) or prod(before) != prod(after)):
        return None
    return (
        Link(How.REGROUPED, tuple(new), tuple((0, k) for k in own))
        for own, new in groups(before, after)
    )


#: A length that stands for zero; no axis of a trial run is as long.
_NOTHING = 1_000_003


def _nonempty(shape: Shape) -> Shape:
    """The shape with another length where one axis has no entries: rows that nobody picked."""
    return tuple(size or _NOTHING for size in shape) if shape.count(0) == 1 else shape


def groups(before: Shape, after: Shape) -> Iterator[tuple[range, range]]:
    """Ranges of axes with equal products, as short as can be."""
    if before == after:
        yield from ((range(k, k + 1), range(k, k + 1)) for k in range(len(before)))
        return
    i = j = 0
    while i < len(before) or j < len(after):
        start, begin, left, right = i, j, 1, 1
        if i < len(before):
            left, i = before[i], i + 1
        if j < len(after):
            right, j = after[j], j + 1
        while left != right:
            if left < right and i < len(before):
                left, i = left * before[i], i + 1
            elif j < len(after):
                right, j = right * after[j], j + 1
            else:  # cannot be: both products are the whole size
                left, i = left * prod(before[i:]), len(before)
        yield range(start, i), range(begin, j)


def _ranked(o: ShapedNode) -> Links | None:
    named = constant_axes(o.node)
    if named is None:
        return _reshaped(o)
    longer = max(len(o.first), len(o.after))
    ones = {axis % longer for axis in named}
    rest = [k for k in range(longer) if k not in ones]
    if len(o.after) < len(o.first):
        return _same(range(len(rest)), rest)
    new = (Link(How.SAME, (k,), ()) for k in sorted(ones))
    return [*new, *_same(rest, range(len(rest)))]


def _permuted(o: ShapedNode) -> Links:
    rank = len(o.first)
    return _same(range(rank), o.node.attributes.get_ints("perm", tuple(reversed(range(rank)))))


def _repeated(o: ShapedNode) -> Links:
    return _broadcast(How.REPEATED, [(0, o.first)], o.after)


def _cut(o: ShapedNode) -> Links | None:
    """Slices, splits and padding; where their axes are computed, any axis may be cut."""
    rank = len(o.first)
    if rank != len(o.after):
        return None
    named = (o.axis(),) if o.node.op_type == "Split" else _sliced(o)
    cut = set(range(rank)) if named is None else {axis % rank for axis in named}
    return (Link(How.CUT if k in cut else How.SAME, (k,), ((0, k),)) for k in range(rank))


def _sliced(o: ShapedNode) -> Sequence[int] | None:
    return constant_axes(o.node, 3) if has(o.node, Trait.CUT) else None


def _joined(o: ShapedNode) -> Links:
    along = o.node.attributes.get_int("axis", 0) % len(o.after)
    operands = range(len(o.before))
    return (
        Link(How.JOINED if k == along else How.SAME, (k,), tuple((i, k) for i in operands))
        for k in range(len(o.after))
    )


def _gathered(o: ShapedNode) -> Links:
    own, rank = o.axis(), len(o.first)
    end = own + len(o.after) - rank + 1
    yield from _same(range(own), range(own))
    yield Link(How.SELECTED, tuple(range(own, end)), ((0, own),))
    yield from _same(range(end, len(o.after)), range(own + 1, rank))


def _gathered_elements(o: ShapedNode) -> Links:
    """Every entry has an index of its own along ``axis``; along other axes the index may end."""
    own = o.axis()
    for k, (was, size) in enumerate(zip(o.first, o.after, strict=True)):
        how = How.SELECTED if k == own else How.SAME if was == size else How.LOOSE
        yield Link(how, (k,), ((0, k), (1, k)) if how is How.SAME else ((0, k),))


def _gathered_nd(o: ShapedNode) -> Links | None:
    """Along the first ``batch_dims`` axes, each entry has indices of its own."""
    index = o.before[1]
    if index is None:
        return None
    shared = o.node.attributes.get_int("batch_dims", 0)
    indexed, places = shared + index[-1], len(index) - 1
    return (
        *(Link(How.SAME, (k,), ((0, k), (1, k))) for k in range(shared)),
        Link(
            How.SELECTED,
            tuple(range(shared, places)),
            tuple((0, k) for k in range(shared, indexed)),
        ),
        *_same(range(places, len(o.after)), range(indexed, len(o.first))),
    )


def _scattered(o: ShapedNode) -> Links:
    """Indices name places along one axis, or along the first ones; along others, entries stay."""
    rank, index, updates = len(o.after), o.before[1], o.before[2]
    if index is None or updates is None:
        operands = ((i, k) for i in (0, 2) for k in range(len(o.before[i] or ())))
        yield Link(How.SCATTERED, tuple(range(rank)), tuple(operands))
    elif o.node.op_type == "ScatterND":
        depth, lead = index[-1], len(index) - 1
        named = (*((0, k) for k in range(depth)), *((2, k) for k in range(lead)))
        yield Link(How.SCATTERED, tuple(range(depth)), named)
        for k in range(depth, rank):
            yield Link(How.SAME, (k,), ((0, k), (2, lead + k - depth)))
    else:
        own = o.axis()
        for k, (was, size) in enumerate(zip(updates, o.after, strict=True)):
            how = How.SCATTERED if k == own else How.SAME if was == size else How.LOOSE
            yield Link(how, (k,), ((0, k), (1, k), (2, k)) if how is How.SAME else ((0, k), (2, k)))


# --- several entries become one ------------------------------------------------------------------
def _reduced(o: ShapedNode) -> Links:
    rank = len(o.first)
    named = constant_axes(o.node)
    if named is None and has(o.node, Trait.ARGUMENT):
        named = (o.axis(),)
    if not named:  # an empty list counts as none
        nothing = o.node.attributes.get_int("noop_with_empty_axes", 0) != 0
        named = () if nothing else tuple(range(rank))
    gone = sorted({axis % rank for axis in named})
    rest = [k for k in range(rank) if k not in gone]
    keepdims = len(o.after) == rank
    yield from (Link(How.SUMMED, (k,) if keepdims else (), ((0, k),)) for k in gone)
    yield from _same(rest if keepdims else range(len(rest)), rest)


def _matrices(o: ShapedNode) -> Links:
    left, right = (shape or () for shape in o.before)
    one, two = len(left), len(right)
    yield Link(How.SUMMED, (), (*(((0, one - 1),) if one else ()), *_contracted(two)))
    tails = [(0, one - 2)] * (one > 1) + [(1, two - 1)] * (two > 1)
    head = len(o.after) - len(tails)
    stacked = [(k, None if s is None else s[:-2]) for k, s in enumerate(o.before)]
    yield from _broadcast(How.SAME, stacked, o.after[:head])
    for k, tail in enumerate(tails):
        yield Link(How.SAME, (head + k,), (tail,))


def _contracted(rank: int) -> tuple[OperandAxis, ...]:
    """The axis of the second factor that a matrix product sums over."""
    return ((1, max(rank - 2, 0)),) if rank else ()


def _gemm(o: ShapedNode) -> Links:
    across, over = (o.node.attributes.get_int(name, 0) != 0 for name in ("transA", "transB"))
    yield Link(How.SUMMED, (), ((0, 0 if across else 1), (1, 1 if over else 0)))
    rows, columns = (0, 1 if across else 0), (1, 0 if over else 1)
    third = list(enumerate(o.before))[2:3]
    for k, own in enumerate((rows, columns)):
        yield Link(How.SAME, (k,), (own, *_pairs(third, k, 2)))


def _einsum(o: ShapedNode) -> Links:
    equation = o.node.attributes.get_string("equation", "")
    terms, result = spell_einsum(equation, [len(shape or ()) for shape in o.before])
    letters: dict[str, list[OperandAxis]] = {}
    for index, term in enumerate(terms):
        for axis, letter in enumerate(term):
            letters.setdefault(letter, []).append((index, axis))
    for letter, axes in letters.items():
        if letter not in result:
            yield Link(How.SUMMED, (), tuple(axes))
    for k, letter in enumerate(result):
        yield Link(How.SAME, (k,), tuple(letters.get(letter, ())))


def spell_einsum(equation: str, ranks: Sequence[int]) -> tuple[list[str], str]:
    """Terms and result of an equation; ellipses become digits, aligned from the right."""
    terms, arrow, result = equation.replace(" ", "").partition("->")
    spelled = terms.split(",")
    hidden = [r - len(t.replace("...", "")) for t, r in zip(spelled, ranks, strict=True)]
    dots = max(hidden, default=0)
    if not arrow:  # letters that occur once, in alphabetical order
        letters = terms.replace(",", "").replace(".", "")
        once = "".join(sorted(k for k in set(letters) if letters.count(k) == 1))
        result = ("..." if "..." in terms else "") + once
    return (
        [_spell(t, dots, h) for t, h in zip(spelled, hidden, strict=True)],
        _spell(result, dots, dots),
    )


def _spell(term: str, dots: int, hidden: int) -> str:
    return term.replace("...", "0123456789"[dots - hidden : dots])


def _convolved(o: ShapedNode) -> Links:
    yield Link(How.SUMMED, (), ((0, 1),))
    for link in _pooled(o):
        yield Link(How.NEW, (1,), ()) if link.results == (1,) else link


def _pooled(o: ShapedNode) -> Links:
    for k in range(len(o.first)):
        yield Link(How.SAME if k < 2 else How.POOLED, (k,), ((0, k),))


def _normalised(o: ShapedNode) -> Links:
    """Norms and, before opset 13, softmax run over ``axis`` and all later axes; else one axis."""
    rank, graph = len(o.first), o.node.graph
    opset = graph.opset_imports.get("", 0) if isinstance(graph, ir.Graph) else 0
    one = has(o.node, Trait.SOFTMAX)
    first = o.axis(1 if one and opset < 13 else -1)
    along = o.node.op_type == "LpNormalization" or (one and opset >= 13)
    over = range(first, first + 1 if along else rank)
    for k in range(rank):
        yield Link(How.NORMALISED if k in over else How.SAME, (k,), ((0, k),))


def _accumulated(o: ShapedNode) -> Links:
    axis, rank = o.known(o.operand(1)), len(o.first)
    along = range(rank) if axis is None else (int(axis.ravel()[0]) % rank,)
    for k in range(rank):
        yield Link(How.ACCUMULATED if k in along else How.SAME, (k,), ((0, k),))


def _recurrent(o: ShapedNode) -> Links:
    """Every step depends on other steps; samples are separate in the operand and the states."""
    steps = (0,) if len(o.after) == 4 else ()  # the last states have none
    states = [(k, 1) for k in (5, 6) if o.operand(k) is not None]
    yield Link(How.SUMMED, (), ((0, 2), *((k, axis) for k, _ in states for axis in (0, 2))))
    yield Link(How.NORMALISED if steps else How.SUMMED, steps, ((0, 0),))
    first = len(steps)
    yield Link(How.NEW, (first,), ())
    yield Link(How.SAME, (first + 1,), ((0, 1), *states))
    yield Link(How.NEW, (first + 2,), ())


def _chosen(o: ShapedNode) -> Links:
    """The largest or smallest entries along an axis."""
    along = o.axis(-1)
    for k in range(len(o.first)):
        yield Link(How.CHOSEN if k == along else How.SAME, (k,), ((0, k),))


_RULES: dict[AxisRule, Callable[[ShapedNode], Links | None]] = {
    AxisRule.ALIGNED: _aligned,
    AxisRule.LOOSE: _loose,
    AxisRule.RESHAPED: _reshaped,
    AxisRule.RANKED: _ranked,
    AxisRule.PERMUTED: _permuted,
    AxisRule.REPEATED: _repeated,
    AxisRule.CUT: _cut,
    AxisRule.JOINED: _joined,
    AxisRule.GATHERED: _gathered,
    AxisRule.GATHERED_ELEMENTS: _gathered_elements,
    AxisRule.GATHERED_ND: _gathered_nd,
    AxisRule.SCATTERED: _scattered,
    AxisRule.REDUCED: _reduced,
    AxisRule.MATRICES: _matrices,
    AxisRule.GEMM: _gemm,
    AxisRule.EINSUM: _einsum,
    AxisRule.CONVOLVED: _convolved,
    AxisRule.POOLED: _pooled,
    AxisRule.NORMALISED: _normalised,
    AxisRule.ACCUMULATED: _accumulated,
    AxisRule.RECURRENT: _recurrent,
    AxisRule.CHOSEN: _chosen,
}
