"""Masks and positions that were added and then moved are separated: the same sinks as unmoved."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import pytest
from building import Array, ints, opened, proto, real, walk

from palrp_onnx import Explainer, Model, prepare
from palrp_onnx.analysis.analysis import analyse
from palrp_onnx.analysis.observations import observe
from palrp_onnx.analysis.roles import Role
from palrp_onnx.analysis.sites import find_sites
from palrp_onnx.describe import Explanation
from palrp_onnx.inputs.sample import Sample
from palrp_onnx.model.values import is_float
from palrp_onnx.prepare import analyse_model
from palrp_onnx.record import Fidelity, InputFacts
from palrp_onnx.types import Feeds

B, T, H, D, LONGER = 2, 9, 2, 3, 14
F = H * D
IDS = np.random.default_rng(0).integers(2, 30, size=(B, T))
MASK = np.ones((B, T), np.int64)
MASK[1, -2:] = 0
FEEDS: dict[str, Array] = {"ids": IDS, "mask": MASK}
LOW = float(np.finfo(np.float32).min)
SLOPES = np.array([0.5, 0.2], np.float32)[:, None, None]
HIDDEN = np.triu(np.ones((LONGER, LONGER), bool), 1)[None, None]

LAYER = """q0_ = MatMul(IN, wq)  q1_ = Reshape(q0_, cut)  q_ = Transpose <perm=[0, 2, 1, 3]> (q1_)
    k0_ = MatMul(IN, wk)  k1_ = Reshape(k0_, cut)  k_ = Transpose <perm=[0, 2, 3, 1]> (k1_)
    v0_ = MatMul(IN, wv)  v1_ = Reshape(v0_, cut)  v_ = Transpose <perm=[0, 2, 1, 3]> (v1_)
    s_ = MatMul(q_, k_)  z_ = Add(s_, bias)  p_ = Softmax <axis=-1> (z_)  c_ = MatMul(p_, v_)
    t_ = Transpose <perm=[0, 2, 1, 3]> (c_)  o_ = Reshape(t_, join)  OUT = Add(IN, o_)
"""


PARTS = ("query", "key")


def layer(number: int) -> str:
    text = LAYER.replace("IN", f"h{number}").replace("OUT", f"h{number + 1}")
    return re.sub(r"_(?=[ ,)])", f"_{number}", text)


HEAD = """h0 = Gather(words, ids)  f = Cast <to=1> (mask)  off = Sub(one, f)  far = Mul(off, low)
    padding = Unsqueeze(far, i12)  rows = Unsqueeze(far, i1)
    n = Shape <start=1, end=2> (ids)  all = Shape(ids)
