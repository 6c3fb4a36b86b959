"""Where positions enter: one site for every operand that carries them.

A table that is *added* to activations along the token axis is learned or sinusoidal. A table whose
columns are sinusoids of the position and that *multiplies* activations is a rotation (RoPE); at
position 0 its cosine is one and its sine zero. An operand that is added to attention scores, along
queries and keys, is a relative bias. A convolution that is added to its own input is a position as
a whole, where nothing else carries positions.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from palrp_onnx.analysis.analysis import Analysis, Operand
from palrp_onnx.analysis.arrays import MASKED, varying_axes
from palrp_onnx.analysis.axes import BATCH, TOKEN
from palrp_onnx.analysis.layout import Axes, Layout
from palrp_onnx.analysis.masking import CARRYING
from palrp_onnx.analysis.roles import Role
from palrp_onnx.analysis.rotating_tables import PADDED, turns
from palrp_onnx.analysis.sources import factor_axes
from palrp_onnx.model.follow import Reaching, uses_of
from palrp_onnx.model.ops import ELEMENTWISE, Trait, has
from palrp_onnx.types import Array

_TOLERANCE = 1e-3


@dataclass(frozen=True)
class SinkSite:
    """One operand through which positions enter.

    Attributes:
        operand: The operand (node, index) that carries positions.
        value: The value that carries the positions.
        kind: ``learned``, ``sinusoidal``, ``rope``, ``alibi``, ``relative_bias``,
            ``disentangled``, ``multiplicative`` or ``convolution``.
        layer: Number of attention layers before it; 0 at the input.
        part: ``table``, ``cos``, ``sin``, ``bias``, ``factor`` or ``branch``.
        axes: Flags of the axes of the content value that it is combined with.
        tokens: Token axes (of that value, from the right) that its relevance runs along.
        varying: Those of them along which the operand itself varies.
        features: Further axes (from the right) along which the operand varies.
        shape: Lengths of these axes in the trial run.
        along: The content value, or the sum that a product of the operand is a term of.
        layout: Its layout.
        evidence: Reason for the kind.
    """

    operand: Operand
    value: ir.Value
    kind: str
    layer: int
    part: str
    axes: Axes
    tokens: tuple[int, ...]
    varying: tuple[int, ...]
    features: tuple[int, ...]
    shape: tuple[int, ...]
    along: ir.Value
    layout: Layout
    evidence: str

    @property
    def name(self) -> str:
        """``LAYER/PART``, the key of raw arrays."""
        return f"{self.layer}/{self.part}"

    def runs(self, tokens: Iterable[int]) -> Layout:
        """Layouts of some of the axes, which distinguish sites of equal shape in two towers."""
        return tuple(self.layout[axis] for axis in tokens)

    @property
    def pairwise(self) -> bool:
        """Whether its entries belong to pairs of a query and a key, which share them."""
        return self.kind in ("alibi", "relative_bias", "disentangled") and _scores(self.axes)


def find_sites(analysis: Analysis) -> tuple[SinkSite, ...]:
    """Every site of positions, in graph order."""
    ends, products = (
        Reaching(_is_term_of_scores),
        Reaching(lambda value: _products_before(analysis, value)),
    )
    return tuple(
        _site(analysis, operand, ends, products)
        for operand, fact in analysis.operands.items()
        if fact.role is Role.POSITION
    )


def _site(
    analysis: Analysis, operand: Operand, is_term: Reaching, is_product: Reaching
) -> SinkSite:
    node, index = operand
    value = node.inputs[index]
    assert value is not None
    axes_of = analysis.axes_of[operand]
    if has(node, Trait.PRODUCT):
        return _factor_site(analysis, node, index, value, is_term(node.outputs[0]))
    flags = analysis.axes[axes_of]
    if value in analysis.content:
        return _branch_site(analysis, operand, value, axes_of)
    array = values_of(analysis, value)
    tokens = varying_axes(array, flags)
    features = tuple(
        axis
        for axis in range(-array.ndim, 0)
        if array.shape[axis] > 1 and not flags[axis] & (BATCH | TOKEN)
    )
    biased = _scores(flags) and is_product(axes_of)
    kind, part, evidence = _kind(node, array, tokens, biased)
    if part == "factor" and _rotates(analysis, operand, array):
        kind, part = "rope", _rotation_part(node, index, array, tokens)
        evidence = "its squares and those of its partner in the sum add up to one number"
    shape, varying = analysis.shapes[axes_of], tokens
    if not biased:  # a table of rows, or of columns, belongs to every place of its grid
        tokens = tuple(a for a in range(-len(flags), 0) if flags[a] & TOKEN and shape[a] > 1)
    return SinkSite(
        operand=operand,
        value=value,
        kind=kind,
        layer=analysis.depth[axes_of],
        part=part,
        axes=flags,
        tokens=tokens,
        varying=varying,
        features=features,
        shape=(*(shape[a] for a in tokens), *(array.shape[a] for a in features)),
        along=axes_of,
        layout=analysis.layouts.layouts[axes_of],
        evidence=evidence,
    )


def _branch_site(
    analysis: Analysis, operand: Operand, value: ir.Value, axes_of: ir.Value
) -> SinkSite:
    """A branch of content that is a position as a whole, with all of its tokens and features."""
    flags, shape = analysis.axes[axes_of], analysis.shapes[axes_of]
    tokens = tuple(a for a in range(-len(flags), 0) if flags[a] & TOKEN)
    features = tuple(
        a for a in range(-len(flags), 0) if shape[a] > 1 and not flags[a] & (BATCH | TOKEN)
    )
    return SinkSite(
        operand=operand,
        value=value,
        kind="convolution",
        layer=analysis.depth[axes_of],
        part="branch",
        axes=flags,
        tokens=tokens,
        varying=tokens,
        features=features,
        shape=tuple(shape[axis] for axis in (*tokens, *features)),
        along=axes_of,
        layout=analysis.layouts.layouts[axes_of],
        evidence=analysis.operands[operand].reason,
    )


def _rotates(analysis: Analysis, operand: Operand, array: Array) -> bool:
    """Whether x ∘ c is added to x' ∘ s, with c² + s² the same for every token: a rotation."""
    for total, index in operand[0].outputs[0].uses():
        if not has(total, Trait.SUM) or len(total.inputs) != 2:
            continue
        other = total.inputs[1 - index]
        product = other.producer() if other is not None else None
        if product is None or product.op_type != "Mul":
            continue
        for k, value in enumerate(product.inputs):
            fact = analysis.operands.get((product, k))
            if value is None or fact is None or fact.role is not Role.POSITION:
                continue
            partner = values_of(analysis, value)
            if partner.shape == array.shape:
                square = array.astype(np.float64) ** 2 + partner.astype(np.float64) ** 2
                return bool(np.ptp(square) <= _ROUNDED * square.max())
    return False


