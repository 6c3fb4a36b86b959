"""Attention in blocks of queries gives the explanation of whole scores, which are never there."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import committed
import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from building import Array, ints, opened, proto, real
from committed import FILES, sample
from hypothesis import given, settings
from hypothesis import strategies as st

from palrp_onnx.compiler.graph import OPSET, CompileSettings, compile_graph
from palrp_onnx.model.open import Model
from palrp_onnx.prepare import plan_model, shapes_of
from palrp_onnx.relevance.method_parsing import resolve_method
from palrp_onnx.relevance.methods import METHODS

WORDS, WIDTH, HEADS, CLASSES = 30, 12, 3, 4
WEIGHTS: dict[str, Array] = {
    "table": real(WORDS, WIDTH),
    "places": real(64, WIDTH, seed=1, low=-0.5, high=0.5),
    "near": real(9, HEADS, seed=2),
    "slopes": np.array([0.5, 0.25, 0.125], np.float32).reshape(HEADS, 1, 1),
    "head": real(WIDTH, CLASSES, seed=3),
    "nil": np.array(0),
    "unit": np.array(1),
    "first": ints(0),
    "second": ints(1),
    "middle": ints(1, 2),
    "four": np.array(4),
    "least": np.array(-4),
    "low": np.float32(-1e9),
    "nothing": np.float32(0),
    "half": np.float32(0.5),
    "heads": ints(0, 0, HEADS, WIDTH // HEADS),
    "merged": ints(0, 0, WIDTH),
    "inner": ints(-1, WIDTH // HEADS),
}
PLACES = """
    size = Shape(ids) tokens = Gather(size, unit) counted = Range(nil, tokens, unit)
    rows = Unsqueeze(counted, second) columns = Unsqueeze(counted, first)
