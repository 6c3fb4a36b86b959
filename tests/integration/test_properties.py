"""Laws that hold for every model: tried on graphs put together at random."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np
import onnx
import pytest
from building import Array, Walk, again, floats, ints, opened, proto, real, walk
from hypothesis import given, settings
from hypothesis import strategies as st

B, T, F = 2, 3, 4
WEIGHTS = {
    "w": real(F, F, seed=20),
    "w2": real(F, F, seed=21),
    "wide_w": real(F, 2 * F, seed=22),
    "bias": real(F, seed=23),
    "gamma": real(F, seed=24),
    "beta": real(F, seed=25),
    "half": floats(0.5),
    "one": floats(1.0),
    "mid": ints(1),
    "last": ints(-1),
    "i0": ints(0),
    "i2": ints(2),
    "i4": ints(4),
    "heads": ints(0, 0, 2, 2),
    "joined": ints(0, 0, 4),
    "turned": ints(-1),
}
TABLE = {"table": real(T, F, seed=26)}

#: Layers [B, T, F] → [B, T, F]; A is what goes in, Z what comes out, _ makes inner names new.
LAYERS = {
    "linear": "h_ = MatMul(A, w)  Z = Add(h_, bias)",
    "residual": "h_ = MatMul(A, w2)  Z = Add(A, h_)",
    "difference": "h_ = MatMul(A, w2)  Z = Sub(bias, h_)",
    "gelu": "h_ = MatMul(A, w)  e_ = Erf(h_)  f_ = Add(e_, one)  g_ = Mul(h_, f_)  "
    "Z = Mul(g_, half)",
    "tanh": "Z = Tanh(A)",
    "sigmoid": "Z = Sigmoid(A)",
    "norm": "Z = LayerNormalization(A, gamma, beta)",
    "rms": "q_ = Mul(A, A)  m_ = ReduceMean(q_, last)  a_ = Add(m_, half)  r_ = Sqrt(a_)  "
    "Z = Div(A, r_)",
    "glu": "h_ = MatMul(A, wide_w)  a_, b_ = Split<axis=-1, num_outputs=2>(h_)  s_ = Sigmoid(b_)  "
    "Z = Mul(a_, s_)",
    "attention": "q_ = MatMul(A, w)  k_ = Transpose<perm=[0, 2, 1]>(A)  a_ = MatMul(q_, k_)  "
    "p_ = Softmax(a_)  Z = MatMul(p_, A)",
    "heads": "q_ = Reshape(A, heads)  r_ = Transpose<perm=[0, 2, 1, 3]>(q_)  "
    "k_ = Transpose<perm=[0, 2, 3, 1]>(q_)  a_ = MatMul(r_, k_)  p_ = Softmax(a_)  "
    "c_ = MatMul(p_, r_)  t_ = Transpose<perm=[0, 2, 1, 3]>(c_)  Z = Reshape(t_, joined)",
    "pool": "m_ = ReduceMean(A, mid)  Z = Add(A, m_)",
    "features": "m_ = Softmax(A)  Z = Mul(m_, half)",
    "halves": "a_ = Slice(A, i0, i2, last)  b_ = Slice(A, i2, i4, last)  n_ = Neg(b_)  "
    "Z = Concat<axis=-1>(n_, a_)",
    "positive": "r_ = Relu(A)  n_ = Neg(A)  s_ = Relu(n_)  Z = Sub(r_, s_)",
}
layers = st.lists(st.sampled_from(sorted(LAYERS)), min_size=1, max_size=5)


def chain(names: list[str]) -> str:
    """The layers one after another, from x to y."""
    body = []
    for k, name in enumerate(names):
        text = LAYERS[name].replace("_ ", f"_{k} ").replace("_,", f"_{k},").replace("_)", f"_{k})")
        text = text.replace("<", " <")
        source, result = "x" if k == 0 else f"z{k - 1}", f"z{k}"
        body.append(re.sub(r"\bA\b", source, re.sub(r"\bZ\b", result, text)))
    return "  ".join(body) + f"  y = Neg(z{len(names) - 1})"


def built(body: str, more: Mapping[str, Array] | None = None) -> onnx.ModelProto:
    weights = WEIGHTS | dict(more or {})
    used = {k: a for k, a in weights.items() if re.search(rf"\b{k}\b", body)}
    return proto(body, {"x": X}, used)


X = real(B, T, F, seed=3)


def explained(names: list[str]) -> Walk:
    return walk(opened(built(chain(names))), {"x": X})


@settings(max_examples=100)
@given(layers)
def test_the_target_is_the_sum_of_the_ledger(names: list[str]) -> None:
    found = explained(names)
    target = (found.y * found.seed).sum(axis=(1, 2))
    ledger = found.result.ledger
    np.testing.assert_allclose(ledger["target"], target, rtol=1e-12)
    entries = [ledger[k] for k in ledger if k not in ("target", "residual", "residual_relative")]
    scale = sum(np.abs(e) for e in entries)
    assert (np.abs(sum(entries) - target) <= 1e-9 * scale).all()
    np.testing.assert_allclose(
        ledger["content"], found.content.sum(axis=(1, 2)), rtol=1e-12, atol=1e-12
    )


@settings(max_examples=40)
@given(layers, st.floats(-2, 2), st.floats(-2, 2))
def test_relevance_is_linear_in_the_seed(names: list[str], a: float, b: float) -> None:
    found = explained(names)
    other = np.random.default_rng(12).normal(size=found.seed.shape)
    second = again(found.engine, found.feeds, other)
    both = again(found.engine, found.feeds, a * found.seed + b * other)
    expected = a * found.content + b * second.content
    np.testing.assert_allclose(both.content, expected, rtol=1e-7, atol=1e-9)
    for entry in ("content", "bias", "norm", "softmax", "other"):
        np.testing.assert_allclose(
            both.result.ledger[entry],
            a * found.result.ledger[entry] + b * second.result.ledger[entry],
            rtol=1e-7,
            atol=1e-9,
        )


@settings(max_examples=40)
@given(layers)
def test_a_batch_is_a_loop_of_singles(names: list[str]) -> None:
    found = explained(names)
    for row in range(B):
        part = slice(row, row + 1)
        single = again(found.engine, {"x": X[part]}, found.seed[part])
        np.testing.assert_allclose(single.content, found.content[part], rtol=1e-7, atol=1e-10)
        for entry, amount in found.result.ledger.items():
            if not entry.startswith("residual"):
                np.testing.assert_allclose(
                    single.result.ledger[entry], amount[part], rtol=1e-7, atol=1e-10
                )


@settings(max_examples=40)
@given(layers, st.permutations(range(T)))
def test_without_positions_tokens_can_be_permuted(names: list[str], order: list[int]) -> None:
    found = explained(names)
    turned = again(found.engine, {"x": X[:, order]}, found.seed[:, order])
    np.testing.assert_allclose(turned.content, found.content[:, order], rtol=1e-7, atol=1e-10)


def test_with_positions_they_cannot() -> None:
    body = "s = Add(x, table)  " + chain(["attention"]).replace("(x", "(s").replace("x)", "s)")
    found = walk(opened(built(body, TABLE)), {"x": X})
    order = [2, 0, 1]
    turned = again(found.engine, {"x": X[:, order]}, found.seed[:, order])
    assert not np.allclose(turned.content, found.content[:, order])


#: Detours from a value V back to itself.
DETOURS = {
    "Identity": "V1 = Identity(V)",
    "Reshape": "d_ = Reshape(V, flat)  V1 = Reshape(d_, back)",
    "Transpose": "d_ = Transpose<perm=[0, 2, 1]>(V)  V1 = Transpose<perm=[0, 2, 1]>(d_)",
    "Unsqueeze": "d_ = Unsqueeze(V, mid)  V1 = Squeeze(d_, mid)",
    "Split": "d_, e_ = Split<axis=-1, num_outputs=2>(V)  V1 = Concat<axis=-1>(d_, e_)",
    "Neg": "d_ = Neg(V)  V1 = Neg(d_)",
    "Cast": "V1 = Cast<to=1>(V)",
}
SHAPES = {"flat": ints(0, -1), "back": ints(0, T, F)}


@settings(max_examples=60)
@given(layers, st.sampled_from(sorted(DETOURS)), st.data())
def test_detours_change_nothing(names: list[str], detour: str, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(names) - 1))
    plain = explained(names)
    body = chain(names)
    text = DETOURS[detour].replace("V1", "v1").replace("V", f"z{place}")
    text = text.replace("d_", "d0").replace("e_", "e0")
    statements = re.findall(r"[\w, ]+ = \w+ ?(?:<[^>]*>)?\([^)]*\)", body)
    assert "  ".join(s.strip() for s in statements).split() == body.split()
    made = next(k for k, s in enumerate(statements) if s.strip().startswith(f"z{place} ="))
    rest = [re.sub(rf"\bz{place}\b", "v1", s) for s in statements[made + 1 :]]
    turned = "  ".join([*statements[: made + 1], text, *rest])
    found = walk(opened(built(turned, SHAPES)), {"x": X})
    np.testing.assert_allclose(found.content, plain.content, rtol=1e-7, atol=1e-10)
    for entry, amount in plain.result.ledger.items():
        if not entry.startswith("residual"):
            np.testing.assert_allclose(found.result.ledger[entry], amount, rtol=1e-7, atol=1e-10)


#: A BERT-like classifier by hand: words, a learned table cut to length, types, a padding mask,
#: two heads, GELU, post-norms, a pooled first token.
BERT = """
    s0 = Shape<start=1, end=2>(ids)
    e0 = Gather(words, ids)  e1 = Slice(places, i0, s0, i0)  e2 = Gather(kinds, types)
    e3 = Add(e0, e2)  e4 = Add(e3, e1)  e = LayerNormalization(e4, gamma, beta)
    m0 = Cast<to=1>(mask)  m1 = Unsqueeze(m0, axes12)  m2 = Sub(one, m1)  m = Mul(m2, low)
    q0 = MatMul(e, wq)  q1 = Add(q0, bias)  q2 = Reshape(q1, cut)
    q = Transpose<perm=[0, 2, 1, 3]>(q2)
    k0 = MatMul(e, wk)  k1 = Reshape(k0, cut)  k = Transpose<perm=[0, 2, 3, 1]>(k1)
    v0 = MatMul(e, wv)  v1 = Reshape(v0, cut)  v = Transpose<perm=[0, 2, 1, 3]>(v1)
    a0 = MatMul(q, k)  a1 = Div(a0, scale)  a2 = Add(a1, m)  p = Softmax(a2)
    c0 = MatMul(p, v)  c1 = Transpose<perm=[0, 2, 1, 3]>(c0)  c2 = Reshape(c1, join)
    o0 = MatMul(c2, wo)  o1 = Add(o0, e)  o = LayerNormalization(o1, gamma, beta)
    f0 = MatMul(o, w1)  f1 = Gelu(f0)  f2 = MatMul(f1, w2)  f3 = Add(f2, o)
    f = LayerNormalization(f3, gamma, beta)
    h0 = Gather<axis=1>(f, first)  h1 = MatMul(h0, wh)  h2 = Add(h1, bh)  y = Tanh(h2)