#: Tables of rotations may be stored in bfloat16 or in eight bits.
_ROUNDED = 0.02


def _rotation_part(node: ir.Node, index: int, array: Array, tokens: tuple[int, ...]) -> str:
    """``cos`` or ``sin``: by the first token if it is not rotated, else by :func:`_exchanged`."""
    first = np.abs(np.take(array, 0, axis=tokens[0]))
    if first.max() < _ROUNDED or np.ptp(first) < _ROUNDED:
        return "sin" if first.max() < _ROUNDED else "cos"
    return "sin" if _exchanged(node, index) else "cos"


def _exchanged(node: ir.Node, index: int) -> bool:
    """Whether the other factor is the activation with the features of each plane exchanged."""
    queue = [node.inputs[1 - index]]
    for _ in range(_NEARBY):
        value = queue.pop(0) if queue else None
        maker = value.producer() if value is not None else None
        if maker is None:
            continue
        if maker.op_type == "Neg":
            return True
        if has(maker, _EXCHANGING) or maker.op_type == "Mul":
            queue.extend(maker.inputs)
    return False


#: Number of values to search for a negation.
_NEARBY = 12
#: Operations that exchange features.
_EXCHANGING = Trait.JOIN | Trait.RESHAPE | Trait.RANK | Trait.RETYPES


