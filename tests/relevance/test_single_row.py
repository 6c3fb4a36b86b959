"""A head that looks at one token: the walk carries one row, and the numbers stay the same."""

from __future__ import annotations

import numpy as np
import pytest
from building import Array, ints, opened, proto, real, walk

from palrp_onnx import Explainer
from palrp_onnx.inputs.sample import Sample
from palrp_onnx.record import InputFacts
from palrp_onnx.relevance import single_row as rows

WIDTH, HEADS = 8, 2
WEIGHTS = {
    **{name: real(WIDTH, WIDTH, seed=k) for k, name in enumerate("qkvo")},
    "up": real(WIDTH, 12, seed=5),
    "down": real(12, WIDTH, seed=6),
    "g": real(WIDTH, seed=7),
    "b": real(WIDTH, seed=8),
    "c": real(WIDTH, 3, seed=9),
    "p": real(1, 1, 6, 4, seed=10),
    "mask": np.triu(np.full((6, 6), -1e9, np.float32), 1),
    "split": ints(0, 0, HEADS, -1),
    "join": ints(0, 0, -1),
    "flat": ints(-1, WIDTH),
    "scale": np.float32(0.5),
    "last": np.int64(-1),
    "first": ints(0),
    "second": ints(1),
    "axis": ints(1),
    "six": np.int64(6),
    "zero": np.int64(0),
    "one": np.int64(1),
    "two": np.int64(2),
    "minus": ints(-1),
    "picked": np.array([[0, 4], [1, 2]]),
}
#: One layer of attention with a position in its queries, residuals, norms and a gated branch.
LAYER = """
n = LayerNormalization(x, g, b)
q0 = MatMul(n, q)  q1 = Reshape(q0, split)  q2 = Transpose<perm = [0, 2, 1, 3]>(q1)
k0 = MatMul(n, k)  k1 = Reshape(k0, split)  k2 = Transpose<perm = [0, 2, 3, 1]>(k1)
v0 = MatMul(n, v)  v1 = Reshape(v0, split)  v2 = Transpose<perm = [0, 2, 1, 3]>(v1)
qp = Mul(q2, p)  s0 = MatMul(qp, k2)  s1 = Mul(s0, scale)  s2 = Add(s1, mask)
a = Softmax<axis = -1>(s2)  h0 = MatMul(a, v2)  h1 = Transpose<perm = [0, 2, 1, 3]>(h0)
h2 = Reshape(h1, join)  h3 = MatMul(h2, o)  h = Add(h3, x)
f0 = Reshape(h, flat)  f1 = Gemm(f0, up)  f2 = Relu(f1)  f3 = Gemm(f2, down)
shape = Shape(h)  f4 = Reshape(f3, shape)  y0 = Add(f4, h)  t = LayerNormalization(y0, g, b)
"""
HEADS_OF = {
    "scalar": "u = Gather<axis = 1>(t, last)  y = MatMul(u, c)",
    "one": "u = Gather<axis = 1>(t, second)  w = Squeeze(u, axis)  y = MatMul(w, c)",
    "slice": "u = Slice(t, first, second, axis)  w = Squeeze(u, axis)  y = MatMul(w, c)",
    "coordinates": "l = MatMul(t, c)  y = GatherND(l, picked)",
    "flattened": """l = MatMul(t, c)  m = Flatten<axis = 2>(l)  d = Shape(x)
        e = Gather(d, zero)  r = Range(zero, e, one)  s = Mul(r, six)  i = Add(s, two)
        y = Gather(m, i)""",
    "two rows": """u = Gather<axis = 1>(t, last)  w = Gather<axis = 1>(t, one)
        z = Add(u, w)  y = MatMul(z, c)""",
    "language model": "y = MatMul(t, c)",
}


def sample(x: Array) -> Sample:
    return Sample("x", "tensors", {"x": x}, InputFacts(kind="tensors", truncated=False))


@pytest.mark.parametrize("head", HEADS_OF)
def test_rows_alone_give_the_same_numbers(head: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x = real(2, 6, WIDTH, seed=3)
    model = opened(proto(LAYER + HEADS_OF[head], {"x": x}, WEIGHTS))
    compiled = Explainer(model, engine="onnxruntime").explain(sample(x))
    visits = count_rows(monkeypatch)
    sparse = walk(model, {"x": x}, dtype="float64")
    assert (len(visits) > 5) == (head not in ("language model", "two rows"))
    assert sparse.residual < 1e-12
    by_rows = Explainer(model, engine="numpy", dtype="float64").explain(sample(x))
    monkeypatch.setattr(rows, "_PICKS", {})
    dense = walk(model, {"x": x}, dtype="float64")
    np.testing.assert_allclose(sparse.content, dense.content, atol=1e-12)
    for ours, reference in zip(sparse.result.sinks, dense.result.sinks, strict=True):
        np.testing.assert_allclose(ours.relevance, reference.relevance, atol=1e-12)
    for entry, amount in dense.result.ledger.items():
        np.testing.assert_allclose(sparse.result.ledger[entry], amount, atol=1e-12)
    for ours, reference in zip(compiled, by_rows, strict=True):
        total = np.array(reference.record.relevance.total)
        np.testing.assert_allclose(
            ours.record.relevance.total, total, atol=1e-5 * np.abs(total).max()
        )


def count_rows(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Operations whose rule saw rows alone, from now on."""
    seen: list[str] = []
    made = rows.RowView.__init__

    def counted(self: rows.RowView[Array], *args: object) -> None:
        made(self, *args)  # type: ignore[arg-type]
        seen.append(self.op_type)

    monkeypatch.setattr(rows.RowView, "__init__", counted)
    return seen


def test_the_last_layer_is_visited_by_rows_up_to_its_attention(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x = real(2, 6, WIDTH, seed=3)
    model = opened(proto(LAYER + HEADS_OF["scalar"], {"x": x}, WEIGHTS))
    visits = count_rows(monkeypatch)
    walk(model, {"x": x})
    # Two walks, the first of which only records; in each the feed-forward block, and the output
    # projection, probabilities · values, scores and queries.
    assert visits.count("Gemm") == 2 * 2
    assert visits.count("MatMul") == 2 * 4
    assert visits.count("Softmax") == 2
