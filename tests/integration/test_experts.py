"""A mixture of experts in several notations, derived again token by token."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from building import Array, ints, opened, proto, real, wide
from onnx import helper

from palrp_onnx import Explainer, Model
from palrp_onnx.analysis.layout import sources
from palrp_onnx.describe import Explanation
from palrp_onnx.inputs.sample import Sample
from palrp_onnx.prepare import analyse_model
from palrp_onnx.record import InputFacts

F, H, E, K, C = 4, 5, 3, 2, 3
X = real(3, 6, F, seed=21)
WEIGHTS = {
    "router": real(F, E, seed=1),
    "into": real(E, F, H, seed=2),
    "inner": real(E, H, seed=3),
    "out": real(E, H, F, seed=4),
    "outer": real(E, F, seed=5),
    "head": real(F, C, seed=6),
}
CONSTANTS = {
    "rows": ints(-1, F),
    "k": ints(K),
    "last": ints(-1),
    "first": ints(0),
    "one": ints(1),
    "depth": np.array(E),
    "onoff": ints(0, 1),
    "halves": ints(1, 1),
}
ROUTING = """h = Reshape(x, rows)  l = MatMul(h, router)  p = Softmax <axis=-1> (l)
    v, i = TopK <axis=-1> (p, k)  s = ReduceSum <keepdims=1> (v, last)  w = Div(v, s)
    dims = Shape(h)  zeros = ConstantOfShape(dims)
    hot = OneHot <axis=-1> (i, depth, onoff)  turned = Transpose <perm=[2, 1, 0]> (hot)"""
EXPERT = """hot{e} = Gather(turned, e{e})  found{e} = NonZero(hot{e})
    slot{e}, top{e} = Split <axis=0> (found{e}, halves)
    token{e} = Squeeze(top{e}, first)  rows{e} = Gather(h, token{e})
    into{e} = Gather(into, e{e})  inner{e} = Gather(inner, e{e})  out{e} = Gather(out, e{e})
    outer{e} = Gather(outer, e{e})
    a{e} = MatMul(rows{e}, into{e})  b{e} = Add(a{e}, inner{e})  c{e} = Relu(b{e})
    d{e} = MatMul(c{e}, out{e})  f{e} = Add(d{e}, outer{e})
    pair{e} = Concat <axis=0> (top{e}, slot{e})  tuple{e} = Transpose(pair{e})
    own{e} = GatherND(w, tuple{e})  column{e} = Unsqueeze(own{e}, last)
    g{e} = Mul(f{e}, column{e})"""
#: How the rows of an expert are added to those before, ``z``, and become ``y``.
ADDED = {
    "tuples": """u{e} = Unsqueeze(token{e}, last)
        {y} = ScatterND <reduction="add"> ({z}, u{e}, g{e})""",
    "elements": """u{e} = Unsqueeze(token{e}, last)  n{e} = Shape(g{e})
        wide{e} = Expand(u{e}, n{e})
        {y} = ScatterElements <axis=0, reduction="add"> ({z}, wide{e}, g{e})""",
    "a sum": """u{e} = Unsqueeze(token{e}, last)  t{e} = ScatterND(zeros, u{e}, g{e})
        {y} = Add({z}, t{e})""",
}
DENSE = """none = ConstantOfShape(many)  n = Shape(l)  blank = Expand(none, n)
    gates = ScatterElements <axis=1> (blank, i, w)
    one_h = Unsqueeze(h, first)  a = MatMul(one_h, into)  inner1 = Unsqueeze(inner, one)
    b = Add(a, inner1)  c = Relu(b)  d = MatMul(c, out)  outer1 = Unsqueeze(outer, one)
    f = Add(d, outer1)  t = Transpose(gates)  column = Unsqueeze(t, last)  g = Mul(f, column)
    z = ReduceSum <keepdims=0> (g, first)"""
TAIL = """shape = Shape(x)  moe = Reshape(z, shape)  sum = Add(x, moe)
    mean = ReduceMean <keepdims=0> (sum, one)  y = MatMul(mean, head)"""
FUSED = """h = Reshape(x, rows)  l = MatMul(h, router)
    z = com.microsoft.MoE <k=2, normalize_routing_weights=1, activation_type="relu"> (
        x, l, into_t, inner, out_t, outer)"""
NOTATIONS = [*ADDED, "dense", "fused"]


def model_of(notation: str) -> Model:
    if notation == "dense":
        body = f"{ROUTING} {DENSE} {TAIL}"
        named = {**CONSTANTS, "many": ints(1, 1)}
    elif notation == "fused":
        body = f"{FUSED} {TAIL}"
        turned = {f"{k}_t": WEIGHTS[k].swapaxes(1, 2).copy() for k in ("into", "out")}
        named = {**{k: CONSTANTS[k] for k in ("rows", "one")}, **turned}
    else:
        before = ["zeros", *(f"z{e}" for e in range(E - 1))]
        after = [*before[1:], "z"]
        experts = " ".join(
            EXPERT.format(e=e) + " " + ADDED[notation].format(e=e, y=after[e], z=before[e])
            for e in range(E)
        )
        body = f"{ROUTING} {experts} {TAIL}"
        named = {**CONSTANTS, **{f"e{e}": np.array(e) for e in range(E)}}
    model = proto(body, {"x": X}, {**WEIGHTS, **named}, free=(0, 1))
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return opened(model)


@dataclass
class Derived:
    """Relevance of tokens [T], and of ledger entries."""

    content: Array
    bias: float = 0.0
    softmax: float = 0.0


def derived(x: Array, target: int) -> Derived:
    """One sample, token by token, in float64: half of a product to each factor."""
    w = {name: wide(array) for name, array in WEIGHTS.items()}
    m = w["head"][:, target] / len(x)
    found = Derived(wide(x) @ m)
    for t, token in enumerate(wide(x)):
        scores = np.exp(token @ w["router"])
        p = scores / scores.sum()
        chosen = np.argsort(-p)[:K]
        total = p[chosen].sum()
        sent = np.zeros(E)  # multipliers of the probabilities
        for e in chosen:
            hidden = np.maximum(token @ w["into"][e] + w["inner"][e], 0)
            result = hidden @ w["out"][e] + w["outer"][e]
            sent[e] = 0.5 * (m @ result) / total
            share = 0.5 * m * p[e] / total
            found.bias += share @ w["outer"][e]
            back = (w["out"][e] @ share) * (hidden > 0)
            found.bias += back @ w["inner"][e]
            found.content[t] += token @ (w["into"][e] @ back)
        scored = p * (sent - p @ sent)
        found.softmax += p @ sent - scored @ (token @ w["router"])
        found.content[t] += scored @ (token @ w["router"])
    return found


def explained(model: Model, x: Array, **options: str) -> list[Explanation]:
    sample = Sample("x", "tensors", {"x": x}, InputFacts(kind="tensors", truncated=False))
    return Explainer(model.path, **options).explain(sample, "1")


ENGINES = [("onnxruntime", "float32"), ("numpy", "float32"), ("numpy", "float64")]


@pytest.mark.parametrize("notation", NOTATIONS)
@pytest.mark.parametrize(("engine", "dtype"), ENGINES)
def test_tokens_get_what_their_experts_and_their_router_send(
    notation: str, engine: str, dtype: str
) -> None:
    exact = dtype == "float64"
    found = explained(model_of(notation), X, engine=engine, dtype=dtype)
    for each, x in zip(found, X, strict=True):
        expected, ledger = derived(x, 1), each.record.ledger
        close = {"rtol": 1e-9, "atol": 1e-12} if exact else {"rtol": 1e-3, "atol": 1e-5}
        np.testing.assert_allclose(each.record.relevance.content, expected.content, **close)
        np.testing.assert_allclose(ledger["bias"], expected.bias, **close)
        np.testing.assert_allclose(ledger["softmax"], expected.softmax, **close)
        assert abs(ledger["residual_relative"]) < (1e-12 if exact else 1e-5)


@pytest.mark.parametrize("notation", NOTATIONS)
def test_an_expert_without_tokens_and_a_sample_alone(notation: str) -> None:
    """A single token leaves one expert without rows."""
    for x in (X[:1, :1], X[1:2]):
        (found,) = explained(model_of(notation), x)
        expected = derived(x[0], 1)
        np.testing.assert_allclose(found.record.relevance.content, expected.content, atol=1e-5)
        np.testing.assert_allclose(found.record.ledger["bias"], expected.bias, atol=1e-5)


@pytest.mark.parametrize("notation", NOTATIONS)
def test_rows_that_are_put_back_run_along_the_tokens_again(notation: str) -> None:
    analysis = analyse_model(model_of(notation))
    layouts = {v.name: layout for v, layout in analysis.layouts.layouts.items()}
    assert [sources(axis) for axis in layouts["sum"]] == [{("x", 0)}, {("x", 1)}, frozenset()]


def test_rows_that_are_put_elsewhere_have_unknown_places() -> None:
    body = """h = Reshape(x, rows)  l = MatMul(h, router)  i = ArgMax <axis=1, keepdims=0> (l)
        q = Equal(i, zero)  n = NonZero(q)  token = Squeeze(n, first)  r = Gather(h, token)
        other = Mul(token, half)  u = Unsqueeze(other, last)  dims = Shape(h)
        zeros = ConstantOfShape(dims)  z = ScatterND <reduction="add"> (zeros, u, r)
        shape = Shape(x)  moe = Reshape(z, shape)  y = ReduceMean <keepdims=0> (moe, one)"""
    weights = {"rows": CONSTANTS["rows"], "router": WEIGHTS["router"], "one": ints(1)}
    more = {"zero": np.array(0), "half": np.array(0), "first": ints(0), "last": ints(-1)}
    model = opened(proto(body, {"x": X}, {**weights, **more}, free=(0, 1)))
    analysis = analyse_model(model)
    layouts = {v.name: layout for v, layout in analysis.layouts.layouts.items()}
    assert not any(sources(axis) for axis in layouts["moe"][1:])
    assert analysis.layouts.ragged


UNPADDED = """q = Cast <to=9> (mask)  n = NonZero(q)  i = Transpose(n)  r = GatherND(x, i)
    a = MatMul(r, weight)  b = Add(a, offset)  c = Relu(b)
    dims = Shape(x)  zeros = ConstantOfShape(dims)  z = ScatterND(zeros, i, c)
    sum = Add(x, z)  mean = ReduceMean <keepdims=0> (sum, one)  y = MatMul(mean, head)"""


def test_tokens_that_a_mask_keeps_have_their_places_again() -> None:
    """Samples keep different numbers of tokens; biases belong to the sample that they are added in.

    Where nothing is kept, nothing but the token itself is passed.
    """
    weight, offset = real(F, F, seed=31), real(F, seed=32)
    weights = {"weight": weight, "offset": offset, "one": ints(1), "head": WEIGHTS["head"]}
    mask = ints([1, 1, 0, 1, 0, 1], [1, 0, 0, 0, 0, 0], [0, 1, 1, 1, 1, 1])
    model = opened(proto(UNPADDED, {"x": X, "mask": mask}, weights, free=(0, 1)))
    facts = InputFacts(kind="tensors", truncated=False)
    sample = Sample("x", "tensors", {"x": X, "mask": mask}, facts)
    layouts = analyse_model(model).layouts.layouts
    (summed,) = [layout for value, layout in layouts.items() if value.name == "sum"]
    assert [sources(axis) for axis in summed] == [{("x", 0)}, {("x", 1)}, frozenset()]
    found = Explainer(model.path, dtype="float64").explain(sample, "1")
    for each, x, kept in zip(found, X, mask, strict=True):
        m = wide(WEIGHTS["head"])[:, 1] / len(x)
        opened_gates = (wide(x) @ weight + offset > 0) * kept[:, None]
        content = wide(x) @ m + (wide(x) @ weight * opened_gates) @ m
        np.testing.assert_allclose(each.record.relevance.content, content, rtol=1e-9)
        bias = float((opened_gates * offset @ m).sum())
        np.testing.assert_allclose(each.record.ledger["bias"], bias, rtol=1e-6)