def _factor_site(
    analysis: Analysis, node: ir.Node, index: int, value: ir.Value, scores: bool
) -> SinkSite:
    """A table that is a factor of a matrix product; its relevance has the axes of the product."""
    product = node.outputs[0]
    total = _sum_of_term(analysis, product)
    shape, flags = analysis.shapes[product], _union(analysis.axes[product], analysis.axes[total])
    tokens = tuple(a for a in range(-len(flags), 0) if flags[a] & TOKEN)
    own = factor_axes(node, index, analysis.shapes)
    features = tuple(
        a for a in own if own[a] is not None and shape[a] > 1 and not flags[a] & (BATCH | TOKEN)
    )
    return SinkSite(
        operand=(node, index),
        value=value,
        kind="disentangled" if scores else "multiplicative",
        layer=analysis.depth[product],
        part="bias" if scores else "factor",
        axes=flags,
        tokens=tokens,
        varying=tokens,
        features=() if scores else features,
        shape=tuple(shape[a] for a in (*tokens, *(() if scores else features))),
        along=total,
        layout=analysis.layouts.layouts[total],
        evidence=analysis.operands[node, index].reason,
    )


def _is_term_of_scores(value: ir.Value) -> bool | list[ir.Value]:
    """Whether a softmax reads a value; else the values to continue the search from."""
    users = dict.fromkeys(use.node for use in value.uses())
    if any(node.op_type == "Softmax" for node in users):
        return True
    return [v for n in users if has(n, CARRYING) for v in n.outputs]


def _sum_of_term(analysis: Analysis, value: ir.Value) -> ir.Value:
    """The sum of which a product is a term, or the product itself."""
    rank = len(analysis.axes[value])

    def onward(node: ir.Node, _: int) -> Iterable[ir.Value]:
        return node.outputs if has(node, Trait.SCALE | Trait.RETYPES) else ()

    for node, _ in uses_of([value], onward):
        total = node.outputs[0]
        if has(node, Trait.SUM) and len(analysis.axes.get(total, ())) == rank:
            return total
    return value


def _union(first: Axes, second: Axes) -> Axes:
    return tuple(a | b for a, b in zip(first, second, strict=True))


def values_of(analysis: Analysis, value: ir.Value) -> Array:
    """Entries of a value without content, in the trial run."""
    found = analysis.entries(value)
    assert found is not None
    return found


def _kind(
    node: ir.Node, array: Array, tokens: tuple[int, ...], scores: bool
) -> tuple[str, str, str]:
    """(kind, part, evidence) of one operand."""
    if scores:
        if climbs(array):
            return "alibi", "bias", f"{node.op_type} to attention scores, in equal steps along keys"
        return "relative_bias", "bias", f"{node.op_type} to attention scores"
    table = np.moveaxis(array, tokens[0], 0).reshape(array.shape[tokens[0]], -1)
    turning = turns(table)
    if has(node, Trait.SCALE):
        if not turning:
            return "multiplicative", "factor", "multiplies activations along the token axis"
        part = "sin" if np.abs(table[0]).max() < _TOLERANCE else "cos"
        return "rope", part, "columns turn with the position and multiply activations"
    if turning:
        return "sinusoidal", "table", "columns turn with the position and are added to activations"
    return "learned", "table", "rows differ from token to token and are added to activations"


def _scores(flags: Axes) -> bool:
    """Whether the last two axes both run over tokens: queries × keys."""
    return len(flags) >= 3 and bool(flags[-1] & TOKEN and flags[-2] & TOKEN)


#: Operations between a product and the scores that follow from it.
_REARRANGED = ELEMENTWISE | Trait.RESHAPE | Trait.RANK | Trait.PERMUTE


def _products_before(analysis: Analysis, value: ir.Value) -> bool | list[ir.Value]:
    """Whether a value is a matrix product of two content values; else the values to search on from.

    Scores come from such a product; a feature map, whose last two axes run over tokens too, does
    not.
    """
    node = value.producer()
    inputs = [v for v in node.inputs if v in analysis.content] if node is not None else []
    if node is not None and has(node, Trait.PRODUCT | Trait.LAYER):
        return len(inputs) > 1
    passes = node is not None and has(node, _REARRANGED)
    return [v for v in inputs if v is not None] if passes else False


def climbs(bias: Array) -> bool:
    """Whether a bias [.., keys] rises or falls in equal steps along the keys (ALiBi).

    Entries that are switched off do not count.
    """
    keys = bias[..., :-PADDED] if bias.shape[-1] > PADDED + 3 else bias
    visible = np.where(keys < MASKED, np.nan, keys.astype(np.float64))
    steps = np.ma.masked_invalid(np.abs(np.diff(visible, axis=-1)))  # |i − j| turns at i = j
    if not steps.size or steps.count(axis=-1).max() < 2:
        return False
    return bool(steps.max() > 0 and np.ma.ptp(steps, axis=-1).max() <= _TOLERANCE * steps.max())
