"""Graphs that nobody designed: both engines agree, and the ledger closes."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from building import Array, ints, opened, proto, real
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from palrp_onnx import Explainer
from palrp_onnx.inputs.sample import Sample
from palrp_onnx.record import PARTS, InputFacts, unmapped

TOKENS, WIDTH = 5, 4
FUNCTIONS = ("Relu", "Tanh", "Sigmoid", "Gelu", "Erf", "Neg", "Softplus", "Elu")


@dataclass
class Sketch:
    """A graph under construction; every value in ``values`` is [B, T, F].

    Attributes:
        lines: Nodes.
        weights: Initializers.
        values: Names to choose operands from.
    """

    draw: st.DrawFn
    lines: list[str] = field(default_factory=list)
    weights: dict[str, Array] = field(default_factory=dict)
    values: list[str] = field(default_factory=lambda: ["x"])

    def node(self, expression: str) -> str:
        name = f"v{len(self.lines)}"
        self.lines.append(f"{name} = {expression}")
        return name

    def keep(self, expression: str) -> None:
        self.values.append(self.node(expression))

    def weight(self, array: Array) -> str:
        name = f"w{len(self.weights)}"
        self.weights[name] = array
        return name

    def random(self, *shape: int) -> str:
        return self.weight(0.7 * real(*shape, seed=len(self.weights) + 20))

    def pick(self) -> str:
        return self.draw(st.sampled_from(self.values[-3:]))


def function(s: Sketch) -> None:
    s.keep(f"{s.draw(st.sampled_from(FUNCTIONS))}({s.pick()})")


def two(s: Sketch) -> None:
    s.keep(f"{s.draw(st.sampled_from(('Add', 'Sub', 'Mul', 'Max')))}({s.pick()}, {s.pick()})")


def project(s: Sketch) -> None:
    product = s.node(f"MatMul({s.pick()}, {s.random(WIDTH, WIDTH)})")
    s.keep(f"Add({product}, {s.random(WIDTH)})")


def position(s: Sketch) -> None:
    s.keep(f"{s.draw(st.sampled_from(('Add', 'Mul')))}({s.pick()}, {s.random(TOKENS, WIDTH)})")


def normalise(s: Sketch) -> None:
    s.keep(f"LayerNormalization({s.pick()}, {s.random(WIDTH)}, {s.random(WIDTH)})")


def attend(s: Sketch) -> None:
    keys = s.node(f"Transpose<perm = [0, 2, 1]>({s.pick()})")
    scores = s.node(f"MatMul({s.pick()}, {keys})")
    if s.draw(st.booleans()):
        hidden = np.triu(np.full((TOKENS, TOKENS), -np.inf, np.float32), 1)
        scores = s.node(f"Add({scores}, {s.weight(hidden)})")
    weights = s.node(f"Softmax<axis = -1>({scores})")
    s.keep(f"MatMul({weights}, {s.pick()})")


def fold(s: Sketch) -> None:
    """Heads and back, or a rotation of halves."""
    if s.draw(st.booleans()):
        parted = s.node(f"Reshape({s.pick()}, {s.weight(ints(0, 0, 2, -1))})")
        turned = s.node(f"Transpose<perm = [0, 1, 3, 2]>({parted})")
        s.keep(f"Reshape({turned}, {s.weight(ints(0, 0, -1))})")
    else:
        name = s.pick()
        axis, end = s.weight(ints(2)), s.weight(ints(WIDTH))
        middle = s.weight(ints(WIDTH // 2))
        low = s.node(f"Slice({name}, {s.weight(ints(0))}, {middle}, {axis})")
        high = s.node(f"Slice({name}, {middle}, {end}, {axis})")
        s.keep(f"Concat<axis = 2>({s.node(f'Neg({high})')}, {low})")


def head(s: Sketch) -> None:
    source = s.values[-1]
    match s.draw(st.sampled_from(("mean", "first", "last", "tokens"))):
        case "mean":
            pooled = s.node(f"ReduceMean<keepdims = 0>({source}, {s.weight(ints(1))})")
        case "first":
            pooled = s.node(f"Gather<axis = 1>({source}, {s.weight(np.array(0))})")
        case "last":
            pooled = s.node(f"Gather<axis = 1>({source}, {s.weight(np.array(-1))})")
        case _:
            pooled = source
    s.lines.append(f"y = MatMul({pooled}, {s.random(WIDTH, 3)})")


PIECES = (function, two, project, position, normalise, attend, fold)


@st.composite
def graphs(draw: st.DrawFn) -> Sketch:
    sketch = Sketch(draw)
    for _ in range(draw(st.integers(2, 8))):
        draw(st.sampled_from(PIECES))(sketch)
    head(sketch)
    return sketch


@given(graphs(), st.integers(0, 5))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_both_engines_agree_and_the_ledger_closes(sketch: Sketch, seed: int) -> None:
    x = 0.8 * real(2, TOKENS, WIDTH, seed=seed)
    model = opened(proto("\n".join(sketch.lines), {"x": x}, sketch.weights, opset=20))
    sample = Sample("x", "tensors", {"x": x}, InputFacts(kind="tensors", truncated=False))
    exact = Explainer(model, dtype="float64").explain(sample)
    compiled = Explainer(model).explain(sample)
    for ours, reference in zip(compiled, exact, strict=True):
        assert abs(reference.record.ledger["residual_relative"]) < 1e-9
        scale = sum(abs(v) for k, v in reference.record.ledger.items() if "residual" not in k)
        for found, close in ((reference, 1e-9), (ours, 2e-3)):
            for missed in unmapped(found.record.maps, found.record.ledger).values():
                assert abs(missed) <= close * max(scale, 1e-3)
        for part in PARTS:
            mine, theirs = (getattr(e.record.relevance, part) for e in (ours, reference))
            np.testing.assert_allclose(mine, theirs, atol=2e-3 * max(scale, 1e-3))
        for entry, amount in reference.record.ledger.items():
            if entry != "residual_relative":
                assert abs(ours.record.ledger[entry] - amount) <= 2e-3 * max(scale, 1e-3)
