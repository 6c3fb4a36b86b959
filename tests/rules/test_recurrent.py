"""LSTM, GRU and RNN against cells that are unrolled by hand, in every form of the operations."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from building import Array, Walk, again, opened, proto, real, walk, wide
from unrolled import FUNCTIONS, Cell, Relevance, Step, explain

from palrp_onnx import Explainer
from palrp_onnx.errors import PalrpError, UnsupportedError
from palrp_onnx.inputs.sample import Sample
from palrp_onnx.record import InputFacts

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
USUAL = {"LSTM": ["Sigmoid", "Tanh", "Tanh"], "GRU": ["Sigmoid", "Tanh"], "RNN": ["Tanh"]}
#: Numbers α and β of activation functions, as in ``unrolled.FUNCTIONS``.
NUMBERS = {
    "Affine": (0.7, 0.2),
    "HardSigmoid": (0.2, 0.5),
    "ScaledTanh": (0.7, 0.2),
    "ThresholdedRelu": (0.7, None),
}
T, B, FEATURES, H = 5, 3, 4, 3
LENGTHS = np.array([5, 2, 4], np.int32)


@dataclass(frozen=True)
class Form:
    """One use of an operation.

    Attributes:
        kind: The operation.
        direction: Its direction.
        outputs: Which outputs are read: y, h, c.
        lengths: Whether sequences have lengths.
        states: Whether there are initial states.
        biases: Whether there are biases.
        peepholes: Whether there are peepholes.
        functions: Activation functions of one direction; the usual ones if empty.
        opset: Opset of the model.
        attributes: Further attributes.
    """

    kind: str
    direction: str = "forward"
    outputs: str = "y"
    lengths: bool = False
    states: bool = False
    biases: bool = True
    peepholes: bool = False
    functions: tuple[str, ...] = ()
    opset: int = 18
    attributes: dict[str, Any] = field(default_factory=dict, hash=False)

    def __str__(self) -> str:
        flags = [n for n in ("lengths", "states", "peepholes") if getattr(self, n)]
        named = [f"{k}={v}" for k, v in self.attributes.items()]
        rest = [] if self.biases else ["unbiased"]
        opset = [str(self.opset)] if self.opset != 18 else []
        parts = [self.kind, self.direction, self.outputs, *flags, *rest, *self.functions]
        return "-".join([*parts, *named, *opset])

    @property
    def count(self) -> int:
        """Number of directions."""
        return 2 if self.direction == "bidirectional" else 1

    @property
    def weights(self) -> dict[str, Array]:
        """Its weights, by name."""
        d, n = self.count, GATES[self.kind] * H
        found = {
            "w": real(d, n, FEATURES, seed=1, low=-0.6, high=0.6),
            "r": real(d, n, H, seed=2, low=-0.9, high=0.9),
        }
        if self.biases:
            found["b"] = real(d, 2 * n, seed=3, low=-0.5, high=0.5)
        if self.lengths:
            found["n"] = LENGTHS
        if self.states:
            found["h0"] = real(d, B, H, seed=4)
        if self.states and self.kind == "LSTM":
            found["c0"] = real(d, B, H, seed=5)
        if self.peepholes:
            found["p"] = real(d, 3 * H, seed=6)
        return found

    @property
    def body(self) -> str:
        """The graph: all read outputs, side by side, as [B, …]."""
        given = self.weights
        names = [n if n in given else "" for n in ("w", "r", "b", "n", "h0", "c0", "p")]
        if self.kind != "LSTM":
            names = names[:5]
        while not names[-1]:
            names.pop()
        attributes = [f"hidden_size={H}", f'direction="{self.direction}"']
        if self.functions:
            all_functions = [*self.functions] * self.count
            quoted = ", ".join(f'"{n}"' for n in all_functions)
            attributes.append(f"activations=[{quoted}]")
            for name, which in (("activation_alpha", 0), ("activation_beta", 1)):
                numbers = [NUMBERS.get(n, (None, None))[which] for n in all_functions]
                if listed := [str(n) for n in numbers if n is not None]:
                    attributes.append(f"{name}=[{', '.join(listed)}]")
        attributes += [f"{k}={v}" for k, v in self.attributes.items()]
        results = [n if n in self.outputs else "" for n in ("y", "h", "c")]
        while not results[-1]:
            results.pop()
        listed_results = ", ".join(f"{n}1" if n else "" for n in results)
        parts = [
            "t = Transpose<perm=[1, 0, 2]>(x)",
            f"{listed_results} = {self.kind}<{', '.join(attributes)}>({', '.join(['t', *names])})",
        ]
        shaped = []
        for name in self.outputs:
            perm = [2, 0, 1, 3] if name == "y" else [1, 0, 2]
            parts.append(f"{name}2 = Transpose<perm={perm}>({name}1)")
            parts.append(f"{name}3 = Flatten({name}2)")
            shaped.append(f"{name}3")
        parts.append(f"y = Concat<axis=1>({', '.join(shaped)})")
        return "  ".join(parts)

    @property
    def model(self) -> onnx.ModelProto:
        """The model; its batch is fixed where operands have one entry for each sample."""
        free = () if self.lengths or self.states else (0,)
        x = {"x": X}
        return proto(self.body, x, self.weights, opset=self.opset, free=free)

    def cell(self, k: int) -> Cell:
        """The cell of one direction."""
        given = {n: wide(a) for n, a in self.weights.items()}
        n = GATES[self.kind] * H
        return Cell(
            self.kind,
            given["w"][k],
            given["r"][k],
            given["b"][k] if self.biases else np.zeros(2 * n),
            given["p"][k] if self.peepholes else np.zeros(3 * H),
            [FUNCTIONS[n] for n in self.functions or USUAL[self.kind]],
            late=bool(self.attributes.get("linear_before_reset")),
            coupled=bool(self.attributes.get("input_forget")),
            clip=self.attributes.get("clip", math.inf),
        )


X = real(B, T, FEATURES, seed=9)
EVERY = [
    *[
        Form(kind, direction, outputs, lengths=lengths, states=states)
        for kind in GATES
        for direction in ("forward", "reverse", "bidirectional")
        for outputs in (("y", "h", "yh", "c", "yhc") if kind == "LSTM" else ("y", "h", "yh"))
        for lengths, states in ((False, False), (True, True), (True, False))
    ],
    *[Form(kind, biases=False, states=True) for kind in GATES],
    *[Form(kind, "bidirectional", "yh", opset=n) for kind in GATES for n in (7, 13, 21, 22)],
    *[
        Form("GRU", d, "yh", lengths=True, states=True, attributes={"linear_before_reset": 1})
        for d in ("forward", "reverse", "bidirectional")
    ],
    *[Form(kind, "bidirectional", "yh", attributes={"clip": 0.4}) for kind in GATES],
    *[
        Form("LSTM", d, "yhc", peepholes=True, states=True, lengths=True, attributes=more)
        for d in ("forward", "bidirectional")
        for more in ({}, {"input_forget": 1})
    ],
    Form("LSTM", outputs="yhc", attributes={"input_forget": 1}),
    *[Form("RNN", "bidirectional", "yh", functions=(f,)) for f in FUNCTIONS],
    *[Form("GRU", "reverse", "yh", functions=("HardSigmoid", f)) for f in FUNCTIONS],
    *[Form("LSTM", outputs="yhc", lengths=True, functions=("Sigmoid", f, f)) for f in FUNCTIONS],
    Form("LSTM", "bidirectional", "yhc", functions=("HardSigmoid", "Affine", "ScaledTanh")),
]


@cache
def by_engine(form: Form) -> Walk:
    return walk(opened(form.model), {"x": X})


def by_hand(form: Form, seed: Array) -> list[list[Relevance]]:
    """LRP of every sample in every direction."""
    given = {n: wide(a) for n, a in form.weights.items()}
    ends = np.cumsum([T * form.count * H if n == "y" else form.count * H for n in form.outputs])
    pieces = dict(zip(form.outputs, np.split(seed, ends[:-1], axis=1), strict=True))
    found = []
    for sample in range(B):
        length = int(LENGTHS[sample]) if form.lengths else T
        m = pieces.get("y", np.zeros((B, T * form.count * H)))[sample].reshape(T, form.count, H)
        last = [
            pieces.get(n, np.zeros((B, form.count * H)))[sample].reshape(form.count, H)
            for n in "hc"
        ]
        own = []
        for k in range(form.count):
            turned = slice(None, None, -1 if k == 1 or form.direction == "reverse" else 1)
            start = [given[n][k, sample] if n in given else np.zeros(H) for n in ("h0", "c0")]
            x = wide(X)[sample, :length][turned]
            one = explain(form.cell(k), x, *start, m[:length, k][turned], last[0][k], last[1][k])
            one.x = np.concatenate([one.x[turned], np.zeros((T - length, FEATURES))])
            one.y = np.concatenate([one.y[turned], np.zeros((T - length, H))])
            own.append(one)
        found.append(own)
    return found


@pytest.mark.parametrize("form", EVERY, ids=str)
def test_relevance_is_that_of_the_unrolled_cell(form: Form) -> None:
    found = by_engine(form)
    hand = by_hand(form, found.seed)
    x = np.array([sum(one.x for one in own) for own in hand])
    scale = np.abs(x).max()
    np.testing.assert_allclose(found.content, x, rtol=1e-6, atol=1e-7 * scale)
    ledger = found.result.ledger
    for entry in ("bias", "other"):
        expected = np.array([sum(getattr(one, entry) for one in own) for own in hand])
        if entry == "bias":  # initial states are constants of these models
            expected += [sum(float(one.h.sum() + one.c.sum()) for one in own) for own in hand]
        np.testing.assert_allclose(ledger[entry], expected, rtol=1e-6, atol=1e-7 * scale)
    assert found.residual < 1e-10


@pytest.mark.parametrize("form", EVERY, ids=str)
def test_float64_is_the_forward_pass_of_the_runtime(form: Form) -> None:
    session = onnxruntime.InferenceSession(form.model.SerializeToString())
    (expected,) = session.run(["y"], {"x": X})
    np.testing.assert_allclose(by_engine(form).y, expected, rtol=1e-4, atol=1e-5)


# --- both engines --------------------------------------------------------------------------------
SOME = [
    *[Form(kind, "bidirectional", "yh", lengths=True, states=True) for kind in GATES],
    Form("LSTM", "bidirectional", "yhc", peepholes=True, attributes={"input_forget": 1}),
    Form("GRU", "reverse", "h", attributes={"linear_before_reset": 1}),
    *[Form("LSTM", outputs="c", opset=n) for n in (7, 22)],
    *[Form(k, functions=("Softplus",) * n) for k, n in (("LSTM", 3), ("GRU", 2), ("RNN", 1))],
    Form("LSTM", functions=("HardSigmoid", "ScaledTanh", "Affine"), attributes={"clip": 0.4}),
    *[Form("RNN", functions=(f,)) for f in FUNCTIONS],
]


def sample(x: Array) -> Sample:
    return Sample("x", "tensors", {"x": x}, InputFacts(kind="tensors"))


@pytest.mark.parametrize("form", SOME, ids=str)
def test_the_emitted_rule_computes_the_same(form: Form) -> None:
    model = opened(form.model)
    numpy, compiled = Explainer(model, engine="numpy"), Explainer(model)
    for target in ("0", "2"):
        expected, found = (e.explain(sample(X), target) for e in (numpy, compiled))
        for ours, reference in zip(found, expected, strict=True):
            for name, array in reference.tensors.items():
                scale = max(np.abs(array).max(), 1e-6)
                np.testing.assert_allclose(ours.tensors[name], array, atol=1e-4 * scale)


@pytest.mark.parametrize("kind", GATES)
def test_half_precision_is_close_to_full(kind: str) -> None:
    form = Form(kind, "bidirectional", "yh")
    small = {n: a.astype(np.float16) for n, a in form.weights.items()}
    body = form.body.replace("y = Concat", "z = Concat") + "  y = Cast<to=1>(z)"
    half = opened(proto(body, {"x": X.astype(np.float16)}, small))
    for engine in ("numpy", "onnxruntime"):
        found = Explainer(half, engine=engine).explain(sample(X.astype(np.float16)), "33")
        full = Explainer(opened(form.model), engine="numpy").explain(sample(X), "33")
        for ours, theirs in zip(found, full, strict=True):
            mine, other = (np.array(e.record.relevance.total) for e in (ours, theirs))
            assert np.abs(mine - other).max() <= 1e-2 * np.abs(other).max()
            assert abs(ours.record.ledger["residual_relative"]) < 2e-3


# --- laws ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("form", [Form(k, "bidirectional", "yh") for k in GATES], ids=str)
def test_a_batch_is_its_samples(form: Form) -> None:
    whole = by_engine(form)
    for k in range(B):
        alone = again(whole.engine, {"x": X[k : k + 1]}, whole.seed[k : k + 1])
        np.testing.assert_allclose(alone.content[0], whole.content[k], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("form", [Form(k, "bidirectional", "yh") for k in GATES], ids=str)
def test_linear_in_the_seed(form: Form) -> None:
    whole = by_engine(form)
    one, other = (again(whole.engine, whole.feeds, whole.seed * part) for part in (0.25, 0.75))
    np.testing.assert_allclose(one.content + other.content, whole.content, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("form", [Form(k, "bidirectional", "yh", True) for k in GATES], ids=str)
def test_what_is_in_the_padding_changes_nothing(form: Form) -> None:
    whole = by_engine(form)
    x = X.copy()
    padding = np.arange(T)[None] >= LENGTHS[:, None]
    x[padding] = 100.0
    other = again(whole.engine, {"x": x}, whole.seed)
    np.testing.assert_array_equal(other.content, whole.content)
    assert not other.content[padding].any()


@pytest.mark.parametrize("kind", GATES)
def test_a_long_sequence_closes_in_single_precision(kind: str) -> None:
    form = Form(kind, "bidirectional", "h")
    model = proto(form.body, {"x": X}, form.weights, free=(0, 1))
    x = real(2, 200, FEATURES, seed=10)
    for engine in ("numpy", "onnxruntime"):
        for found in Explainer(opened(model), engine=engine).explain(sample(x), "1"):
            assert abs(found.record.ledger["residual_relative"]) < 1e-5


@pytest.mark.parametrize("kind", GATES)
@pytest.mark.parametrize("late", [0, 1])
def test_the_same_as_primitive_operations_with_constant_gates(kind: str, late: int) -> None:
    """The cell as a graph of matrix products, sums, products with constants and ``Tanh``."""
    attributes = {"linear_before_reset": late} if kind == "GRU" else {}
    form = Form(kind, outputs="h", attributes=attributes)
    cell, x, state = form.cell(0), wide(X[:1]), (np.zeros(H), np.zeros(H))
    weights = {f"w{k}": cell.w[k * H : (k + 1) * H].T for k in range(GATES[kind])}
    weights |= {f"r{k}": cell.r[k * H : (k + 1) * H].T for k in range(GATES[kind])}
    own, other = np.split(cell.b, 2)
    weights |= {f"b{k}": own[k * H : (k + 1) * H] for k in range(GATES[kind])}
    weights |= {f"c{k}": other[k * H : (k + 1) * H] for k in range(GATES[kind])}
    weights |= {"h": np.zeros((1, H)), "s": np.zeros((1, H))}
    lines, signal = [], {"LSTM": 3, "GRU": 2, "RNN": 0}[kind]
    h, s = "h", "s"
    for t in range(T):
        step = Step(cell, x[0, t], *state)
        state = (step.h, step.c)
        for name in step.gates[0]:
            weights[f"{name}{t}"] = np.array([[g[name] for g in step.gates]])
        weights[f"q{t}"], weights[f"at{t}"] = step.resets[None], np.array(t)
        if kind == "GRU":
            weights[f"n{t}"] = 1 - weights[f"z{t}"]
        before = f"rs{t}" if kind == "GRU" and not late else h
        lines.append(f"x{t} = Gather<axis=1>(x, at{t})  u{t} = MatMul(x{t}, w{signal})")
        if before != h:
            lines.append(f"{before} = Mul(q{t}, {h})")
        lines.append(f"v{t} = MatMul({before}, r{signal})  vb{t} = Add(v{t}, c{signal})")
        late_v = f"vq{t}" if kind == "GRU" and late else f"vb{t}"
        if late_v != f"vb{t}":
            lines.append(f"{late_v} = Mul(q{t}, vb{t})")
        lines.append(f"ub{t} = Add(u{t}, b{signal})  sum{t} = Add(ub{t}, {late_v})")
        lines.append(f"g{t} = Tanh(sum{t})")
        after = f"h{t}"
        if kind == "LSTM":
            lines.append(f"e{t} = Mul(i{t}, g{t})  k{t} = Mul(f{t}, {s})  s{t} = Add(e{t}, k{t})")
            lines.append(f"th{t} = Tanh(s{t})  {after} = Mul(o{t}, th{t})")
        elif kind == "GRU":
            lines.append(
                f"e{t} = Mul(n{t}, g{t})  k{t} = Mul(z{t}, {h})  {after} = Add(e{t}, k{t})"
            )
        else:
            after = f"g{t}"
        h, s = after, f"s{t}"
    body = "  ".join([*lines, f"y = Identity({h})"])
    used = {n: np.asarray(a, np.float32) if n[:2] != "at" else a for n, a in weights.items()}
    used = {n: a for n, a in used.items() if f"{n}," in body or f"{n})" in body}
    plain = walk(opened(proto(body, {"x": X[:1]}, used)), {"x": X[:1]})
    whole = by_engine(form)
    found = again(whole.engine, {"x": X[:1]}, plain.seed)
    np.testing.assert_allclose(found.content, plain.content, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("method", ["gradient-x-input", "eps-lrp", "pa-lrp-gamma", "pa-lrp-alpha"])
@pytest.mark.parametrize("kind", GATES)
def test_methods_with_other_rules_for_products_are_refused(kind: str, method: str) -> None:
    with pytest.raises(UnsupportedError, match="recurrent layers under this method"):
        walk(opened(Form(kind).model), {"x": X}, method=method)


@pytest.mark.parametrize("method", ["attnlrp", "cp-lrp", "pa-lrp-kept", "pa-lrp-adaptive"])
def test_other_methods_are_the_same(method: str) -> None:
    form = Form("LSTM", "bidirectional", "yhc")
    found = walk(opened(form.model), {"x": X}, method=method)
    np.testing.assert_array_equal(found.content, by_engine(form).content)


def test_an_unknown_function_is_named() -> None:
    body = Form("RNN", functions=("Tanh",)).body.replace('"Tanh"', '"Cosine"')
    with pytest.raises(PalrpError, match="Cosine"):
        walk(opened(proto(body, {"x": X}, Form("RNN").weights)), {"x": X}, dtype="float32")


# --- what values mean ----------------------------------------------------------------------------
LAYER = {
    "w": real(1, 3 * H, FEATURES),
    "r": real(1, 3 * H, H, seed=2),
    "v": real(H, 2, seed=3),
}
GRU = "a, h = GRU<hidden_size=3>({operands})  s = Squeeze(h, first)  y = MatMul(s, v)"
FIRST = {"first": np.array([0])}


def explained(
    body: str,
    feeds: dict[str, Array],
    weights: dict[str, Array],
    *,
    free: tuple[int, ...] = (0, 1),
    **options: str,
) -> Any:
    model = opened(proto(body, feeds, {**LAYER, **FIRST, **weights}, free=free))
    given = Sample("x", "tensors", feeds, InputFacts(kind="tensors"))
    return Explainer(model, **options).explain(given, "1")


@pytest.mark.parametrize("engine", ["numpy", "onnxruntime"])
def test_steps_may_come_first(engine: str) -> None:
    """Steps and samples of a real input are those that the layer reads."""
    x = X.swapaxes(0, 1)
    first = explained(GRU.format(operands="x, w, r"), {"x": x}, {}, engine=engine)
    body = "t = Transpose<perm=[1, 0, 2]>(x)  " + GRU.format(operands="t, w, r")
    second = explained(body, {"x": X}, {}, engine=engine)
    assert len(first) == len(second) == B
    for ours, theirs in zip(first, second, strict=True):
        assert len(ours.record.relevance.total) == T
        np.testing.assert_allclose(ours.record.relevance.total, theirs.record.relevance.total)


def test_initial_states_that_are_inputs_have_entries_of_their_own() -> None:
    words = np.array([[3, 1, 4, 1], [5, 9, 2, 6]])
    body = "e = Gather(t, ids)  u = Transpose<perm=[1, 0, 2]>(e)  " + GRU.format(
        operands="u, w, r, , , h0"
    )
    feeds = {"ids": words, "h0": real(1, 2, H, seed=8)}
    weights = {"t": real(12, FEATURES, seed=5)}
    for found in explained(body, feeds, weights, free=()):
        assert found.record.ledger["h0"] != 0
        assert abs(found.record.ledger["residual_relative"]) < 1e-5


def test_samples_that_are_sorted_are_explained_one_at_a_time() -> None:
    """As sequences that are packed: sorted by their lengths, and put back."""
    body = """
        l = Cast<to=7>(n)  k, i = TopK<axis=0>(l, size)  back, o = TopK<axis=0, largest=0>(i, size)
        e = Gather(t, ids)  p = Gather(e, i)  u = Transpose<perm=[1, 0, 2]>(p)  m = Cast<to=6>(k)
        a, h = GRU<hidden_size=3>(u, w, r, , m)  b = Squeeze(h, first)  s = Gather(b, o)
        y = MatMul(s, v)
    """
    body = "z = Shape<start=0, end=1>(n)  " + body.replace("size)", "z)")
    words, weights = np.array([[3, 1, 4, 1, 0]]), {"t": real(12, FEATURES, seed=5)}
    feeds = {"ids": words, "n": np.array([4])}
    (found,) = explained(body, feeds, weights)
    assert found.record.relevance.total[4] == 0.0
    assert abs(found.record.ledger["residual_relative"]) < 1e-5
    both = {"ids": np.repeat(words, 2, 0), "n": np.array([4, 3])}
    with pytest.raises(PalrpError, match="samples are put in another order"):
        explained(body, both, weights)
