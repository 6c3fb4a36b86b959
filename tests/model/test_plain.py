"""Passes do what they say: an empty log means the same graph, and what they need holds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import onnx_ir as ir
import pytest
from building import proto, real
from decoders import cached, merged, packed

from palrp_onnx.model.changes import Changes
from palrp_onnx.model.open import parse_model
from palrp_onnx.model.plain import PLAIN, Pass, from_file, make_plain

pytestmark = pytest.mark.quick
HERE = Path(__file__).parents[2]
FILES = {
    "reviews-bert": HERE / "models/reviews-bert/model.onnx",
    "digits-vit": HERE / "models/digits-vit/model.onnx",
    "llama": HERE / "tests/golden/palrp_llama_causal_gqa/model.onnx",
}
X = real(2, 3, 4)
GRAPH = ir.AttributeType.GRAPH
#: What a pass changes, or passes look at.
BODIES = {
    "constants": "one = Constant <value = float {1.0}> ()  y = Add(x, one)",
    "a stored branch": """yes = Constant <value = bool {1}> ()
        y = If (yes) <then_branch = a () => (float u) { u = Tanh(x) },
                      else_branch = b () => (float v) { v = Sin(x) }>""",
    "aliases": "a = Identity(x)  b = Tanh(a)  y = Identity(b)",
    "no order": "y = Tanh(b)  b = Sin(x)",
    "fused": "y = com.microsoft.Gelu(x)",
    "quantised": """q, s, z = DynamicQuantizeLinear(x)  y = DequantizeLinear(q, s, z)""",
}


def computed(model: ir.Model) -> list[object]:
    """The nodes that outputs depend on, without what is only said of their values."""
    left, seen = [v.producer() for v in model.graph.outputs], dict[ir.Node, None]()
    while left:
        node = left.pop()
        if node is None or node in seen:
            continue
        seen[node] = None
        graphs = [a.as_graph() for a in node.attributes.values() if a.type == GRAPH]
        inner = [n for graph in graphs for n in graph.all_nodes()]
        left += [v.producer() for n in (node, *inner) for v in n.inputs if v is not None]
    found: list[object] = [
        (
            *node.op_identifier(),
            [v and v.name for v in node.inputs],
            [v.name for v in node.outputs],
            {name: str(a.value) for name, a in node.attributes.items() if a.type != GRAPH},
        )
        for node in seen
    ]
    return [*found, [(v.name, v.dtype) for v in model.graph.inputs]]


def watched(each: Pass) -> Pass:
    """The pass, which fails where it changes more than its log says."""

    def apply(model: ir.Model) -> Changes:
        before = computed(model)
        done = each.apply(model)
        if not done and each.rewrites:
            assert computed(model) == before, each
        return done

    return replace(each, apply=apply)


def normal(model: ir.Model, path: Path, opset: int = 0) -> Changes:
    return make_plain(model, path, [watched(p) for p in from_file(path, opset)], checked=True)


@pytest.mark.parametrize("name", FILES)
def test_files(name: str) -> None:
    model = parse_model(FILES[name])
    normal(model, FILES[name])
    again = make_plain(model, FILES[name], [watched(p) for p in PLAIN], checked=True)
    assert not again  # what is plain stays as it is


@pytest.mark.parametrize("make", [cached, packed, merged])
def test_decoders(make: Callable[[Path], Path], tmp_path: Path) -> None:
    path = make(tmp_path)
    model = parse_model(path)
    normal(model, path, 13)
    assert not make_plain(model, path, [watched(p) for p in PLAIN], checked=True)


@pytest.mark.parametrize("name", BODIES)
def test_changes(name: str, tmp_path: Path) -> None:
    made = proto(BODIES[name], {"x": X})
    made.opset_import.add(domain="com.microsoft", version=1)
    path = tmp_path / "model.onnx"
    path.write_bytes(made.SerializeToString())
    model = parse_model(path)
    changes = normal(model, path)
    assert bool(changes) == (name in ("a stored branch", "fused", "quantised"))
    assert not make_plain(model, path, [watched(p) for p in PLAIN], checked=True)


def test_a_raised_opset_is_a_change(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(proto("y = Tanh(x)", {"x": X}, opset=11).SerializeToString())
    assert dict(normal(parse_model(path), path, 17).counts) == {"opset 11 to 17": 1}


@pytest.mark.parametrize("name", ["constants", "no order"])
def test_passes_in_the_wrong_order(name: str, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(proto(BODIES[name], {"x": X}).SerializeToString())
    late = [each for each in from_file(path, 0) if each.needs][-1:]
    with pytest.raises(AssertionError, match="are not met"):
        make_plain(parse_model(path), path, late, checked=True)
