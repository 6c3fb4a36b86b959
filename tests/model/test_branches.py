"""Branches, loops and sequences are written out: the same relevance as without them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from building import ints, opened, proto, real
from numpy.typing import NDArray

from palrp_onnx import Explainer, inspect
from palrp_onnx.compiler.file import compile_model
from palrp_onnx.compiler.graph import CompileSettings
from palrp_onnx.errors import ModelError, PalrpError, UnsupportedError
from palrp_onnx.inputs.sample import Sample
from palrp_onnx.model.branches import has_decisions
from palrp_onnx.model.open import Model
from palrp_onnx.record import Attribution, InputFacts

Array = NDArray[Any]

X = real(1, 4, 3)
WEIGHTS = {
    "a": real(3, seed=2, low=0.2, high=0.9),
    "W": real(3, 2, seed=3),
    "V": real(3, 3, seed=4),
    "h0": np.zeros((1, 3), np.float32),
    "bound": np.float32(1.5),
    "true": np.array(True),
    "minus": np.array(-1),
    "i0": np.array(0),
    "i1": np.array(1),
    "i2": np.array(2),
    "i3": np.array(3),
    "v0": ints(0),
    "v1": ints(1),
    "v2": ints(2),
    "parts": ints(1, 3),
    "huge": np.array(2**40),
}


def explained(model: Model, feeds: dict[str, Array], **options: Any) -> tuple[Attribution, Array]:
    """The record of one sample, and the relevance of ``x``."""
    sample = Sample("x", "tensors", feeds, InputFacts(kind="tensors", truncated=False))
    (found,) = Explainer(model, **options).explain(sample, "index:0")
    assert abs(found.record.residual) < 1e-5
    return found.record, np.asarray(found.tensors["content"])


def same(written: str, straight: str, x: Array = X, *, changed: Sequence[str] = ()) -> None:
    """Two ways to write one computation have the same relevance, in both engines."""
    plain = opened(proto(straight, {"x": x}, WEIGHTS, free=(0, 1)))
    _, expected = explained(plain, {"x": x}, engine="numpy", dtype="float64")
    model = opened(proto(written, {"x": x}, WEIGHTS, free=(0, 1)))
    for options in ({}, {"engine": "numpy"}, {"engine": "numpy", "dtype": "float64"}):
        record, found = explained(model, {"x": x}, **options)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
        assert set(changed) <= set(record.fidelity.rewritten)  # type: ignore[union-attr]


# --- the recurrence h = a h + x V, four rounds ----------------------------------------------------
STEP = "ah = Mul (a, h)  p = MatMul (e, V)  g = Add (ah, p)"
ROWS = "".join(
    f"e{k} = Gather <axis = 1> (x, i{k})  p{k} = MatMul (e{k}, V)  ah{k} = Mul (a, h{k})"
    f"  h{k + 1} = Add (ah{k}, p{k})\n"
    for k in range(4)
)
LAST = ROWS + "y = MatMul (h4, W)"
LENGTH = "sh = Shape <start = 1, end = 2> (x)  n = Squeeze (sh)\n"
ENTRY = f"c2 = Identity (c)  e = Gather <axis = 1> (x, i)  {STEP}"


def loop(count: str, condition: str, start: str, body: str, result: str = "hn") -> str:
    """A loop over the state ``h``, which ``body`` makes ``g``."""
    header = "body = b (int64 i, bool c, float[1,3] h) => (bool c2, float[1,3] g)"
    return f"{result} = Loop <{header} {{ {body} }}> ({count}, {condition}, {start})\n"


@pytest.mark.parametrize("count", ["four", "n"])
def test_a_loop_is_its_rounds(count: str) -> None:
    four = "four = Constant <value_int = 4> ()\n"
    head = four if count == "four" else LENGTH
    same(head + loop(count, "", "h0", ENTRY) + "y = MatMul (hn, W)", LAST, changed=["Loop"])


def test_a_loop_ends_by_its_condition() -> None:
    """While the first entry of the state is below a bound, which 3 rounds reach."""
    body = f"e = Gather <axis = 1> (x, i)  {STEP}  k = Add (i, i1)  c2 = Less (k, i3)"
    three = LAST.replace("y = MatMul (h4", "y = MatMul (h3")
    same(loop("", "true", "h0", body) + "y = MatMul (hn, W)", three, changed=["Loop"])


def test_a_loop_that_runs_no_round_hands_on_its_state() -> None:
    never = "false = Not (true)\n" + loop("", "false", "h1", ENTRY)
    start = "p0 = ReduceMean <keepdims = 0> (x, v1)  h1 = MatMul (p0, V)\n"
    same(start + never + "y = MatMul (hn, W)", start + "y = MatMul (h1, W)")


def test_a_loop_that_runs_no_round_yields_nothing() -> None:
    rounds = (
        "never = Sub (n, n)  hn, all = Loop <body = b (int64 i, bool c, float[1,3] h)"
        f" => (bool c2, float[1,3] g, float[1,3] out) {{ {ENTRY}  out = Tanh (g) }}>"
        " (never, , h1)  u = Unsqueeze (hn, v0)  z = Concat <axis = 0> (all, u)\n"
    )
    start = "p0 = ReduceMean <keepdims = 0> (x, v1)  h1 = MatMul (p0, V)\n"
    end = "m = ReduceSum <keepdims = 0> (z, v0)  y = MatMul (m, W)"
    same(LENGTH + start + rounds + end, start + "y = MatMul (h1, W)")


def test_what_the_rounds_of_a_loop_yield_is_joined() -> None:
    rounds = (
        "hn, all = Loop <body = b (int64 i, bool c, float[1,3] h)"
        f" => (bool c2, float[1,3] g, float[1,3] out) {{ {ENTRY}  out = Tanh (g) }}> (n, , h0)\n"
    )
    joined = "".join(f"t{k} = Tanh (h{k})  u{k} = Unsqueeze (t{k}, v0)\n" for k in range(1, 5))
    joined += "all = Concat <axis = 0> (u1, u2, u3, u4)\n"
    end = "m = ReduceMax <keepdims = 0> (all, v0)  y = MatMul (m, W)"
    same(LENGTH + rounds + end, ROWS + joined + end)


def test_loops_inside_of_loops_and_branches_inside_of_both() -> None:
    """Two rounds of two rounds; the inner one adds an entry only where the outer number is 1."""
    inner = (
        "c4 = Identity (d)  e = Gather <axis = 1> (x, j)  q = MatMul (e, V)"
        "  again = Equal (i, i1)"
        "  r = If (again) <then_branch = t () => (float[1,3] t0) { t0 = Add (k, q) },"
        " else_branch = f () => (float[1,3] f0) { f0 = Mul (k, a) }>"
    )
    outer = (
        "c2 = Identity (c)  g = Loop <body = b2 (int64 j, bool d, float[1,3] k)"
        f" => (bool c4, float[1,3] r) {{ {inner} }}> (i2, , h)"
    )
    start = "p0 = ReduceMean <keepdims = 0> (x, v1)  s0 = MatMul (p0, V)\n"
    straight = (
        "s1 = Mul (s0, a)  s2 = Mul (s1, a)"
        "  e0 = Gather <axis = 1> (x, i0)  q0 = MatMul (e0, V)  s3 = Add (s2, q0)"
        "  e1 = Gather <axis = 1> (x, i1)  q1 = MatMul (e1, V)  s4 = Add (s3, q1)"
        "  y = MatMul (s4, W)"
    )
    same(start + loop("i2", "", "s0", outer) + "y = MatMul (hn, W)", start + straight)


@pytest.mark.parametrize("sign", [1, -1])
def test_loops_inside_of_branches(sign: int) -> None:
    """The sign of the input decides whether there are rounds at all."""
    x = np.abs(X) * sign
    inside = loop("n", "", "h0", ENTRY, "then")
    condition = "total = ReduceSum <keepdims = 0> (x)  up = Greater (total, bound)\n"
    written = (
        LENGTH + condition + "z = If (up) <then_branch = t () => (float[1,3] then)"
        f" {{ {inside} }}, else_branch = f () => (float[1,3] else)"
        " { else = ReduceMean <keepdims = 0> (x, v1) }>  y = MatMul (z, W)"
    )
    other = "m = ReduceMean <keepdims = 0> (x, v1)  y = MatMul (m, W)"
    same(written, LAST if sign > 0 else other, x)


SCAN = "float[1,3] h, float[1,3] e) => (float[1,3] g, float[1,3] out)"


@pytest.mark.parametrize("back", [0, 1])
def test_a_scan_reads_entries_along_an_axis(back: int) -> None:
    scan = (
        f"hn, all = Scan <num_scan_inputs = 1, scan_input_axes = [1], scan_output_axes = [1],"
        f" scan_input_directions = [{back}], scan_output_directions = [{back}],"
        f" body = b ({SCAN} {{ {STEP}  out = Tanh (g) }}> (h0, x)\n"
    )
    order = [f"t{k}" for k in range(1, 5)]
    rows = ROWS
    if back:
        for k in range(4):
            rows = rows.replace(f"(x, i{k})", f"(x, I{3 - k})")
        rows, order = rows.replace("I", "i"), order[::-1]
    joined = "".join(f"t{k} = Tanh (h{k})  u{k} = Unsqueeze (t{k}, v1)\n" for k in range(1, 5))
    joined += f"all = Concat <axis = 1> ({', '.join(order).replace('t', 'u')})\n"
    end = "f = Slice (all, v1, v2, v1)  m = Squeeze (f, v1)  s = Add (m, {})  y = MatMul (s, W)"
    same(scan + end.format("hn"), rows + joined + end.format("h4"), changed=["Scan"])


def test_a_scan_reads_two_values_into_two_states() -> None:
    body = "k2 = Add (k, e2)  g = Add (h, e)"
    scan = (
        "hn, kn = Scan <num_scan_inputs = 2, scan_input_axes = [1, -1], body = b ("
        f"float[1,3] h, float[1,4] k, float[1,3] e, float[1,4] e2) => (float[1,3] g, float[1,4] k2)"
        f" {{ {body} }}>"
        " (h0, k0, x3, x)  z = MatMul (hn, W)  t = ReduceMax <keepdims = 0> (kn)  y = Add (z, t)"
    )
    zeros = "x3 = Slice (x, v0, v3, v1)  q = Gather <axis = 2> (x, i0)  k0 = Sub (q, q)\n"
    zeros = "v3 = Add (v1, v2)\n" + zeros
    straight = (
        "hn = ReduceSum <keepdims = 0> (x3, v1)  z = MatMul (hn, W)"
        "  kn = ReduceSum <keepdims = 0> (x, v2)  t = ReduceMax <keepdims = 0> (kn)  y = Add (z, t)"
    )
    same(zeros + scan, zeros + straight)


def test_sequences_are_taken_apart_and_joined() -> None:
    """Split, exchanged, measured, and joined along a new axis."""
    written = (
        "s0 = SplitToSequence <axis = 1, keepdims = 0> (x)  b = SequenceAt (s0, minus)"
        "  s1 = SequenceErase (s0, minus)  s2 = SequenceInsert (s1, b, i0)"
        "  n = SequenceLength (s2)  f = Cast <to = 1> (n)"
        "  j = ConcatFromSequence <axis = 1, new_axis = 1> (s2)  t = Tanh (j)"
        "  d = Div (t, f)  m = Gather <axis = 1> (d, i0)  r = Gather <axis = 1> (d, i2)"
        "  k = Mul (m, r)  y = MatMul (k, W)"
    )
    straight = (
        "f = Constant <value_float = 4.0> ()"
        "  e3 = Gather <axis = 1> (x, i3)  e1 = Gather <axis = 1> (x, i1)"
        "  t3 = Tanh (e3)  t1 = Tanh (e1)  m = Div (t3, f)  r = Div (t1, f)"
        "  k = Mul (m, r)  y = MatMul (k, W)"
    )
    same(written, straight, changed=["sequence"])


@pytest.mark.parametrize("sizes", ["parts", "i2", "i3", "n2"])
def test_a_sequence_of_pieces_is_joined_again(sizes: str) -> None:
    written = (
        "sh = Shape <start = 1, end = 2> (x)  n = Squeeze (sh)  n2 = Div (n, i2)"
        f"  s = SplitToSequence <axis = 1> (x, {sizes})"
        "  j = ConcatFromSequence <axis = 1> (s)  t = Tanh (j)"
        "  r = ReduceSum <keepdims = 0> (t, v1)  y = MatMul (r, W)"
    )
    straight = "t = Tanh (x)  r = ReduceSum <keepdims = 0> (t, v1)  y = MatMul (r, W)"
    same(written, straight)


def test_a_loop_extends_a_sequence() -> None:
    """As exporters write ``torch.stack(list)``."""
    written = (
        LENGTH + "s0 = SequenceEmpty <dtype = 1> ()"
        "  sn, hn = Loop <body = b (int64 i, bool c, seq(float) s, float[1,3] h)"
        f" => (bool c2, seq(float) s2, float[1,3] g) {{ {ENTRY}  s2 = SequenceInsert (s, g) }}>"
        " (n, , s0, h0)  all = ConcatFromSequence <axis = 1, new_axis = 1> (sn)"
        "  z = Gather <axis = 1> (all, minus)  y = MatMul (z, W)"
    )
    same(written, LAST, changed=["Loop", "sequence"])


def test_a_place_in_a_sequence_is_what_the_input_says() -> None:
    written = (
        LENGTH + "k = Sub (n, i2)  s = SplitToSequence <axis = 1, keepdims = 0> (x)"
        "  e = SequenceAt (s, k)  y = MatMul (e, W)"
    )
    same(written, "e = Gather <axis = 1> (x, i2)  y = MatMul (e, W)")


def test_a_graph_is_applied_to_every_tensor_of_a_sequence() -> None:
    written = (
        "s = SplitToSequence <axis = 1, keepdims = 0> (x)"
        "  m = SequenceMap <body = b (float[1,3] e, float[3,3] v) => (float[1,3] o)"
        " { p = MatMul (e, v)  o = Tanh (p) }> (s, V)"
        "  j = ConcatFromSequence <axis = 1, new_axis = 1> (m)"
        "  r = ReduceSum <keepdims = 0> (j, v1)  y = MatMul (r, W)"
    )
    straight = (
        "p = MatMul (x, V)  t = Tanh (p)  r = ReduceSum <keepdims = 0> (t, v1)  y = MatMul (r, W)"
    )
    same(written, straight)


def test_the_element_of_an_optional_value_is_that_value() -> None:
    written = (
        "o = Optional (x)  e = OptionalGetElement (o)  there = OptionalHasElement (o)"
        "  z = If (there) <then_branch = t () => (float[1,4,3] t0) { t0 = Tanh (e) },"
        " else_branch = f () => (float[1,4,3] f0) { f0 = Neg (x) }>"
        "  r = ReduceSum <keepdims = 0> (z, v1)  y = MatMul (r, W)"
    )
    straight = "t = Tanh (x)  r = ReduceSum <keepdims = 0> (t, v1)  y = MatMul (r, W)"
    same(written, straight)


# --- names, the log, and what an input decides ----------------------------------------------------
def test_values_of_rounds_are_numbered() -> None:
    body = loop("i3", "", "h0", ENTRY) + "y = MatMul (hn, W)"
    model = opened(proto(body, {"x": X}, WEIGHTS, free=(0, 1)))
    names = [v.name for node in model.graph for v in node.outputs]
    assert names.count("hn") == 1
    assert {"ah/0", "ah/1", "ah/2"} <= set(names)
    assert len(set(names)) == len(names)
    assert dict(model.lowered) == {"Loop": 1}
    assert not has_decisions(model)


def test_what_rounds_know_from_their_number_is_stored() -> None:
    """Indices of entries, and conditions on the number of the round."""
    body = (
        "c2 = Identity (c)  k = Sub (i3, i)  early = Less (i, i2)"
        "  e = If (early) <then_branch = t () => (float[1,3] t0) { t0 = Gather <axis = 1> (x, k) },"
        " else_branch = f () => (float[1,3] f0) { f0 = Identity (h) }>"
        f"  {STEP}"
    )
    written = loop("i3", "", "h0", body) + "y = MatMul (hn, W)"
    model = opened(proto(written, {"x": X}, WEIGHTS, free=(0, 1)))
    assert not has_decisions(model)
    assert {n.op_type for n in model.graph} == {"Gather", "MatMul", "Mul", "Add"}


def test_every_number_of_rounds_is_analysed_once() -> None:
    model = opened(
        proto(
            LENGTH + loop("n", "", "h0", ENTRY) + "y = MatMul (hn, W)",
            {"x": X},
            WEIGHTS,
            free=(0, 1),
        )
    )
    explainer = Explainer(model)
    engines = [explainer.engine({"x": X[:, :k]}) for k in (3, 4, 3, 4)]
    assert engines[0] is engines[2]
    assert engines[1] is engines[3]
    assert engines[0] is not engines[1]


# --- limits ---------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("count", "condition", "body"),
    [
        ("huge", "", ENTRY),
        ("", "", ENTRY),
        ("", "true", f"c2 = Less (i, huge)  e = ReduceMean <keepdims = 0> (x, v1)  {STEP}"),
    ],
)
def test_loops_of_too_many_rounds_are_refused(count: str, condition: str, body: str) -> None:
    written = loop(count, condition, "h0", body) + "y = MatMul (hn, W)"
    with pytest.raises(UnsupportedError, match=r"inside of a Loop run .* more than 100000 nodes"):
        explained(opened(proto(written, {"x": X}, WEIGHTS, free=(0, 1))), {"x": X})


@pytest.mark.parametrize(
    "body",
    [
        "s = SplitToSequence <axis = 1> (x)  e = SequenceAt (s, huge)",
        "s = SequenceConstruct (x)  t = SequenceErase (s, i2)  e = SequenceAt (t, i0)",
        "s = SequenceEmpty <dtype = 1> ()  e = ConcatFromSequence <axis = 0> (s)",
        "s = SequenceEmpty <dtype = 1> ()  e = SequenceAt (s, minus)",
        "s = SplitToSequence <axis = 9> (x)  e = SequenceAt (s, i0)",
        "s = SplitToSequence <axis = 1> (x, minus)  e = SequenceAt (s, i0)",
        "s = SplitToSequence <axis = 1> (x, i0)  e = SequenceAt (s, i0)",
        "e = Scan <num_scan_inputs = 5, body = b (float[4,3] r) => (float[4,3] o)"
        " { o = Tanh (r) }> (x)",
        "e = Scan <num_scan_inputs = 1, scan_input_axes = [7], body = b (float[4,3] r)"
        " => (float[4,3] o) { o = Tanh (r) }> (x)",
        "e = Scan <num_scan_inputs = 1, body = b () => (float[4,3] o) { o = Tanh (x) }> (x)",
        "e = Loop <body = b (int64 i) => (bool c2) { c2 = Identity (true) }> (i2, , x)",
        "e = Loop <body = b (int64 i, bool c, float[1] h) => (bool c2) { c2 = Identity (c) }>"
        " (i2, , x)",
        "o = Optional <type = float> ()  e = OptionalGetElement (o)",
        "e = Loop (i2, , x)",
        "e = If (true)",
        "e = Loop <body = b (int64 i, bool c, float[1,4,3] h) => (bool p, float[1,4,3] g)"
        " { p = Identity (q)  q = Identity (p)  g = Tanh (h) }> (i2, , x)",
        "e = If (true) <then_branch = t () => (float t0) { t0 = Tanh (t1)  t1 = Tanh (t0) },"
        " else_branch = f () => (float f0) { f0 = Tanh (x) }>",
    ],
)
def test_what_cannot_run_ends_in_a_coded_error(body: str) -> None:
    written = body + "  t2 = Tanh (e)  r2 = ReduceSum <keepdims = 0> (t2)  y = Mul (W, r2)"
    with pytest.raises(PalrpError):
        explained(opened(proto(written, {"x": X}, WEIGHTS, free=(0, 1))), {"x": X})


@pytest.mark.parametrize("engine", ["onnxruntime", "numpy"])
def test_a_branch_may_read_an_input_that_the_other_does_not(engine: str) -> None:
    """The input that is left over stays an input of the graph."""
    written = (
        "r = If (c) <then_branch = t () => (float[1,4,3] t0) { t0 = Tanh (x) },"
        " else_branch = f () => (float[1,4,3] f0) { f0 = Neg (z) }>"
        "  m = ReduceSum <keepdims = 0> (r, v1)  y = MatMul (m, W)"
    )
    z = real(1, 4, 3, seed=9)
    feeds = {"x": X, "z": z, "c": np.array(True)}
    model = opened(proto(written, feeds, WEIGHTS, free=(0, 1)))
    column = WEIGHTS["W"][:, 0]
    _, found = explained(model, feeds, engine=engine)
    np.testing.assert_allclose(found, np.tanh(X) * column, rtol=1e-4, atol=1e-6)
    _, found = explained(model, {**feeds, "c": np.array(False)}, engine=engine)
    np.testing.assert_allclose(found, -z * column, rtol=1e-4, atol=1e-6)
    assert inspect(model).explainable


def test_a_compiled_graph_has_the_rounds_of_its_example_and_says_so(tmp_path: Path) -> None:
    for count, said in (("n", ["branches"]), ("four", [])):
        four = "four = Constant <value_int = 4> ()\n"
        body = LENGTH + four + loop(count, "", "h0", ENTRY) + "y = MatMul (hn, W)"
        onnx.save(proto(body, {"x": X}, WEIGHTS, free=(0, 1)), tmp_path / "model.onnx")
        np.savez(tmp_path / "example.npz", x=X)
        explainer = tmp_path / "explainer.onnx"
        settings = CompileSettings(features=True)
        explainer.write_bytes(
            compile_model(
                tmp_path / "model.onnx",
                explainer,
                example=tmp_path / "example.npz",
                settings=settings,
            )
        )
        assert not any(n.op_type == "Loop" for n in onnx.load(explainer).graph.node)
        record, found = explained(Model.open(explainer), {"x": X})
        _, expected = explained(Model.open(tmp_path / "model.onnx"), {"x": X})
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
        assert [w.code for w in record.warnings if w.code == "branches"] == said


def test_a_circle_inside_of_a_loop_that_constants_count_is_an_error_of_the_file() -> None:
    body = """h = Loop(i3, , h0) <body = b (int64 i, bool c, float[1,3] s)
        => (bool d, float[1,3] t) { t = Mul(t, a)  d = Identity(c) }>
        e = ReduceSum <keepdims=0> (x, v1)  y = Add(e, h)"""
    with pytest.raises(ModelError, match="not well formed"):
        opened(proto(body, {"x": X}, {k: WEIGHTS[k] for k in ("a", "h0", "i3", "v1")}))


@pytest.mark.parametrize(
    "damage", ["no body", "body of another type", "circle inside", "empty condition"]
)
def test_a_damaged_loop_is_an_error_of_the_file(damage: str) -> None:
    body = """go = Cast <to=9> (i1)  h = Loop(i3, go, h0) <body = b (int64 i, bool c, float[1,3] s)
        => (bool d, float[1,3] t) { q = Mul(s, a)  t = Relu(q)  n = ReduceSum <keepdims=0> (t)
        d = Less(n, bound) }>  e = ReduceSum <keepdims=0> (x, v1)  y = Add(e, h)"""
    weights = {k: WEIGHTS[k] for k in ("a", "h0", "i1", "i3", "v1", "bound")}
    if damage == "empty condition":
        weights["bound"] = np.zeros(0, np.float32)
    model = proto(body, {"x": X}, weights)
    (loop,) = (node for node in model.graph.node if node.op_type == "Loop")
    if damage == "no body":
        loop.ClearField("attribute")
    elif damage == "body of another type":
        loop.attribute[0].CopyFrom(onnx.helper.make_attribute("body", 1))
    elif damage == "circle inside":
        loop.attribute[0].g.node[0].input[0] = "t"
    with pytest.raises(PalrpError):
        Explainer(opened(model)).engine({"x": X})


def test_a_loop_that_does_not_end_is_refused_without_an_input() -> None:
    body = """go = Cast <to=9> (i1)  h = Loop(huge, go, h0) <body = b
        (int64 i, bool c, float[1,3] s) => (bool d, float[1,3] t)
        { t = Mul(s, a)  d = Identity(c) }>  e = ReduceSum <keepdims=0> (x, v1)  y = Add(e, h)"""
    weights = {k: WEIGHTS[k] for k in ("a", "h0", "i1", "huge", "v1")}
    with pytest.raises(UnsupportedError, match="graph of more than"):
        inspect(opened(proto(body, {"x": X}, weights)))