"""
MASKED = {
    "added": BERT,
    "chosen": BERT.replace("a2 = Add(a1, m)", "a2 = Where(m3, low, a1)").replace(
        "m1 = Unsqueeze(m0, axes12)  m2 = Sub(one, m1)  m = Mul(m2, low)",
        "m1 = Unsqueeze(m0, axes12)  m3 = Equal(m1, zero)",
    ),
}
LEARNED = {
    "words": real(30, 8, seed=31),
    "places": real(16, 8, seed=32),
    "kinds": real(2, 8, seed=33),
    "gamma": real(8, seed=34),
    "beta": real(8, seed=35),
    "bias": real(8, seed=36),
    **{name: real(8, 8, seed=40 + k) for k, name in enumerate(["wq", "wk", "wv", "wo"])},
    "w1": real(8, 12, seed=45),
    "w2": real(12, 8, seed=46),
    "wh": real(8, 3, seed=47),
    "bh": real(3, seed=48),
    "one": floats(1),
    "zero": floats(0),
    "low": floats(-1e4),
    "scale": floats(2),
    "i0": ints(0),
    "axes12": ints(1, 2),
    "cut": ints(0, 0, 2, 4),
    "join": ints(0, 0, 8),
    "first": ints(0).reshape(()),
}
TOKENS = {
    "ids": np.array([[5, 9, 21, 7, 3, 0, 0], [5, 17, 2, 28, 11, 6, 3]]),
    "types": np.array([[0, 0, 1, 1, 1, 0, 0], [0, 0, 0, 0, 1, 1, 1]]),
    "mask": np.array([[1, 1, 1, 1, 1, 0, 0], [1] * 7]),
}


def bert(how: str = "added") -> onnx.ModelProto:
    used = {k: a for k, a in LEARNED.items() if re.search(rf"\b{k}\b", MASKED[how])}
    return proto(MASKED[how], TOKENS, used, opset=20, free=(0, 1))


@pytest.mark.parametrize("how", MASKED)
def test_padding_changes_nothing(how: str) -> None:
    """Real tokens of a padded row are explained as the row alone; padding gets nothing."""
    padded = walk(opened(bert(how)), TOKENS)
    alone = again(padded.engine, {k: a[:1, :5] for k, a in TOKENS.items()}, padded.seed[:1])
    np.testing.assert_allclose(padded.y[0], alone.y[0], rtol=1e-9)
    np.testing.assert_allclose(padded.result.content[0, :5], alone.result.content[0], rtol=1e-7)
    assert not padded.result.content[0, 5:].any()
    for whole, part in zip(padded.result.sinks, alone.result.sinks, strict=True):
        np.testing.assert_allclose(whole.relevance[0, :5], part.relevance[0], rtol=1e-7)
        assert not whole.relevance[0, 5:].any()
    for entry, amount in alone.result.ledger.items():
        if not entry.startswith("residual"):
            np.testing.assert_allclose(
                padded.result.ledger[entry][:1], amount, rtol=1e-7, atol=1e-9
            )
    assert padded.residual < 1e-10


@pytest.mark.parametrize("how", MASKED)
def test_roles_of_a_small_bert(how: str) -> None:
    found = walk(opened(bert(how)), TOKENS)
    facts = {name: str(fact.role) for name, fact in found.planned.analysis.inputs.facts.items()}
    assert facts == {"ids": "content", "types": "segment", "mask": "mask"}
    assert [(s.kind, s.name) for s in found.result.sinks] == [("learned", "0/table")]
    assert found.result.ledger["segment"].all() and found.result.ledger["norm"].all()


def renamed(model: onnx.ModelProto, seed: int) -> tuple[onnx.ModelProto, dict[str, str]]:
    """Every node, value and initializer by a meaningless new name; inputs included."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    names = {v.name for v in [*graph.input, *graph.output, *graph.initializer]}
    names |= {name for node in graph.node for name in node.output}
    order = np.random.default_rng(seed).permutation(len(names))
    new = {name: f"t{k}" for name, k in zip(sorted(names), order.tolist(), strict=True)}
    for item in [*graph.input, *graph.output, *graph.initializer]:
        item.name = new[item.name]
    for k, node in enumerate(graph.node):
        node.name = f"n{len(graph.node) - k}"
        node.input[:] = [new.get(name, name) for name in node.input]
        node.output[:] = [new[name] for name in node.output]
    return copy, new


