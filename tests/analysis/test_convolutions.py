"""Positions that come from a convolution over padded states, as in wav2vec 2.0.

The branch is a sink where nothing else carries positions; in similar graphs it is content. Names
decide nothing.
"""

from __future__ import annotations

import re
from math import erf
from typing import Any

import numpy as np
import pytest
from building import Walk, ints, opened, proto, real, walk, wide

from palrp_onnx import Explainer, inspect
from palrp_onnx.analysis.sites import find_sites
from palrp_onnx.errors import UsageError
from palrp_onnx.inputs.sample import Sample
from palrp_onnx.record import InputFacts

B, T, F = 2, 9, 4
X = real(B, T, F)

CONV = "u = Transpose <perm=[0, 2, 1]> (e)  c = Conv <pads=[2, 2], group=2> (u, wide, off)  "
GELU = "r = Div(C, root)  l = Erf(r)  p = Add(l, one)  m = Mul(C, p)  g = Mul(m, half)  "
BACK = "b = Transpose <perm=[0, 2, 1]> (g)  "
SUM = "h = Add(e, b)  "
BRANCH = CONV + GELU.replace("C,", "c,") + BACK
TAIL = """q = MatMul(IN, wq)  k = MatMul(IN, wk)  v = MatMul(IN, wv)
    kt = Transpose <perm=[0, 2, 1]> (k)  s = MatMul(q, kt)  a = Softmax <axis=-1> (s)
    z = MatMul(a, v)  """
