"""What it costs to open, analyse and plan a graph, per node, from a thousand nodes to eighty.

    python benchmarks/analysis_time.py
    python benchmarks/analysis_time.py --kinds transformer --nodes 1000 20000 --profile 25

Graphs are built in code and are narrow, so that nodes count and numbers do not: a stack of
Transformer layers with a mask and relative positions that all layers share, chains of element-wise
operations, conditional branches and a loop. Seconds are those of the processor in the main thread,
so that a busy machine says the same. Those in ONNX Runtime (sessions of the trial runs) have a
column of their own. Python's collector of cycles rests meanwhile: what it costs depends on the
objects that there were before, up to the time that it takes to open a file once more. Ratios are of
microseconds per node to those of the smallest graph: about 1 where time is linear in nodes.
"""

from __future__ import annotations

import argparse
import cProfile
import gc
import pstats
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper, save

from palrp_onnx import Model
from palrp_onnx import session as runtime
from palrp_onnx.compiler.graph import CompileSettings, compile_graph
from palrp_onnx.prepare import plan_model
from palrp_onnx.relevance.methods import METHODS

NODES = (1_000, 5_000, 20_000, 80_000)
WIDTH, HEADS, ROWS, LENGTH = 8, 2, 32, 16


class Builder:
    """Nodes and weights of a graph, one after the other."""

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.weights: dict[str, Any] = {}
        self._random = np.random.default_rng(0)

    def __call__(self, op_type: str, *inputs: str, **attributes: Any) -> str:
        """A node; the name of what it yields."""
        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(op_type, list(inputs), [name], name, **attributes))
        return name

    def stored(self, *shape: int) -> str:
        """Random weights."""
        return self.constant(self._random.normal(size=shape).astype(np.float32) / 3)

    def constant(self, array: Any) -> str:
        """A stored array."""
        name = f"w{len(self.weights)}"
        self.weights[name] = np.asarray(array)
        return name

    def number(self, number: float) -> str:
        """A stored number."""
        return self.constant(np.float32(number))

    def model(self, output: str, *inputs: str) -> ModelProto:
        """The graph of real or whole inputs [B, T]: ``x``, ``ids``, ``mask``."""
        kinds = {"x": TensorProto.FLOAT}
        shapes: dict[str, list[str | int]] = {"x": ["batch", "tokens", WIDTH]}
        graph: GraphProto = helper.make_graph(
            self.nodes,
            "graph",
            [
                helper.make_tensor_value_info(
                    name, kinds.get(name, TensorProto.INT64), shapes.get(name, ["batch", "tokens"])
                )
                for name in inputs
            ],
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)],
            [numpy_helper.from_array(array, name) for name, array in self.weights.items()],
        )
        return helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name="made"
        )