@settings(max_examples=6)
@given(st.integers(0, 1000))
def test_names_decide_nothing(seed: int) -> None:
    plain = walk(opened(bert()), TOKENS)
    model, new = renamed(bert(), seed)
    found = walk(opened(model), {new[name]: array for name, array in TOKENS.items()})
    np.testing.assert_array_equal(found.result.content, plain.result.content)
    for ours, theirs in zip(found.result.sinks, plain.result.sinks, strict=True):
        assert (ours.kind, ours.name) == (theirs.kind, theirs.name)
        np.testing.assert_array_equal(ours.relevance, theirs.relevance)
    assert found.result.ledger.keys() == plain.result.ledger.keys()
    for entry, amount in plain.result.ledger.items():
        np.testing.assert_array_equal(found.result.ledger[entry], amount)


def test_misleading_names_deceive_nobody() -> None:
    """The mask called position_ids, the types called input_ids, the words called mask."""
    model = bert()
    deceit = {"mask": "position_ids", "types": "input_ids", "ids": "attention_mask"}
    for value in model.graph.input:
        value.name = deceit[value.name]
    for node in model.graph.node:
        node.input[:] = [deceit.get(name, name) for name in node.input]
    found = walk(opened(model), {deceit[k]: a for k, a in TOKENS.items()})
    plain = walk(opened(bert()), TOKENS)
    assert found.planned.explained == "attention_mask"
    np.testing.assert_array_equal(found.result.content, plain.result.content)
