"""Weights of few bits stay in the file, and become real numbers where they are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from building import real
from onnx import TensorProto, helper, numpy_helper

from palrp_onnx import Explainer, Model
from palrp_onnx.compiler.graph import CompileSettings, compile_graph
from palrp_onnx.inputs.sample import Sample
from palrp_onnx.prepare import plan_model, shapes_of
from palrp_onnx.record import InputFacts
from palrp_onnx.relevance.method_parsing import resolve_method

WIDTH, TOKENS, SIZE = 512, 3, 32
FEEDS = {"x": real(1, TOKENS, WIDTH)}
#: A weight in four bits, in bytes.
PACKED = WIDTH * WIDTH // 2


def saved(
    folder: Path, *, bits: int = 4, zeros: str = "", opset: int = 21, layers: int = 3
) -> Model:
    """Products of packed weights with residual sums, and their weights in a file beside it."""
    random = np.random.default_rng(3)
    nodes, stored, x = [], [], "x"
    blocks = WIDTH // SIZE
    facts = {"K": WIDTH, "N": WIDTH, "bits": bits, "block_size": SIZE}
    for k in range(layers):
        shape = (WIDTH, blocks, SIZE * bits // 8)
        arrays: dict[str, Any] = {
            f"w{k}": random.integers(0, 256, shape).astype(np.uint8),
            f"s{k}": random.uniform(0.001, 0.01, WIDTH * blocks).astype(np.float32),
        }
        if zeros == "packed":
            shape = (WIDTH * blocks * bits // 8,)
            arrays[f"z{k}"] = random.integers(0, 256, shape).astype(np.uint8)
        elif zeros == "real":
            arrays[f"z{k}"] = random.uniform(0, 3, WIDTH * blocks).astype(np.float32)
        stored += [numpy_helper.from_array(a, name) for name, a in arrays.items()]
        product = helper.make_node(
            "MatMulNBits", [x, *arrays], [f"p{k}"], domain="com.microsoft", **facts
        )
        nodes += [
            product,
            helper.make_node("Relu", [f"p{k}"], [f"r{k}"]),
            helper.make_node("Add", [f"r{k}", x], [f"a{k}"]),
        ]
        x = f"a{k}"
    nodes.append(helper.make_node("ReduceMean", [x], ["y"], keepdims=0, **_over_tokens(opset)))
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["b", "t", WIDTH])
    found = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["b", WIDTH])
    if opset >= 18:
        nodes[-1].input.append("axes")
        stored.append(numpy_helper.from_array(np.array([1], np.int64), "axes"))
    graph = helper.make_graph(nodes, "g", [given], [found], stored)
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=10)
    path = folder / "model.onnx"
    onnx.save(model, path, save_as_external_data=True, location="data", size_threshold=64)
    return Model.open(path)


def _over_tokens(opset: int) -> dict[str, Any]:
    return {} if opset >= 18 else {"axes": [1]}


def compiled(model: Model, memory: str) -> ir.Model:
    planned = plan_model(model, FEEDS, resolve_method("pa-lrp"))
    return compile_graph(planned, CompileSettings(memory=memory), shapes_of(FEEDS))[0]


def explained(model: Model, **options: Any) -> dict[str, Any]:
    sample = Sample(id="x", kind="tensors", feeds=FEEDS, units=None, facts=InputFacts(kind="npz"))
    (found,) = Explainer(model, **options).explain(sample, "7")
    return {**found.tensors, "content": np.array(found.record.relevance.content)}


KINDS = [
    (bits, zeros, opset)
    for bits in (2, 4, 8)
    for zeros in ("", "packed", "real")
    for opset in (13, 21)
    if (bits, zeros) != (8, "real")  # the runtime has no kernel for it
]


@pytest.mark.parametrize(("bits", "zeros", "opset"), KINDS)
@pytest.mark.parametrize("memory", ["fast", "bounded"])
def test_no_copy_of_a_weight_is_made(
    bits: int, zeros: str, opset: int, memory: str, tmp_path: Path
) -> None:
    """Large initializers are places of the file, no larger than there; the message is small."""
    graph = compiled(saved(tmp_path, bits=bits, zeros=zeros, opset=opset), memory)
    own = [v.const_value for v in graph.graph.initializers.values() if v.const_value is not None]
    inside = [t for t in own if not isinstance(t, ir.ExternalTensor)]
    assert max(t.nbytes for t in inside) <= WIDTH * WIDTH // SIZE  # the zero points of all blocks
    assert max(t.nbytes for t in own) == WIDTH * WIDTH * bits // 8
    assert len(ir.serde.serialize_model(graph).SerializeToString()) < PACKED


@pytest.mark.parametrize(("bits", "zeros", "opset"), KINDS)
def test_every_weight_waits_for_its_reader(
    bits: int, zeros: str, opset: int, tmp_path: Path
) -> None:
    """No large number is computed from stored ones alone."""
    graph = compiled(saved(tmp_path, bits=bits, zeros=zeros, opset=opset), "bounded").graph
    fixed: set[ir.Value] = {v for v in graph.initializers.values() if not v.is_graph_input()}
    for node in graph:
        if node.inputs and all(v is None or v in fixed for v in node.inputs):
            fixed.update(node.outputs)
    made = [v for v in fixed if v.producer() is not None and v.shape is not None]
    sizes = [v.shape.numpy() for v in made if v.shape is not None and v.shape.is_static()]
    assert all(np.prod(size) < WIDTH * WIDTH for size in sizes)


@pytest.mark.parametrize(("bits", "zeros", "opset"), KINDS)
def test_all_ways_agree(bits: int, zeros: str, opset: int, tmp_path: Path) -> None:
    """Another implementation, in float64, says what is right."""
    model = saved(tmp_path, bits=bits, zeros=zeros, opset=opset)
    exact = explained(model, dtype="float64")
    for memory in ("fast", "bounded"):
        found = explained(model, memory=memory)
        for name, array in exact.items():
            assert np.abs(found[name] - array).max() <= 2e-5 * np.abs(array).max()


def test_a_weight_in_half_precision_waits_too(tmp_path: Path) -> None:
    """A CPU casts it for every product; the cast of the way back is another one."""
    weight = real(WIDTH, WIDTH).astype(np.float16)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["p"]),
        helper.make_node("Relu", ["p"], ["r"]),
        helper.make_node("MatMul", ["r", "w"], ["y"]),
    ]
    shape = ["b", WIDTH]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT16, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT16, shape)],
        [numpy_helper.from_array(weight, "w")],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(made, tmp_path / "half.onnx")
    planned = plan_model(Model.open(tmp_path / "half.onnx"), None, resolve_method("pa-lrp"))
    found, _ = compile_graph(planned, CompileSettings(memory="bounded"))
    readers = {node.op_type for node, _ in found.graph.initializers["w"].uses()}
    assert readers <= {"Reshape", "Shape"}