def transformer(nodes: int) -> ModelProto:
    """Layers of attention and feed-forward, as exporters write them."""
    b = Builder()
    one, low, root = b.number(1), b.number(-1e4), b.number(2.0)
    cut = b.constant(np.array([0, 0, HEADS, WIDTH // HEADS]))
    join = b.constant(np.array([0, 0, WIDTH]))
    start, axis, axes = (b.constant(np.array(n)) for n in ([0], [1], [1, 2]))
    length = b("Shape", "ids", start=1, end=2)
    rows = b("Slice", b.stored(1, LENGTH, WIDTH), start, length, axis)
    x = b("Add", b("Gather", b.stored(ROWS, WIDTH), "ids"), rows)
    off = b("Mul", b("Sub", one, b("Cast", "mask", to=TensorProto.FLOAT)), low)
    ends = b("Concat", length, length, axis=0)
    places = b.constant(np.array([0, 0])), ends, b.constant(np.array([2, 3]))
    bias = b("Slice", b.stored(1, HEADS, LENGTH, LENGTH), *places)
    shared = b("Add", b("Unsqueeze", off, axes), bias)

    def norm(x: str) -> str:
        mean = b("ReduceMean", x, axes=[-1])
        centred = b("Sub", x, mean)
        variance = b("ReduceMean", b("Pow", centred, root), axes=[-1])
        scaled = b("Div", centred, b("Sqrt", b("Add", variance, b.number(1e-5))))
        return b("Add", b("Mul", scaled, b.stored(WIDTH)), b.stored(WIDTH))

    def linear(x: str, width: int = WIDTH, to: int = WIDTH) -> str:
        return b("Add", b("MatMul", x, b.stored(width, to)), b.stored(to))

    while len(b.nodes) < nodes - 4:
        h = norm(x)
        q, k, v = (b("Reshape", linear(h), cut) for _ in range(3))
        q, v = (b("Transpose", each, perm=[0, 2, 1, 3]) for each in (q, v))
        scores = b("Div", b("MatMul", q, b("Transpose", k, perm=[0, 2, 3, 1])), root)
        weighed = b("MatMul", b("Softmax", b("Add", scores, shared), axis=-1), v)
        joined = b("Reshape", b("Transpose", weighed, perm=[0, 2, 1, 3]), join)
        x = b("Add", x, linear(joined))
        h = linear(norm(x), to=2 * WIDTH)
        gate = b("Add", b("Erf", b("Div", h, root)), one)
        h = b("Mul", b("Mul", h, gate), b.number(0.5))
        x = b("Add", x, linear(h, 2 * WIDTH))
    pooled = b("ReduceMean", norm(x), axes=[1], keepdims=0)
    return b.model(linear(pooled, to=3), "ids", "mask")


def _head(b: Builder, x: str) -> str:
    return b("MatMul", b("ReduceMean", x, axes=[1], keepdims=0), b.stored(WIDTH, 3))


def functions(nodes: int) -> ModelProto:
    """One function of one operand after the other."""
    b, x = Builder(), "x"
    shift, scale = b.stored(WIDTH), b.number(0.9)
    while len(b.nodes) < nodes - 2:
        x = b("Tanh", b("Mul", b("Add", x, shift), scale))
    return b.model(_head(b, x), "x")


def residuals(nodes: int) -> ModelProto:
    """x + x · σ(x), again and again: long chains of dominators."""
    b, x = Builder(), "x"
    while len(b.nodes) < nodes - 2:
        x = b("Add", x, b("Mul", b("Mul", x, b("Sigmoid", x)), b.number(0.01)))
    return b.model(_head(b, x), "x")


def diamonds(nodes: int) -> ModelProto:
    """Quarters of sums of a value with itself, without content and with it: 2ⁿ paths."""
    b, x = Builder(), "x"
    quarter = b.number(0.25)
    p = b("Slice", b.stored(1, LENGTH, WIDTH), *_first(b))

    def doubled(value: str) -> str:
        once = b("Add", value, value)
        return b("Mul", b("Add", once, once), quarter)

    while len(b.nodes) < nodes / 2:
        p = doubled(p)
    x = b("Add", x, p)
    while len(b.nodes) < nodes - 2:
        x = doubled(x)
    return b.model(_head(b, x), "x")


def _first(b: Builder) -> tuple[str, str, str]:
    """Start, end and axis of a slice: as many rows as there are tokens."""
    return (
        b.constant(np.array([0])),
        b("Shape", "x", start=1, end=2),
        b.constant(np.array([1])),
    )


def branches(nodes: int) -> ModelProto:
    """Conditions that are stored, each with a node of its own to take and one to leave."""
    b, x = Builder(), "x"
    b.weights["yes"] = np.array(True)

    def body(name: str, op_type: str) -> GraphProto:
        node = helper.make_node(op_type, [x], [name], name)
        return helper.make_graph(
            [node], name, [], [helper.make_tensor_value_info(name, TensorProto.FLOAT, None)]
        )

    while len(b.nodes) < nodes / 3:
        count = len(b.nodes)
        taken, left = body(f"then{count}", "Tanh"), body(f"else{count}", "Sin")
        x = b("If", "yes", then_branch=taken, else_branch=left)
    return b.model(_head(b, x), "x")


def rounds(nodes: int) -> ModelProto:
    """A loop of four nodes whose number of rounds is stored, after which it is written out."""
    b = Builder()
    b.weights |= {"count": np.array(nodes // 4), "ten": np.array(10), "yes": np.array(True)}
    scale, shift = b.number(0.9), b.stored(WIDTH)
    kinds = {"i": TensorProto.INT64, "c": TensorProto.BOOL, "h": TensorProto.FLOAT}
    body = helper.make_graph(
        [
            helper.make_node("Mod", ["i", "ten"], ["place"]),  # a constant in every round
            helper.make_node("Gather", ["rows", "place"], ["row"], axis=0),
            helper.make_node("Add", ["h", "row"], ["sum"]),
            helper.make_node("Mul", ["sum", scale], ["scaled"]),
            helper.make_node("Tanh", ["scaled"], ["new"]),
            helper.make_node("Identity", ["c"], ["on"]),
        ],
        "body",
        [
            helper.make_tensor_value_info(name, kind, None if name == "h" else [])
            for name, kind in kinds.items()
        ],
        [
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("new", TensorProto.FLOAT, None),
        ],
    )
    b.weights["rows"] = np.ones((10, WIDTH), np.float32) / 9
    return b.model(_head(b, b("Add", b("Loop", "count", "yes", "x", body=body), shift)), "x")


KINDS: dict[str, Callable[[int], ModelProto]] = {
    f.__name__: f for f in (transformer, functions, residuals, diamonds, branches, rounds)
}


class Clock:
    """Seconds by stage, those in ONNX Runtime on their own."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._inside = 0.0

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """What runs inside is of this stage, but for what is in ONNX Runtime."""
        before, start = self._inside, time.thread_time()
        yield
        spent = time.thread_time() - start
        self.seconds[name] = spent - (self._inside - before)

    def watched(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, timed as ONNX Runtime's."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            start = time.thread_time()
            try:
                return function(*args, **kwargs)
            finally:
                self._inside += time.thread_time() - start

        return timed


def measure(proto: ModelProto, folder: Path, *, compiled: bool) -> tuple[dict[str, float], int]:
    """Seconds by stage, and how many nodes the plain graph has."""
    path = folder / "model.onnx"
    save(proto, path)
    clock = Clock()
    opened, run = runtime.Session.__init__, runtime.Session.run
    runtime.Session.__init__ = clock.watched(opened)  # type: ignore[method-assign]
    runtime.Session.run = clock.watched(run)  # type: ignore[method-assign]
    gc.collect()
    gc.disable()
    try:
        with clock.stage("open"):
            model = Model.open(path)
        with clock.stage("prepare"):
            planned = plan_model(model, None, METHODS["pa-lrp"])
        nodes = len(planned.analysis.model.graph)
        if compiled:
            with clock.stage("compile"):
                compile_graph(planned, CompileSettings(features=True))
    finally:
        gc.enable()
        runtime.Session.__init__ = opened  # type: ignore[method-assign]
        runtime.Session.run = run  # type: ignore[method-assign]
    return {**clock.seconds, "runtime": clock._inside}, nodes


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=list(KINDS))
    parser.add_argument("--nodes", nargs="+", type=int, default=list(NODES))
    parser.add_argument("--compile", action="store_true", help="compile the graph as well")
    parser.add_argument("--profile", type=int, default=0, metavar="LINES")
    options = parser.parse_args()
    stages = ("open", "prepare", *(["compile"] if options.compile else []), "runtime")
    head = "".join(f"{s + ' s':>11}" for s in stages)
    tail = "".join(f"{s + ' µs':>12}{'ratio':>7}" for s in stages[:-1])
    print(f"{'kind':12}{'nodes':>8}{head}{tail}")
    for kind in options.kinds:
        first: dict[str, float] = {}
        for count in options.nodes:
            profiler = cProfile.Profile()
            with tempfile.TemporaryDirectory() as folder:
                if options.profile:
                    profiler.enable()
                seconds, nodes = measure(KINDS[kind](count), Path(folder), compiled=options.compile)
                profiler.disable()
            each = {s: seconds[s] / nodes * 1e6 for s in stages[:-1]}
            first = first or each
            row = "".join(f"{seconds[s]:11.2f}" for s in stages)
            row += "".join(f"{each[s]:12.1f}{each[s] / first[s]:7.2f}" for s in stages[:-1])
            print(f"{kind:12}{nodes:8}{row}", flush=True)
            if options.profile:
                pstats.Stats(profiler).sort_stats("cumulative").print_stats(options.profile)


if __name__ == "__main__":
    main()