END = "o = Add(IN, z)  d = MatMul(o, head)  y = ReduceSum <keepdims=0> (d, i1)"
ATTENTION = (TAIL + END).replace("IN", "h")
FIRST = "e = MatMul(x, we)  "
WEIGHTS = {
    "we": real(F, F, seed=1),
    "wide": real(F, F // 2, 5, seed=2),
    "even": real(F, F // 2, 4, seed=3),
    "point": real(F, F // 2, 1, seed=4),
    "off": real(F, seed=5),
    "root": np.array(np.sqrt(2), np.float32),
    "one": np.array(1, np.float32),
    "half": np.array(0.5, np.float32),
    "wq": real(F, F, seed=6) / 2,
    "wk": real(F, F, seed=7) / 2,
    "wv": real(F, F, seed=8),
    "head": real(F, 3, seed=9),
    "table": real(1, T, F, seed=10),
    "i0": ints(0),
    "i1": ints(1),
    "i2": ints(2),
    "last": ints(-1),
    "around": ints(0, 0, 2, 0, 0, 2),
}


def walked(body: str, **options: Any) -> Walk:
    used = {k: a for k, a in WEIGHTS.items() if re.search(rf"\b{k}\b", body)}
    return walk(opened(proto(body, {"x": X}, used)), {"x": X}, **options)


def kinds(found: Walk) -> list[tuple[str, int, str]]:
    return [(s.kind, s.layer, s.part) for s in find_sites(found.planned.analysis)]


def relu(conv: str, source: str = "c", result: str = "g") -> str:
    return f"{conv}  {result} = Relu({source})  "


FITTING = {
    "GELU in pieces": FIRST + BRANCH + SUM + ATTENTION,
    "the branch first": FIRST + BRANCH + "h = Add(b, e)  " + ATTENTION,
    "an even kernel and a crop": FIRST
    + "u = Transpose <perm=[0, 2, 1]> (e)  n = Conv <pads=[2, 2], group=2> (u, even, off)  "
    + "c = Slice(n, i0, last, i2)  "
    + GELU.replace("C,", "c,")
    + BACK
    + SUM
    + ATTENTION,
    "no activation": FIRST + CONV + "b = Transpose <perm=[0, 2, 1]> (c)  " + SUM + ATTENTION,
    "padded beforehand": FIRST
    + "t = Transpose <perm=[0, 2, 1]> (e)  u = Pad(t, around)  "
    + relu("c = Conv <group=2> (u, wide, off)")
    + BACK
    + SUM
    + ATTENTION,
    "along the last axis": FIRST
    + "u = Transpose <perm=[0, 2, 1]> (e)  "
    + relu("c = Conv <pads=[2, 2], group=2> (u, wide, off)")
    + "w = Add(u, g)  h = Transpose <perm=[0, 2, 1]> (w)  "
    + ATTENTION,
    "the input itself": BRANCH.replace("(e)", "(x)") + "h = Add(x, b)  " + ATTENTION,
}


@pytest.mark.parametrize("name", FITTING)
def test_found(name: str) -> None:
    found = walked(FITTING[name])
    assert kinds(found) == [("convolution", 0, "branch")]
    assert found.residual < 1e-12 and found.result.ledger["position"].all()


def test_relevance_of_the_sink() -> None:
    """R = branch ∘ m, m that of the sum; the other term of the sum gets its own part alone."""
    found = walked(FITTING["the input itself"])
    rest = walked("h = Identity(x)  " + ATTENTION, dtype="float64")
    linear = wide(X).swapaxes(1, 2)
    padded = np.pad(linear, ((0, 0), (0, 0), (2, 2)))
    group, weight = np.arange(F) // 2, wide(WEIGHTS["wide"])
    c = np.zeros_like(linear)
    for out in range(F):
        for k in range(5):
            for j in range(F // 2):
                c[:, out] += weight[out, j, k] * padded[:, 2 * group[out] + j, k : k + T]
    c += wide(WEIGHTS["off"])[:, None]
    root = float(WEIGHTS["root"])
    branch = (c * 0.5 * (1 + np.vectorize(erf)(c / root))).swapaxes(1, 2)
    total = wide(X) + branch
    values = rest.engine.forward({"x": total})
    m = rest.engine.propagate(values, found.seed).content / total
    (sink,) = found.result.sinks
    assert (sink.kind, sink.part, sink.name) == ("convolution", "branch", "0/branch")
    np.testing.assert_allclose(sink.relevance, branch * m, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(found.content, wide(X) * m, rtol=1e-6, atol=1e-6)


def test_both_engines_agree() -> None:
    body = FITTING["GELU in pieces"]
    used = {k: a for k, a in WEIGHTS.items() if re.search(rf"\b{k}\b", body)}
    path = opened(proto(body, {"x": X}, used)).path
    sample = Sample("x", "tensors", {"x": X}, InputFacts(kind="tensors", truncated=False))
    for method in ("pa-lrp", "attnlrp", "pe-only", "cp-lrp"):
        exact, fast = (
            Explainer(path, method=method, dtype=dtype).explain(sample, "1")
            for dtype in ("float64", "float32")
        )
        for reference, ours in zip(exact, fast, strict=True):
            assert ours.tensors.keys() == reference.tensors.keys()
            assert abs(ours.record.ledger["residual_relative"]) < 1e-5
            assert bool(reference.record.sites) == (method in ("pa-lrp", "pe-only"))
            for name, array in reference.tensors.items():
                scale = np.abs(array).max()
                np.testing.assert_allclose(ours.tensors[name], array, rtol=0, atol=2e-5 * scale)
            expected = reference.record.relevance.total
            scale = np.abs(expected).max()
            np.testing.assert_allclose(ours.record.relevance.total, expected, atol=2e-5 * scale)


@pytest.mark.parametrize("method", ["attnlrp", "cp-lrp"])
def test_content_as_usual_where_positions_take_no_share(method: str) -> None:
    body = FITTING["GELU in pieces"]
    found, content = (
        walked(body, method=method),
        walked(body, method=method, roles={"b": "content"}),
    )
    np.testing.assert_array_equal(found.content, content.content)
    assert not found.result.ledger["position"].any() and not found.result.sinks
    assert found.residual < 1e-12


CHAIN = relu(
    "f = Transpose <perm=[0, 2, 1]> (h)  w = Conv <pads=[2, 2], group=2> (f, wide, off)", "w", "j"
)
AFTER = (
    CHAIN + "n = Transpose <perm=[0, 2, 1]> (j)  t = Add(h, n)  " + (TAIL + END).replace("IN", "t")
)

OTHERS = {
    "no sum (Whisper's front end)": FIRST + BRANCH + "h = Identity(b)  " + ATTENTION,
    "no attention": FIRST + BRANCH + SUM + END.replace("IN", "h").replace("z)", "h)"),
    "parallel to attention": FIRST
    + BRANCH
    + "w = Add(e, b)  "
    + TAIL.replace("IN", "e")
    + "o = Add(w, z)  d = MatMul(o, head)  y = ReduceSum <keepdims=0> (d, i1)",
    "after attention (Conformer)": FIRST
    + TAIL.replace("IN", "e")
    + "t = Add(e, z)  "
    + BRANCH.replace("(e)", "(t)")
    + "w = Add(t, b)  "
    + re.sub(r"\b([qkvsaz]|kt)\b(?=[ ,)])", r"\g<1>2", TAIL.replace("IN", "w"))
    + "o = Add(w, z2)  d = MatMul(o, head)  y = ReduceSum <keepdims=0> (d, i1)",
    "a kernel of one": FIRST
    + relu("u = Transpose <perm=[0, 2, 1]> (e)  c = Conv <group=2> (u, point, off)")
    + BACK
    + SUM
    + ATTENTION,
    "two in a row": FIRST + BRANCH + SUM + AFTER,
    "of something else": FIRST
    + "i = MatMul(x, wq)  "
    + BRANCH.replace("(e)", "(i)")
    + SUM
    + ATTENTION.replace("q =", "q0 =").replace("(q,", "(q0,"),
    "two convolutions": FIRST
    + CONV
    + relu("c2 = Conv <pads=[2, 2], group=2> (c, wide, off)", "c2")
    + BACK
    + SUM
    + ATTENTION,
    "two convolutions side by side": FIRST
    + CONV
    + relu("c2 = Conv <pads=[2, 2], group=2> (u, wide, off)  n = Add(c, c2)  f = Tanh(n)", "f")
    + BACK
    + SUM
    + ATTENTION,
    "a gate": FIRST + CONV + "r = Sigmoid(c)  g = Mul(r, u)  " + BACK + SUM + ATTENTION,
    "repeated at the ends": FIRST
    + """t = Transpose <perm=[0, 2, 1]> (e)  u = Pad <mode="edge"> (t, around)  """
    + relu("c = Conv <group=2> (u, wide, off)")
    + BACK
    + SUM
    + ATTENTION,
}


@pytest.mark.parametrize("name", OTHERS)
def test_not_found(name: str) -> None:
    body = OTHERS[name]
    used = {k: a for k, a in WEIGHTS.items() if re.search(rf"\b{k}\b", body)}
    report = inspect(opened(proto(body, {"x": X}, used)), {"x": X})
    assert not report.sites and not report.uncertain


def test_a_table_of_positions_comes_first() -> None:
    body = FIRST + BRANCH + SUM.replace("h =", "n =") + "h = Add(n, table)  " + ATTENTION
    assert kinds(walked(body)) == [("learned", 0, "table")]


@pytest.mark.parametrize("attention", [False, True])
def test_a_shortcut_of_images_is_no_position(attention: bool) -> None:
    """ResNet: tokens have two axes."""
    image = real(2, 4, 6, 6)
    body = """c = Conv <pads=[1, 1, 1, 1]> (x, square)  g = Relu(c)  w = Add(x, g)
        f = Reshape(w, flat)  h = Transpose <perm=[0, 2, 1]> (f)  """
    body += ATTENTION if attention else END.replace("IN", "h").replace("z)", "h)")
    known = {**WEIGHTS, "square": real(4, 4, 3, 3), "flat": ints(0, 4, 36)}
    used = {k: a for k, a in known.items() if re.search(rf"\b{k}\b", body)}
    found = walk(opened(proto(body, {"x": image}, used)), {"x": image})
    assert kinds(found) == [] and not found.result.ledger["position"].any()


def test_overridden_as_content() -> None:
    body = FITTING["GELU in pieces"]
    overridden = walked(body, roles={"b": "content"})
    assert kinds(overridden) == [] and not overridden.result.ledger["position"].any()
    assert overridden.residual < 1e-12
    assert not np.allclose(overridden.content, walked(body).content)


@pytest.mark.parametrize("name", ["after attention (Conformer)", "two in a row"])
def test_overridden_as_a_position(name: str) -> None:
    overridden = walked(OTHERS[name], roles={"b": "position"})
    layer = 1 if name.startswith("after") else 0
    assert kinds(overridden) == [("convolution", layer, "branch")]
    assert overridden.residual < 1e-12 and overridden.result.ledger["position"].all()


@pytest.mark.parametrize(("value", "role"), [("c", "position"), ("b", "mask"), ("h", "content")])
def test_content_has_no_other_roles(value: str, role: str) -> None:
    with pytest.raises(UsageError, match="never combined"):
        walked(FITTING["GELU in pieces"], roles={value: role})
