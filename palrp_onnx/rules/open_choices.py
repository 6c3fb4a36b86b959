"""The free choices of PA-LRP as numbers of the method: the set of rules ``open``.

With the numbers' defaults every rule is the usual one. Which share of a product a factor receives
is read from the node (``scores``, ``gate`` and ``rotation`` of the method). Layers with weights
have the γ-rule, with a γ of their own next to attention, and ``bias`` says how much of its own
relevance a bias keeps.
"""

from __future__ import annotations

from collections.abc import Sequence

from palrp_onnx.rules import products, signed
from palrp_onnx.rules.registry import Node, Rule, Shares, T, rule
from palrp_onnx.tensor.language import Language

SET = "open"


def _shared(default: Rule) -> Rule:
    def product(op: Language[T], node: Node[T], m: T) -> Sequence[T | None] | Shares[T]:
        """m_a = λ m ∂y/∂a, m_b = (1 − λ) m ∂y/∂b for two activations; else the default rule.

        Shapes: as in the default rule. Source: uniform rule (AttnLRP, prop. 3.2 and 3.3) for λ = ½.
        Ledger: nothing.
        """
        shares, first = default(op, node, m), node.first_share()
        if first == 0.5 or isinstance(shares, Shares) or len(shares) != 2:
            return shares
        left, right = shares
        if left is None or right is None:
            return shares
        return op.scale(left, 2.0 * first), op.scale(right, 2.0 * (1.0 - first))

    return product


rule("Mul", under=SET)(_shared(products.multiply))
rule("Einsum", under=SET)(_shared(products.einsum))


def _register(op_type: str, read: signed.Reader, default: Rule, parameter: str) -> None:
    product = _shared(default)

    @rule(op_type, under=SET)
    def layer(op: Language[T], node: Node[T], m: T) -> Sequence[T | None] | Shares[T]:
        """:func:`palrp_onnx.rules.signed.gamma_rule` for layers with weights, else shares."""
        gamma = node.parameter("gamma_attention" if node.next_to_attention() else parameter)
        kept = node.parameter("bias")
        found = read(op, node) if gamma > 0.0 or kept < 1.0 else None
        if found is None:
            return product(op, node, m)
        return signed.gamma_rule(op, found, m, gamma, kept)


for _op_type, _entry in signed.LAYERS.items():
    _register(_op_type, *_entry)
