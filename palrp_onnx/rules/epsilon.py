"""ε-LRP: the set of rules ``epsilon``, the classical baseline with one stabiliser everywhere.

Every sum that an operation makes is stabilised, ``R_x = x w R_y / (y + ε sign y)`` (Bach et al.
2015, eq. 58): multipliers shrink by |y| / (|y| + ε), and the relevance that this takes, ε sign(y)
times the new multiplier, is entered under ``other``. A layer of two operations, product and bias,
has two stabilisers. In a product of two activations each takes half of the stabilised relevance.
Softmax is treated as an element-wise function, as in methods that have no rule for it. All other
operations, norms and activation functions among them, have the default rules.
"""

from __future__ import annotations

from palrp_onnx.rules import linear, products, reduction, sums
from palrp_onnx.rules.registry import Node, Rule, Shares, T, rule
from palrp_onnx.tensor.language import Language

SET = "epsilon"
_SUMS: dict[str, Rule] = {
    "Add": sums.add,
    "Conv": linear.convolution,
    "ConvTranspose": linear.transposed_convolution,
    "Einsum": products.einsum,
    "Gemm": linear.gemm,
    "MatMul": products.matmul,
    "Mean": sums.average,
    "ReduceMean": reduction.reduce_mean,
    "ReduceSum": reduction.reduce_sum,
    "Sub": sums.subtract,
    "Sum": sums.add,
}


def _stabilised(default: Rule) -> Rule:
    def stabilised(op: Language[T], node: Node[T], m: T) -> Shares[T]:
        """The default rule for m ∘ |y| / (|y| + ε); shapes as there.

        Source: ε-rule (Bach et al. 2015, eq. 58). Ledger: y ∘ m ∘ ε / (|y| + ε) under ``other``.
        """
        y, epsilon = node.output(), node.parameter("epsilon")
        taken = op.div(op.scale(m, epsilon), op.shift(op.absolute(y), epsilon))
        shares = default(op, node, op.sub(m, taken))
        if not isinstance(shares, Shares):
            shares = Shares(shares)
        return Shares(shares.inputs, {**shares.absorbed, "other": op.relevance(y, taken)})

    return stabilised


for _name, _default in _SUMS.items():
    rule(_name, under=SET)(_stabilised(_default))


@rule("Softmax", under=SET)
def softmax(op: Language[T], node: Node[T], m: T) -> Shares[T]:
    """R_x = R_s: m_x = m ∘ s / (x + ε sign x), with a positive sign at zero.

    Shapes: x, s and m have one shape. Source: identity rule (AttnLRP, eq. 9). Ledger: what the
    stabiliser takes, s ∘ m − x ∘ m_x, under ``softmax``.
    """
    x, s = node.input(0), node.guarded_output()
    signed = op.relevance(x, s)  # has the sign of x, and 0 where x is masked by −∞
    sign = op.ratio(signed, op.absolute(signed), 1.0)
    shrunk = op.div(op.mul(s, m), op.shift(op.absolute(x), node.parameter("epsilon")))
    sent = op.cast_like(op.mul(sign, shrunk), x)
    rest = op.sub(op.relevance(s, m), op.relevance(x, sent))
    return Shares((sent,), {"softmax": rest})