"""
#: Kind of positions or masks → nodes, and what is added to scores, one after the other.
KINDS: dict[str, tuple[str, tuple[str, ...]]] = {
    "none": ("", ()),
    "learned": ("", ()),
    "causal": (
        PLACES + "later = Greater(columns, rows) triangle = Where(later, low, nothing)",
        ("triangle",),
    ),
    "relative": (
        PLACES
        + """gap = Sub(columns, rows) up = Max(gap, least) gaps = Min(up, four)
        index = Add(gaps, four) found = Gather(near, index)
        bias = Transpose<perm=[2, 0, 1]>(found)""",
        ("bias",),
    ),
    "alibi": (
        PLACES
        + """gap = Sub(columns, rows) steps = Cast<to=1>(gap) bias = Mul(steps, slopes)
        later = Greater(columns, rows) triangle = Where(later, low, nothing)""",
        ("bias", "triangle"),
    ),
    "padding": (
        """kept = Cast<to=1>(mask) wide = Unsqueeze(kept, middle) one = Cast<to=1>(unit)
        hidden = Sub(one, wide) padding = Mul(hidden, low)""",
        ("padding",),
    ),
}


def layer(mark: str, x: str, added: tuple[str, ...], form: str) -> str:
    """Attention and a small network, with shortcuts; ``form`` is how scores are arranged."""
    lines = [f"i{mark} = Tanh({x})"]
    for kind in "qkv":
        lines += [
            f"{kind}a{mark} = MatMul(i{mark}, w{kind}{mark})",
            f"{kind}b{mark} = Add({kind}a{mark}, b{kind}{mark})",
            f"{kind}c{mark} = Reshape({kind}b{mark}, heads)",
        ]
    keys = "[0, 2, 3, 1]"
    lines += [
        f"q{mark} = Transpose<perm=[0, 2, 1, 3]>(qc{mark})",
        f"k{mark} = Transpose<perm={keys}>(kc{mark})",
        f"v{mark} = Transpose<perm=[0, 2, 1, 3]>(vc{mark})",
    ]
    if form == "turned":  # scores [keys, queries]
        lines += [
            f"kt{mark} = Transpose<perm=[0, 2, 1, 3]>(kc{mark})",
            f"qt{mark} = Transpose<perm=[0, 2, 3, 1]>(qc{mark})",
            f"st{mark} = MatMul(kt{mark}, qt{mark})",
            f"s{mark} = Transpose<perm=[0, 1, 3, 2]>(st{mark})",
        ]
    elif form == "einsum":
        lines.append(f"""s{mark} = Einsum<equation="bhid,bhdj->bhij">(q{mark}, k{mark})""")
    else:
        lines.append(f"s{mark} = MatMul(q{mark}, k{mark})")
    score = f"t{mark}"
    lines.append(f"{score} = Mul(s{mark}, half)")
    for number, term in enumerate(added):
        lines.append(f"t{number}{mark} = Add({score}, {term})")
        score = f"t{number}{mark}"
    return " ".join(
        [
            *lines,
            f"p{mark} = Softmax<axis=-1>({score})",
            f"o{mark} = MatMul(p{mark}, v{mark})",
            f"oa{mark} = Transpose<perm=[0, 2, 1, 3]>(o{mark})",
            f"ob{mark} = Reshape(oa{mark}, merged)",
            f"oc{mark} = MatMul(ob{mark}, wo{mark})",
            f"h{mark} = Add({x}, oc{mark})",
        ]
    )


@cache
def network(kind: str, form: str = "plain", layers: int = 2, tokens: int | None = None) -> Model:
    """Layers of attention and a mean over tokens; of a free length unless it is given."""
    before, added = KINDS[kind]
    lines, x = [before, "e = Gather(table, ids)"], "e"
    if kind != "none":
        lines.append(
            "l = Shape(ids) n = Gather(l, second) g = Slice(places, first, n) a = Add(e, g)"
        )
        x = "a"
    weights = dict(WEIGHTS)
    for number in range(layers):
        mark = f"_{number}"
        lines.append(layer(mark, x, added, form))
        x = f"h{mark}"
        for offset, name in enumerate("qkvo"):
            seed = 10 * number + offset + 20
            weights[f"w{name}{mark}"] = real(WIDTH, WIDTH, seed=seed, low=-0.5, high=0.5)
            weights[f"b{name}{mark}"] = real(WIDTH, seed=seed + 5)
    lines.append(f"r = ReduceMean<keepdims=0>({x}, second) y = MatMul(r, head)")
    inputs = feeds(kind, 2, tokens or 5)
    free = (0, 1) if tokens is None else (0,)
    return opened(proto(" ".join(lines), inputs, weights, free=free))


def feeds(kind: str, samples: int, tokens: int, seed: int = 0) -> dict[str, Array]:
    ids = np.random.default_rng(seed).integers(0, WORDS, (samples, tokens))
    mask = np.ones((samples, tokens), np.int64)
    mask[-1, 1 + tokens // 2 :] = 0
    return {"ids": ids, "mask": mask} if kind == "padding" else {"ids": ids}


def compiled(
    model: Model,
    inputs: Mapping[str, Array],
    memory: str,
    rows: int,
    method: str = "pa-lrp",
    *,
    whole: bool = False,
) -> ir.Model:
    planned = plan_model(model.at_opset(OPSET), inputs, resolve_method(method))
    chosen = CompileSettings(memory=memory, rows=rows, features=True)
    graph, manifest = compile_graph(planned, chosen, shapes_of(inputs))
    assert ("whole-scores" in {w.code for w in manifest.faults}) is whole
    return graph


def session(graph: ir.Model | onnx.ModelProto, model: Model) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    folder = "session.model_external_initializers_file_folder_path"
    options.add_session_config_entry(folder, f"{model.folder}/")
    proto = ir.serde.serialize_model(graph) if isinstance(graph, ir.Model) else graph
    return onnxruntime.InferenceSession(proto.SerializeToString(), options)


def loops(graph: ir.Model) -> int:
    return sum(node.op_type == "Loop" for node in graph.graph)


def alike(one: Any, other: Any, inputs: Mapping[str, Array], tolerance: float = 3e-6) -> None:
    names = [each.name for each in one.get_outputs()]
    assert names == [each.name for each in other.get_outputs()]
    for name, a, b in zip(names, one.run(names, inputs), other.run(names, inputs), strict=True):
        assert a.shape == b.shape
        largest = np.abs(a.astype(np.float64)).max(initial=1e-30)
        np.testing.assert_allclose(b, a, rtol=0, atol=tolerance * largest, err_msg=name)


@pytest.mark.parametrize("form", ["plain", "turned", "einsum"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_positions(kind: str, form: str) -> None:
    """For lengths that are no multiple of a block, and shorter than one; with padding."""
    model, example = network(kind, form), feeds(kind, 2, 7)
    whole, parts = (compiled(model, example, way, 3) for way in ("fast", "bounded"))
    assert loops(whole) == 0
    assert loops(parts) == 4  # two layers, forwards and back
    both = session(whole, model), session(parts, model)
    for samples, tokens in ((2, 7), (1, 2), (3, 6), (1, 13)):
        alike(*both, feeds(kind, samples, tokens, seed=tokens))


@cache
def sessions(kind: str, rows: int) -> tuple[Any, Any]:
    model, example = network(kind), feeds(kind, 2, 7)
    whole, parts = (compiled(model, example, way, rows) for way in ("fast", "bounded"))
    return session(whole, model), session(parts, model)


@settings(max_examples=40, deadline=None)
@given(
    kind=st.sampled_from(sorted(KINDS)),
    rows=st.sampled_from([1, 2, 4, 5]),
    samples=st.integers(1, 3),
    tokens=st.integers(2, 17),
    seed=st.integers(0, 99),
)
def test_any_length_and_block(kind: str, rows: int, samples: int, tokens: int, seed: int) -> None:
    alike(*sessions(kind, rows), feeds(kind, samples, tokens, seed))


@pytest.mark.parametrize("method", sorted(METHODS))
def test_every_method(method: str) -> None:
    """Rules that divide by small sums magnify rounding.

    absLRP rescales what it sends by a sum over all scores: those of its way back stay whole.
    """
    model, example = network("relative"), feeds("relative", 2, 8)
    whole = compiled(model, example, "fast", 3, method)
    parts = compiled(model, example, "bounded", 3, method, whole=method == "abslrp")
    assert loops(parts)
    alike(session(whole, model), session(parts, model), example, 3e-5)


@pytest.mark.parametrize("name", FILES)
def test_committed_models(name: str) -> None:
    """Rotated, grouped and learned positions; one token or all of them; images."""
    model, inputs = committed.opened(name), sample(name).feeds
    whole, parts = (compiled(model, inputs, way, 2) for way in ("fast", "bounded"))
    assert loops(parts) > 1
    alike(session(whole, model), session(parts, model), inputs, 1e-5)


def test_fixed_lengths() -> None:
    """Shapes are constants then; a length of one block has no loop."""
    example = feeds("relative", 2, 7)
    model = network("relative", tokens=7)
    whole = compiled(model, example, "fast", 3)
    for rows, count in ((3, 4), (7, 0)):
        parts = compiled(model, example, "bounded", rows)
        assert loops(parts) == count
        alike(session(whole, model), session(parts, model), example)


@pytest.mark.parametrize("kind", ["causal", "relative", "padding", "alibi"])
def test_no_value_has_all_scores(kind: str) -> None:
    """Outside of bodies nothing real has an entry for each pair of tokens, in each head."""
    model, example, tokens = network(kind), feeds(kind, 2, 13), 13
    graph = ir.serde.serialize_model(compiled(model, example, "bounded", 4))
    outputs = {each.name for each in graph.graph.output}
    values = [name for node in graph.graph.node for name in node.output if name]
    graph.graph.output.extend(onnx.ValueInfoProto(name=n) for n in values if n not in outputs)
    arrays = session(graph, model).run(values, example)
    sizes = {n: a.shape for n, a in zip(values, arrays, strict=True) if a.dtype.kind == "f"}
    assert not {n: s for n, s in sizes.items() if s.count(tokens) > 1 and HEADS in s}


def test_scores_that_depend_on_each_other_stay_whole() -> None:
    """Attention over all pairs of tokens at once; this is said in the record."""
    body = """
        e = Gather(table, ids) q = MatMul(e, w) k = MatMul(e, u) t = Transpose<perm=[0, 2, 1]>(k)
        s = MatMul(q, t) size = Shape(s) flat = Reshape(s, row) p = Softmax<axis=-1>(flat)
        back = Reshape(p, size) o = MatMul(back, e) r = ReduceMean<keepdims=0>(o, second)
        y = MatMul(r, head)
    """
    weights = {
        **{name: WEIGHTS[name] for name in ("table", "second", "head")},
        "w": real(WIDTH, WIDTH, seed=5, low=-0.3, high=0.3),
        "u": real(WIDTH, WIDTH, seed=6, low=-0.3, high=0.3),
        "row": ints(0, -1),
    }
    inputs = feeds("none", 2, 6)
    model = opened(proto(body, inputs, weights, free=(0, 1)))
    planned = plan_model(model.at_opset(OPSET), inputs, resolve_method("pa-lrp"))
    graph, manifest = compile_graph(
        planned, CompileSettings(memory="bounded", rows=2, features=True)
    )
    assert loops(graph) == 0
    assert [w.code for w in manifest.faults] == ["whole-scores"]
    whole = compiled(model, inputs, "fast", 2)
    alike(session(whole, model), session(graph, model), inputs)


def test_half_precision() -> None:
    """Sums over blocks are not rounded to half precision each time."""
    float16 = pytest.importorskip("onnxruntime.transformers.float16")
    source = onnx.load(network("relative").path)
    model = opened(float16.convert_float_to_float16(source, keep_io_types=True))
    example = feeds("relative", 2, 11)
    whole, parts = (compiled(model, example, way, 3) for way in ("fast", "bounded"))
    assert loops(parts) == 4
    alike(session(whole, model), session(parts, model), example, 4e-3)


def test_a_batch_is_a_loop_of_singles() -> None:
    model = network("causal")
    graph = session(compiled(model, feeds("causal", 2, 7), "bounded", 3), model)
    example = feeds("causal", 3, 10)
    names = [each.name for each in graph.get_outputs()]
    together = graph.run(names, example)
    for k in range(3):
        alone = graph.run(names, {"ids": example["ids"][k : k + 1]})
        for name, a, b in zip(names, together, alone, strict=True):
            largest = np.abs(b).max(initial=1e-30)
            np.testing.assert_allclose(a[k : k + 1], b, rtol=0, atol=3e-6 * largest, err_msg=name)