"""
TAIL = "y0 = MatMul(hEND, head)  y = ReduceSum <keepdims=0> (y0, i1)"
WEIGHTS = {
    "words": real(30, F, seed=1),
    "wq": real(F, F, seed=2) / 3,
    "wk": real(F, F, seed=3) / 3,
    "wv": real(F, F, seed=4),
    "head": real(F, 3, seed=5),
    "one": np.array(1, np.float32),
    "low": np.array(LOW, np.float32),
    "hidden": HIDDEN,
    "causal": np.where(HIDDEN, np.float32(LOW / 2), np.float32(0)),
    "here": np.where(HIDDEN, np.float32(LOW / 2), np.float32(0))[:, :, :T, :T],
    "slope": (SLOPES * np.arange(LONGER)).astype(np.float32)[None],
    "near": (SLOPES * np.arange(T)).astype(np.float32)[None],
    "flatter": (SLOPES * np.arange(T)).astype(np.float32)[None, :1, 0],
    "far_table": real(1, H, T, T, seed=6),
    "cut": ints(0, 0, H, D),
    "join": ints(0, 0, F),
    "i0": ints(0),
    "i00": ints(0, 0),
    "i1": ints(1),
    "i12": ints(1, 2),
    "i23": ints(2, 3),
    "i3": ints(3),
    "flat": ints(0, -1),
    "heads": ints(0, H, 1, -1),
    "big": ints(B, H, T, T),
    "order": np.arange(T),
}


def explained(bias: str, dtype: str, layers: int = 1, **options: object) -> list[Explanation]:
    text = HEAD + bias + "".join(map(layer, range(layers))) + TAIL.replace("END", str(layers))
    used = {k: a for k, a in WEIGHTS.items() if re.search(rf"\b{k}\b", text)}
    path = opened(proto(text, FEEDS, used)).path
    sample = Sample("x", "tensors", FEEDS, InputFacts(kind="tensors", truncated=False))
    return Explainer(path, dtype=dtype, **options).explain(sample, "1")  # type: ignore[arg-type]


def same(bias: str, plain: str, kind: str, layers: int = 1) -> None:
    """Both ways of writing one bias have the same sinks, map and ledger, in both engines."""
    for dtype, tolerance, rounding in (("float64", 1e-12, 1e-12), ("float32", 2e-5, 1e-5)):
        pairs = zip(explained(bias, dtype, layers), explained(plain, dtype, layers), strict=True)
        for ours, reference in pairs:
            assert isinstance(ours.record.fidelity, Fidelity)
            assert ours.record.fidelity.rewritten["sum moved"] >= 1
            names = [(s.kind, s.layer, s.part) for s in ours.record.sites]
            assert names == [(kind, k, p) for k in range(layers) for p in PARTS]
            assert ours.tensors.keys() == reference.tensors.keys()
            for name, array in reference.tensors.items():
                scale = np.abs(array).max()
                np.testing.assert_allclose(
                    ours.tensors[name], array, rtol=0, atol=tolerance * scale
                )
            assert ours.record.ledger["position"]
            total = sum(abs(v) for v in reference.record.ledger.values())
            for entry, value in reference.record.ledger.items():
                if not entry.startswith("residual"):
                    assert abs(ours.record.ledger[entry] - value) <= tolerance * total
            assert abs(ours.record.ledger["residual_relative"]) < rounding


@dataclass(frozen=True)
class Way:
    """One bias, moved as a whole and written as a plain sum."""

    moved: str
    plain: str
    kind: str = "alibi"


BOTH = "bias = Add(padding, near)  "
WAYS = {
    "sliced as it is": Way("w = Add(padding, near)  bias = Slice(w, i0, n, i3)  ", BOTH),
    "chosen, then sliced": Way(
        "c = Less(padding, one)  no = Not(c)  e = Where(no, low, near)  "
        "m = Add(e, padding)  bias = Slice(m, i0, n, i3)  ",
        BOTH,
    ),
    "filled, then cut from a longer table": Way(
        "w = Where(hidden, low, slope)  nn = Concat <axis=0> (n, n)  "
        "bias = Slice(w, i00, nn, i23)  ",
        "bias = Add(here, near)  ",
    ),
    "cut from a longer table": Way(
        "w = Add(causal, slope)  nn = Concat <axis=0> (n, n)  bias = Slice(w, i00, nn, i23)  ",
        "bias = Add(here, near)  ",
    ),
    "unsqueezed": Way(
        "w = Add(rows, flatter)  bias = Unsqueeze(w, i1)  ",
        "u = Unsqueeze(flatter, i1)  bias = Add(padding, u)  ",
    ),
    "flattened and back": Way(
        "w = Add(padding, near)  g = Reshape(w, flat)  bias = Reshape(g, heads)  ", BOTH
    ),
    "turned and back": Way(
        "w = Add(padding, near)  g = Transpose <perm=[3, 0, 2, 1]> (w)  "
        "bias = Transpose <perm=[1, 3, 2, 0]> (g)  ",
        BOTH,
    ),
    "expanded": Way("w = Add(padding, near)  bias = Expand(w, big)  ", BOTH),
    "selected": Way("w = Add(padding, near)  bias = Gather <axis=3> (w, order)  ", BOTH),
    "in another type for a while": Way(
        "w0 = Add(padding, near)  w = Cast <to=11> (w0)  g = Slice(w, i0, n, i3)  "
        "bias = Cast <to=1> (g)  ",
        BOTH,
    ),
    "filled, then in another type": Way(
        "w0 = Where(hidden, low, slope)  w = Cast <to=11> (w0)  nn = Concat <axis=0> (n, n)  "
        "g = Slice(w, i00, nn, i23)  bias = Cast <to=1> (g)  ",
        "bias = Add(here, near)  ",
    ),
    "moved twice": Way(
        "w = Add(causal, slope)  nn = Concat <axis=0> (n, n)  g = Slice(w, i00, nn, i23)  "
        "u = Add(padding, g)  bias = Slice(u, i0, n, i3)  ",
        "u = Add(here, near)  bias = Add(padding, u)  ",
    ),
    "a table of pairs": Way(
        "w = Add(padding, far_table)  bias = Slice(w, i0, n, i3)  ",
        "bias = Add(padding, far_table)  ",
        "relative_bias",
    ),
}


@pytest.mark.parametrize("name", WAYS)
def test_moved_sums(name: str) -> None:
    same(WAYS[name].moved, WAYS[name].plain, WAYS[name].kind)


@pytest.mark.quick
@pytest.mark.parametrize("name", ["sliced as it is", "cut from a longer table", "moved twice"])
def test_every_layer_has_a_sink_of_its_own(name: str) -> None:
    same(WAYS[name].moved, WAYS[name].plain, WAYS[name].kind, layers=2)


def test_an_override_of_a_moved_sum() -> None:
    (first, _) = explained(WAYS["sliced as it is"].moved, "float32", roles={"bias": "mask"})
    assert not first.record.sites and first.record.ledger["position"] == 0


def test_a_moved_sum_overridden_as_a_position_is_not_separated() -> None:
    """Scores that are switched off have no relevance, so the numbers are the same."""
    for whole in explained(WAYS["sliced as it is"].moved, "float32", roles={"bias": "position"}):
        assert [(s.kind, s.part) for s in whole.record.sites] == [("alibi", p) for p in PARTS]
        assert np.isfinite(whole.record.ledger["position"])
        assert abs(whole.record.ledger["residual_relative"]) < 1e-5


def test_a_moved_term_has_its_name_for_overrides() -> None:
    (first, _) = explained(WAYS["sliced as it is"].moved, "float32", roles={"near": "parameter"})
    assert not first.record.sites
    assert first.record.ledger["position"] == 0 and first.record.ledger["bias"]


@pytest.mark.parametrize("move", ["m = Identity(w)", "g = Reshape(w, flat)  m = Reshape(g, back)"])
def test_positions_and_token_types_that_were_moved_together(move: str) -> None:
    types = (np.arange(B * T).reshape(B, T) % 3 == 0).astype(np.int64)
    feeds = {"ids": IDS, "types": types}
    text = f"""x = Gather(words, ids)  s = Gather(kinds, types)  w = Add(places, s)  {move}
        h = Add(x, m)  y0 = MatMul(h, head)  y = ReduceSum <keepdims=0> (y0, i1)"""
    kinds, places, back = real(2, F, seed=8), real(T, F, seed=9), ints(0, T, F)
    known = {**WEIGHTS, "kinds": kinds, "places": places, "back": back}
    used = {k: a for k, a in known.items() if re.search(rf"\b{k}\b", text)}
    found = walk(opened(proto(text, feeds, used)), feeds, roles={"types": "segment"})
    slopes = (found.seed @ used["head"].astype(np.float64).T)[:, None]
    ledger = found.result.ledger
    np.testing.assert_allclose(ledger["position"], (places * slopes).sum(axis=(1, 2)), rtol=1e-6)
    np.testing.assert_allclose(ledger["segment"], (kinds[types] * slopes).sum((1, 2)), rtol=1e-6)
    facts = found.planned.analysis.operands.values()
    assert {fact.role for fact in facts} >= {Role.MIXED, Role.POSITION, Role.SEGMENT}


@pytest.mark.parametrize("engine", ["onnxruntime", "numpy"])
def test_copies_of_shared_sums_are_checked(engine: str) -> None:
    """Both layers read one sum of mask and bias; it is copied for each but the last."""
    for ours in explained(BOTH, "float32", layers=2, engine=engine):
        assert isinstance(ours.record.fidelity, Fidelity)
        assert ours.record.fidelity.rewritten == {"sum copied": 1}
        assert ours.record.fidelity.difference == 0.0


def little(bias: str, layers: int) -> Model:
    text = HEAD + bias + "".join(map(layer, range(layers))) + TAIL.replace("END", str(layers))
    used = {k: a for k, a in WEIGHTS.items() if re.search(rf"\b{k}\b", text)}
    return opened(proto(text, FEEDS, used))


def test_sums_inside_of_sums_are_copied_with_them() -> None:
    model = little("w = Add(padding, near)  bias = Add(w, far_table)  ", layers=3)
    analysis = analyse_model(model)
    assert dict(analysis.model.changes.counts) == {"sum copied": 4}
    made = {
        v.name: [i and i.name for i in n.inputs] for n in analysis.model.graph for v in n.outputs
    }
    assert made["bias/own/1"] == ["w/own/2", "far_table"] and made["w/own/2"] == ["padding", "near"]
    assert made["bias/own/3"] == ["w/own/4", "far_table"]
    assert [made[f"z_{k}"][1] for k in range(3)] == ["bias/own/1", "bias/own/3", "bias"]
    assert len(find_sites(analysis)) == 6


def test_a_sum_that_one_layer_reads_twice_is_copied_once_for_it() -> None:
    model = little("w = Add(padding, near)  bias = Add(w, w)  ", layers=2)
    analysis = analyse_model(model)
    assert dict(analysis.model.changes.counts) == {"sum copied": 2}
    made = {
        v.name: [i and i.name for i in n.inputs] for n in analysis.model.graph for v in n.outputs
    }
    assert made["bias/own/1"] == ["w/own/2", "w/own/2"] and made["bias"] == ["w", "w"]
    assert len(find_sites(analysis)) == 2


@pytest.mark.parametrize("name", ["moved twice", "sliced as it is"])
def test_rewriting_neither_touches_the_model_nor_runs_it_again(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, ran = little(WAYS[name].moved, layers=2), []
    before = [(n.name, n.op_type, tuple(n.inputs), tuple(n.outputs)) for n in model.graph]
    runs = prepare._runs

    def watched(model: Model, names: Iterable[str]) -> Callable[[Feeds], Mapping[str, Array]]:
        ran.append({node.op_type for node in model.graph})
        return runs(model, names)

    monkeypatch.setattr(prepare, "_runs", watched)
    analysis = analyse_model(model)
    after = [(n.name, n.op_type, tuple(n.inputs), tuple(n.outputs)) for n in model.graph]
    assert after == before and not model.changes
    assert analysis.model.changes.counts["sum moved"] >= 1
    whole, *parts = ran
    assert "Softmax" in whole
    assert parts and not any({"MatMul", "Softmax"} & part for part in parts)
    known = {v.name for node in analysis.model.graph for v in node.outputs if is_float(v)}
    assert known <= analysis.trial.keys()


def test_what_is_seen_of_a_rewritten_graph_is_what_another_look_sees() -> None:
    analysis = analyse_model(little(WAYS["moved twice"].moved, layers=2))
    again = analyse(observe(analysis.model, prepare._runs))
    assert {o: f.role for o, f in again.operands.items()} == {
        o: f.role for o, f in analysis.operands.items()
    }
    for name, array in again.trial.items():
        np.testing.assert_array_equal(analysis.trial[name], array)
    for name, array in again.again.items():
        np.testing.assert_array_equal(analysis.again[name], array)
