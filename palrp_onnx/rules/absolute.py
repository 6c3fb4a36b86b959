"""absLRP (Vukadin et al. 2024): the set of rules ``absolute``.

Positive contributions count alone, in relation to the magnitude of the output. An output near zero,
of large contributions that cancel, thus passes on more than it has; therefore each operation is
scaled, sample by sample, to the relevance that it got. Each of two activations in a sum or a
product takes half.

From positive relevance these rules make positive relevance with the same sum. Other operations keep
their default rules, and the softmax its share. The scale makes the rules non-linear in the seed.
"""

from __future__ import annotations

from collections.abc import Sequence

from palrp_onnx.rules import products, signed, sums
from palrp_onnx.rules.registry import Node, Rule, Shares, T, rule
from palrp_onnx.tensor.language import Language

SET = "absolute"


def _layer(op: Language[T], node: Node[T], layer: signed.WeightedLayer[T], m: T) -> Shares[T]:
    """R_x = κ Σ (w x)⁺ R_y / |y|, with κ so that Σ |R_x| = Σ |R_y| in every sample.

    The bias is part of y, and receives nothing. Shapes: as in the default rule of the layer.
    Source: absLRP (Vukadin et al. 2024). Ledger: Σ R_y − Σ R_x under ``other``; under ``bias``
    −b ∘ m where a following ``Add`` entered b ∘ m.
    """
    relevance = op.mul(m, layer.y)
    found = signed.of_positive(op, layer, op.ratio(relevance, op.absolute(layer.y), 0.0))
    sent = _scaled(op, node, relevance, layer.x, found)
    absorbed = {"other": _lost(op, node, relevance, [(layer.x, sent)])}
    if layer.added_bias is not None:
        absorbed["bias"] = op.scale(op.mul(m, layer.added_bias), -1.0)
    return layer.shares(op, m, sent, absorbed)


def _scaled(op: Language[T], node: Node[T], relevance: T, x: T, m: T, share: float = 1.0) -> T:
    """κ m with Σ |x ∘ κ m| = ``share`` · Σ |R|, sample by sample."""
    axes = _within_samples(node)
    arrived, sent = (op.sum(op.absolute(each), axes) for each in (relevance, op.relevance(x, m)))
    return op.mul(m, op.cast_like(op.scale(op.ratio(arrived, sent, 0.0), share), m))


def _lost(op: Language[T], node: Node[T], relevance: T, parts: Sequence[tuple[T, T]]) -> T:
    """Σ R − Σ x ∘ m over all parts, one number for every sample."""
    axes = _within_samples(node)
    left = op.sum(relevance, axes)
    for x, m in parts:
        left = op.sub(left, op.sum(op.relevance(x, m), axes))
    return left


def _within_samples(node: Node[T]) -> list[int]:
    """All axes but that of samples, counted from the right; the same for operands and result."""
    rank = max(node.rank(0), node.rank(1))
    return [axis for axis in range(-rank, 0) if axis != node.batch_axis()]


@rule("Add", under=SET)
def add(op: Language[T], node: Node[T], m: T) -> Sequence[T | None] | Shares[T]:
    """R_a = κ_a a⁺ R / |y| with Σ |R_a| = ½ Σ |R| in every sample, likewise R_b.

    Shapes: a, b and m have one shape; else the default rule. Source: absLRP (Vukadin et al. 2024).
    Ledger: Σ R − Σ R_a − Σ R_b under ``other``.
    """
    if not (node.active(0) and node.active(1) and node.rank(0) == node.rank(1)):
        return sums.add(op, node, m)
    relevance = op.mul(m, node.output())
    s = op.ratio(relevance, op.absolute(node.output()), 0.0)
    operands = node.input(0), node.input(1)
    return _halves(op, node, relevance, [(x, op.gated(s, x)) for x in operands])


def _product(op: Language[T], node: Node[T], m: T) -> Shares[T]:
    """A B of two activations: each is a layer with the other as weights, and takes half.

    Shapes: A [.., I, K], B [.., K, J], m [.., I, J]. Source: absLRP (Vukadin et al. 2024). Ledger:
    Σ R − Σ R_A − Σ R_B under ``other``.
    """
    relevance = op.mul(m, node.output())
    s = op.ratio(relevance, op.absolute(node.output()), 0.0)
    sides = signed.sides(op, node)
    return _halves(
        op, node, relevance, [(each.x, signed.of_positive(op, each, s)) for each in sides]
    )


def _halves(
    op: Language[T], node: Node[T], relevance: T, parts: Sequence[tuple[T, T]]
) -> Shares[T]:
    """Each operand with its multiplier, scaled to half of the relevance."""
    sent = [_scaled(op, node, relevance, x, m, 0.5) for x, m in parts]
    taken = [(x, m) for (x, _), m in zip(parts, sent, strict=True)]
    return Shares(sent, {"other": _lost(op, node, relevance, taken)})


def _register(op_type: str, read: signed.Reader, default: Rule) -> None:
    @rule(op_type, under=SET)
    def absolute(op: Language[T], node: Node[T], m: T) -> Sequence[T | None] | Shares[T]:
        """:func:`_layer` for layers with weights, :func:`_product` for products of activations."""
        layer = read(op, node)
        if layer is not None:
            return _layer(op, node, layer, m)
        if default is products.matmul and node.active(0) and node.active(1):
            if node.rank(0) != node.rank(1):
                raise NotImplementedError("a product of activations of different ranks")
            return _product(op, node, m)
        return default(op, node, m)


for _op_type, (_read, _default, _) in signed.LAYERS.items():
    _register(_op_type, _read, _default)
