"""The explanation as an ONNX graph equals the NumPy engine, for every target, size and method."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import committed
import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from building import ints, opened, proto, real
from committed import FILES, sample
from numpy.typing import NDArray

from palrp_onnx import Explainer
from palrp_onnx.compiler.file import compile_model
from palrp_onnx.compiler.graph import CompileSettings, compile_graph
from palrp_onnx.errors import TargetError, UnsupportedError
from palrp_onnx.inputs.sample import Sample
from palrp_onnx.model.open import Model
from palrp_onnx.prepare import plan_model
from palrp_onnx.record import InputFacts
from palrp_onnx.relevance.methods import METHODS

TOLERANCE = 2e-3
ENGINES = ("numpy", "onnxruntime")

Array = NDArray[Any]


@lru_cache(maxsize=2 * len(FILES))
def explainer(name: str, engine: str, **options: str) -> Explainer:
    """Analysed and compiled once for several tests."""
    return Explainer(committed.opened(name), engine=engine, **options)


def compare(name: str, given: Sample, target: str = "pred", **options: Any) -> None:
    numpy, compiled = (explainer(name, e, **options).explain(given, target) for e in ENGINES)
    assert len(compiled) == len(numpy)
    for ours, reference in zip(compiled, numpy, strict=True):
        assert ours.record.run.engine == "onnxruntime"
        assert ours.record.target.index == reference.record.target.index
        assert ours.record.target.value == pytest.approx(reference.record.target.value, rel=1e-4)
        assert ours.tensors.keys() == reference.tensors.keys()
        for key, array in reference.tensors.items():
            assert np.abs(ours.tensors[key] - array).max() <= TOLERANCE * np.abs(array).max()
        for key, amount in reference.record.ledger.items():
            scale = sum(abs(v) for k, v in reference.record.ledger.items() if "residual" not in k)
            assert abs(ours.record.ledger[key] - amount) <= TOLERANCE * scale
        assert abs(ours.record.ledger["residual_relative"]) < 1e-5


@pytest.mark.quick
@pytest.mark.parametrize("name", FILES)
def test_equals_the_numpy_engine(name: str) -> None:
    compare(name, sample(name))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["bert", "llama", "vit"])
def test_every_method(name: str, method: str) -> None:
    compare(name, sample(name), method=method)


@pytest.mark.parametrize("positions", ["relu", "abs", "signed", "single-sink"])
@pytest.mark.parametrize("name", ["bert", "llama-tc", "vit"])
def test_reductions_in_the_graph(name: str, positions: str) -> None:
    given = sample(name)
    reference = Explainer(committed.opened(name), engine="numpy", positions=positions).explain(
        given
    )
    session = compiled_session(name, given, positions=positions)
    outputs = session(given.feeds)
    for row, explanation in enumerate(reference):
        relevance = explanation.record.relevance
        for part in ("content", "position", "total"):
            expected = np.array(getattr(relevance, part))
            ours = outputs[f"relevance_{part}"][row]
            assert np.abs(ours - expected).max() <= TOLERANCE * np.abs(relevance.total).max()
        sites = np.array([site.relevance for site in explanation.record.sites])
        assert np.abs(outputs["relevance_sites"][row] - sites).max() <= TOLERANCE * abs(sites).max()


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("bert", "2"),
        ("bert", "0-1"),
        ("gpt2", "5"),
        ("gpt2", "5-7"),
        ("gpt2", "token:3"),
        ("gpt2", "token:-3:5"),
        ("gpt2", "2,7"),
        ("gpt2", "-2,-7"),
        ("llama", "token:2:11"),
        ("bert", "-1"),
    ],
)
def test_targets(name: str, target: str) -> None:
    compare(name, sample(name), target)


@pytest.mark.parametrize(
    ("name", "target", "problem"),
    [
        ("bert", "9", "outside"),
        ("bert", "-9", "outside"),
        ("bert", "token:1", "token axis"),
        ("gpt2", "token:40", "outside"),
        ("gpt2", "0,1,2", "2 indices"),
    ],
)
def test_targets_that_are_not_there(name: str, target: str, problem: str) -> None:
    with pytest.raises(TargetError, match=problem):
        explainer(name, "onnxruntime").explain(sample(name), target)


def compiled_model(name: str, given: Sample, **settings: Any) -> ir.Model:
    planned = plan_model(committed.opened(name), given.feeds, METHODS["pa-lrp"])
    return compile_graph(planned, CompileSettings(**settings))[0]


class Compiled:
    """A compiled graph, opened; called with feeds it returns every output."""

    def __init__(self, model: ir.Model, folder: Path) -> None:
        self._names = [output.name or "" for output in model.graph.outputs]
        options = onnxruntime.SessionOptions()
        key = "session.model_external_initializers_file_folder_path"
        options.add_session_config_entry(key, f"{folder}/")
        data = ir.serde.serialize_model(model).SerializeToString()
        self._session = onnxruntime.InferenceSession(data, options)

    def __call__(self, feeds: dict[str, Array]) -> dict[str, Array]:
        return dict(zip(self._names, self._session.run(self._names, feeds), strict=True))


def compiled_session(name: str, given: Sample, **settings: Any) -> Compiled:
    return Compiled(compiled_model(name, given, **settings), FILES[name].parent)


@pytest.mark.parametrize("name", ["bert", "gpt2", "llama", "llama-tc", "vit"])
def test_one_graph_serves_every_batch_size_and_length(name: str) -> None:
    session = compiled_session(name, sample(name))
    numpy = explainer(name, "numpy")
    for samples, tokens in ((1, 2), (3, 5), (2, 12)):
        given = sample(name, samples, tokens, seed=tokens)
        if name == "vit" and tokens != 5:
            continue
        batch = session(given.feeds)
        reference = numpy.explain(given)
        for row in range(samples):
            expected = np.array(reference[row].record.relevance.total)
            ours = batch["relevance_total"][row]
            assert np.abs(ours - expected).max() <= TOLERANCE * np.abs(expected).max()
            alone = {key: array[row : row + 1] for key, array in given.feeds.items()}
            single = session(alone)["relevance_total"][0]
            assert np.abs(single - ours).max() <= TOLERANCE * np.abs(expected).max()


def test_targets_may_differ_from_row_to_row() -> None:
    given = sample("bert", samples=3)
    session = compiled_session("bert", given)
    target, against = np.array([0, 2, -1]), np.array([-1, 1, -1])
    outputs = session({**given.feeds, "target": target, "target_against": against})
    numpy = explainer("bert", "numpy")
    for row, name in enumerate(("0", "2-1", "pred")):
        expected = numpy.explain(given, name)[row].record.relevance.total
        difference = np.abs(outputs["relevance_total"][row] - expected).max()
        assert difference <= TOLERANCE * np.abs(expected).max()


DEFAULTS = {
    "target": np.array([-1]),
    "target_against": np.array([-1]),
    "target_position": np.array([-1]),
    "target_vector": np.zeros((1, 1), np.float32),
}


@pytest.mark.parametrize("name", ["bert", "llama", "vit"])
def test_targets_without_defaults_give_the_same_maps(name: str) -> None:
    """As bindings see it that pass no input with a default."""
    given = sample(name)
    plain = compiled_session(name, given)
    model = compiled_model(name, given, required=True)
    added = model.metadata_props["palrp_onnx.required"].split(",")
    assert not {*added} & {*model.graph.initializers}
    session = Compiled(model, FILES[name].parent)
    for chosen in ({}, {"target": np.array([1, 2])}, {"target_against": np.array([0, 1])}):
        whole = {**{each: DEFAULTS[each] for each in added}, **chosen}
        ours, expected = session({**given.feeds, **whole}), plain({**given.feeds, **chosen})
        for key, array in expected.items():
            np.testing.assert_array_equal(ours[key], array, key)


def test_a_file_without_defaults_is_explained_as_any_other(tmp_path: Path) -> None:
    paths = [tmp_path / f"{required}.onnx" for required in (False, True)]
    for path, required in zip(paths, (False, True), strict=True):
        settings = CompileSettings(required=required)
        path.write_bytes(compile_model(FILES["reviews-rope"], path, settings=settings))
    given = sample("reviews-rope")
    for target in ("pred", "0", "0-1"):
        first, second = (Explainer(Model.open(path)).explain(given, target) for path in paths)
        for ours, reference in zip(second, first, strict=True):
            assert ours.record.relevance == reference.record.relevance
            assert ours.record.target == reference.record.target


def without_weights(model: ir.Model) -> onnx.ModelProto:
    """The checker reads no external data, so weights become zeros."""
    clone = model.clone()
    for value in clone.graph.initializers.values():
        if isinstance(value.const_value, ir.ExternalTensor):
            zeros = np.zeros(value.const_value.shape.numpy(), value.const_value.dtype.numpy())
            value.const_value = ir.Tensor(zeros, name=value.name)
    return ir.serde.serialize_model(clone)


@pytest.mark.parametrize("name", ["bert", "llama", "vit"])
def test_portable_graphs_use_the_standard_only(name: str) -> None:
    given = sample(name)
    model = compiled_model(name, given, portable=True)
    assert {node.domain for node in model.graph} == {""}
    onnx.checker.check_model(without_weights(model), full_check=False)
    plain = compiled_session(name, given)(given.feeds)
    session = Compiled(model, FILES[name].parent)
    for key, array in session(given.feeds).items():
        np.testing.assert_allclose(array, plain[key], atol=TOLERANCE * np.abs(plain[key]).max())


def test_outputs_and_metadata() -> None:
    given = sample("llama")
    model = compiled_model("llama", given)
    names = [output.name for output in model.graph.outputs]
    assert names == [
        "logits",
        "relevance_content",
        "relevance_position",
        "relevance_total",
        "relevance_score",
        "relevance_sites",
        "relevance_ledger",
    ]
    facts = {k.removeprefix("palrp_onnx."): v for k, v in model.metadata_props.items()}
    assert facts["method"] == "pa-lrp"
    assert json.loads(facts["source"])["sha256"] == Model.open(FILES["llama"]).sha256
    sites = json.loads(facts["sites"])
    assert sites == [["rope", layer, part] for layer in range(3) for part in ("cos", "sin")]
    outputs = compiled_session("llama", given)(given.feeds)
    assert outputs["relevance_sites"].shape == (2, 6, 9)
    assert outputs["relevance_ledger"].shape == (2, len(json.loads(facts["ledger"])))
    lean = compiled_model("llama", given, ledger=False)
    assert "relevance_ledger" not in [output.name for output in lean.graph.outputs]
    assert len(lean.graph) < 0.95 * len(model.graph)


def test_weights_are_neither_copied_nor_transposed() -> None:
    given = sample("reviews-rope")
    before = Model.open(FILES["reviews-rope"]).graph
    size = sum(v.const_value.nbytes for v in before.initializers.values() if v.const_value)
    after = compiled_model("reviews-rope", given).graph
    added = sum(v.const_value.nbytes for v in after.initializers.values() if v.const_value) - size
    assert added < 4096
    weights = {
        v for v in after.initializers.values() if v.const_value and v.const_value.nbytes > 4096
    }
    assert not [n for n in after if n.op_type == "Transpose" and n.inputs[0] in weights]


@pytest.mark.parametrize("target", ["1,2,0", "-1,0,-3"])
def test_outputs_without_classes(target: str) -> None:
    """A saliency map, of which one place is explained."""
    x = real(2, 3, 6, 4)
    body = "h = Conv<kernel_shape = [1, 1]>(x, w)  y = Relu(h)"
    model = opened(proto(body, {"x": x}, {"w": real(2, 3, 1, 1, seed=3)}))
    given = Sample("x", "tensors", {"x": x}, InputFacts(kind="tensors", truncated=False))
    numpy, compiled = (Explainer(model, engine=e).explain(given, target) for e in ENGINES)
    for ours, reference in zip(compiled, numpy, strict=True):
        assert ours.record.units.grid == reference.record.units.grid == (6, 4)
        assert ours.record.target == reference.record.target
        np.testing.assert_allclose(
            ours.record.relevance.total, reference.record.relevance.total, atol=1e-6
        )
    with pytest.raises(TargetError, match="Name one element"):
        Explainer(model).explain(given)


@pytest.mark.parametrize("size", [(9, 5), (30, 17), (14, 14)])
def test_images_without_patches_are_cut_into_blocks(size: tuple[int, int]) -> None:
    x = real(2, 3, *size)
    weights = {"w": real(4, 3, 3, 3, seed=3), "v": real(4, 2, seed=5)}
    body = (
        "h = Conv<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(x, w)  a = Relu(h) "
        "p = GlobalAveragePool(a)  f = Flatten(p)  y = MatMul(f, v)"
    )
    model = opened(proto(body, {"x": x}, weights, free=(0, 2, 3)))
    given = Sample("x", "tensors", {"x": x}, InputFacts(kind="tensors", truncated=False))
    numpy, compiled = (Explainer(model, engine=e).explain(given) for e in ENGINES)
    for ours, reference in zip(compiled, numpy, strict=True):
        assert ours.record.units == reference.record.units
        np.testing.assert_allclose(
            ours.record.relevance.total, reference.record.relevance.total, atol=1e-6
        )


def test_values_with_the_names_of_outputs_are_renamed() -> None:
    x = real(2, 5, 4)
    body = (
        "relevance_total = MatMul(x, target)  relevance_sites = Add(relevance_total, q) "
        "y = ReduceMean<keepdims = 0>(relevance_sites, axis)"
    )
    weights = {"target": real(4, 4), "q": real(4, seed=3), "axis": ints(1)}
    model = opened(proto(body, {"x": x}, weights))
    given = Sample("x", "tensors", {"x": x}, InputFacts(kind="tensors", truncated=False))
    numpy, compiled = (Explainer(model, engine=e).explain(given) for e in ENGINES)
    ours, reference = compiled[0].record.relevance.total, numpy[0].record.relevance.total
    np.testing.assert_allclose(ours, reference, rtol=1e-5)


@pytest.mark.parametrize("name", ["target", "target_vector", "relevance_content", "features/x"])
@pytest.mark.parametrize("side", ["input", "output"])
def test_an_input_or_output_with_a_name_that_explainers_need(
    tmp_path: Path, name: str, side: str
) -> None:
    """It is renamed inside; only a file cannot have both."""
    x = real(2, 5, 4)
    source, result = (name, "y") if side == "input" else ("x", name)
    body = f"h = MatMul({source}, w)  {result} = ReduceMean<keepdims = 0>(h, axis)"
    weights = {"w": real(4, 3), "axis": ints(1)}
    path = tmp_path / "model.onnx"
    onnx.save(named(body, {source: x}, weights, result), path)
    given = Sample("x", "tensors", {source: x}, InputFacts(kind="tensors", truncated=False))
    for target in ("pred", "1", "0-2"):
        numpy, compiled = (Explainer(path, engine=e).explain(given, target) for e in ENGINES)
        for ours, reference in zip(compiled, numpy, strict=True):
            assert ours.record.target.output == result
            assert ours.record.target.index == reference.record.target.index
            np.testing.assert_allclose(
                ours.record.relevance.total, reference.record.relevance.total, rtol=1e-5
            )
            assert list(ours.tensors) == list(reference.tensors)
    with pytest.raises(UnsupportedError, match="name that explainers need"):
        compile_model(path, tmp_path / "explainer.onnx")


def named(body: str, feeds: dict[str, Array], weights: Any, output: str) -> onnx.ModelProto:
    """The same as ``proto``, with names that ONNX text has no letters for."""
    plain = {name: name.replace("/", "_") for name in (*feeds, output)}
    for name, other in plain.items():
        body = body.replace(name, other)
    model = proto(body, {plain[n]: a for n, a in feeds.items()}, weights, outputs=[plain[output]])
    for name, other in plain.items():
        for value in (*model.graph.input, *model.graph.output):
            value.name = name if value.name == other else value.name
        for node in model.graph.node:
            for names in (node.input, node.output):
                names[:] = [name if n == other else n for n in names]
    return model


def test_explain_renames_what_a_file_cannot(tmp_path: Path) -> None:
    """Rerankers call their output ``relevance_score``, as a compiled file calls one of its own."""
    x = real(2, 5, 4)
    body = "h = MatMul(x, w)  relevance_score = ReduceMean<keepdims = 0>(h, axis)"
    path = tmp_path / "model.onnx"
    weights = {"w": real(4, 1), "axis": ints(1)}
    onnx.save(proto(body, {"x": x}, weights, outputs=["relevance_score"]), path)
    given = Sample("x", "tensors", {"x": x}, InputFacts(kind="tensors", truncated=False))
    for row, explained in enumerate(Explainer(path).explain(given)):
        assert explained.record.target.output == "relevance_score"
        assert explained.record.target.value == pytest.approx(
            float((x[row] @ weights["w"]).mean()), rel=1e-5
        )
    with pytest.raises(UnsupportedError, match="a name that explainers need"):
        compile_model(path, tmp_path / "explainer.onnx")


def test_a_name_that_only_looks_like_one(tmp_path: Path) -> None:
    """A model may call its output ``relevance_grade``."""
    x = real(2, 5, 4)
    body = "h = MatMul(x, w)  relevance_grade = ReduceMean<keepdims = 0>(h, axis)"
    weights = {"w": real(4, 1), "axis": ints(1)}
    path, explainer = tmp_path / "model.onnx", tmp_path / "explainer.onnx"
    onnx.save(proto(body, {"x": x}, weights, outputs=["relevance_grade"]), path)
    explainer.write_bytes(compile_model(path, explainer))
    given = Sample("x", "tensors", {"x": x}, InputFacts(kind="tensors", truncated=False))
    reference = Explainer(path, engine="numpy").explain(given)
    for file in (path, explainer):
        for ours, theirs in zip(Explainer(file).explain(given), reference, strict=True):
            assert ours.record.target.output == "relevance_grade"
            np.testing.assert_allclose(
                ours.record.relevance.total, theirs.record.relevance.total, rtol=1e-5
            )


@pytest.mark.parametrize("inner", ["h", "m"])
def test_a_file_for_a_value_inside(tmp_path: Path, inner: str) -> None:
    """It becomes an output of the explainer, in addition to those of the model."""
    x = real(2, 5, 4)
    body = "h = MatMul(x, w)  m = ReduceMean<keepdims = 0>(h, axis)  y = Softmax<axis = -1>(m)"
    weights = {"w": real(4, 3), "axis": ints(1)}
    path, explainer = tmp_path / "model.onnx", tmp_path / "explainer.onnx"
    onnx.save(proto(body, {"x": x}, weights), path)
    explainer.write_bytes(compile_model(path, explainer, output=inner))
    outputs = [each.name for each in onnx.load(explainer).graph.output]
    assert outputs[:3] == ["y", inner, "relevance_content"]
    given = Sample("x", "tensors", {"x": x}, InputFacts(kind="tensors", truncated=False))
    reference = Explainer(path, engine="numpy", output=inner).explain(given, "1")
    for ours, theirs in zip(Explainer(explainer).explain(given, "1"), reference, strict=True):
        assert ours.record.target.output == inner
        assert ours.record.target.kind == theirs.record.target.kind
        assert ours.record.target.probability == pytest.approx(theirs.record.target.probability)
        np.testing.assert_allclose(
            ours.record.relevance.total, theirs.record.relevance.total, rtol=1e-5
        )


@pytest.mark.parametrize(
    "mask",
    [
        np.array([[1, 2, 0, 0, 0], [5, 3, 1, 2, 0]]),
        np.array([[-1, 1, 0, 1, 0], [1, 1, 1, 1, 1]]),
        np.array([[True, False, True, False, False], [True, True, True, False, False]]),
        np.array([[0.5, 0.25, 0.0, 0.0, 0.0], [1.0, 0.5, 0.5, 0.0, 0.0]], np.float32),
    ],
)
def test_whatever_is_not_zero_is_unmasked(tmp_path: Path, mask: Array) -> None:
    x = real(2, 5, 4)
    body = """b = Cast<to = 9>(mask)  u = Unsqueeze(b, two)  h = Where(u, x, zero)
        y = MatMul(h, w)"""
    weights = {"w": real(4, 3), "two": ints(2), "zero": np.float32(0)}
    path, explainer = tmp_path / "model.onnx", tmp_path / "explainer.onnx"
    onnx.save(proto(body, {"x": x, "mask": mask}, weights, free=(0, 1)), path)
    roles = {"mask": "mask"} if mask.dtype.kind == "f" else {}
    if not roles:  # no example of a real mask is found
        explainer.write_bytes(compile_model(path, explainer))
    feeds = {"x": x, "mask": mask}
    given = Sample("x", "tensors", feeds, InputFacts(kind="tensors", truncated=False))
    expected = [int(np.flatnonzero(row)[-1]) for row in mask]
    for file, options in (
        (path, {"engine": "numpy", "roles": roles}),
        (path, {"roles": roles}),
        *([] if roles else [(explainer, {})]),
    ):
        found = Explainer(file, **options).explain(given)
        for place, each in zip(expected, found, strict=True):
            index = each.record.target.index
            assert isinstance(index, list)
            assert index[0] == place
            reached = np.flatnonzero(each.record.relevance.content).tolist()
            assert reached == [place]


@pytest.mark.parametrize("target", ["pred", "0", "-1", "all"])
def test_one_number_a_sample(tmp_path: Path, target: str) -> None:
    """The output of some rerankers."""
    x = real(2, 5, 4)
    body = "h = MatMul(x, w)  m = ReduceMean<keepdims = 0>(h, axis)  y = Squeeze(m, axis)"
    path, explainer = tmp_path / "model.onnx", tmp_path / "explainer.onnx"
    onnx.save(proto(body, {"x": x}, {"w": real(4, 1), "axis": ints(1)}), path)
    explainer.write_bytes(compile_model(path, explainer))
    given = Sample("x", "tensors", {"x": x}, InputFacts(kind="tensors", truncated=False))
    expected = (x.astype(np.float64) @ real(4, 1))[..., 0] / 5
    for explained in (Explainer(path, engine="numpy"), Explainer(path), Explainer(explainer)):
        for row, each in zip(expected, explained.explain(given, target), strict=True):
            assert (each.record.target.kind, each.record.target.index) == ("element", [])
            assert each.record.target.value == pytest.approx(row.sum(), rel=1e-5)
            np.testing.assert_allclose(each.record.relevance.content, row, rtol=1e-5)
            assert not each.record.warnings


def test_older_opsets_are_raised() -> None:
    x = real(2, 5, 4)
    body = """h = MatMul(x, w)  a = Softmax<axis = 2>(h)  u = Unsqueeze<axes = [1]>(a)
        s = Squeeze<axes = [1]>(u)  m = Mul(s, x)  y = ReduceSum<axes = [1], keepdims = 0>(m)"""
    model = opened(proto(body, {"x": x}, {"w": real(4, 4, seed=3)}, opset=11))
    given = Sample("x", "tensors", {"x": x}, InputFacts(kind="tensors", truncated=False))
    numpy, compiled = (Explainer(model, engine=e).explain(given) for e in ENGINES)
    for ours, reference in zip(compiled, numpy, strict=True):
        assert ours.record.model.opset == 11
        np.testing.assert_allclose(
            ours.record.relevance.total, reference.record.relevance.total, atol=1e-6
        )


@pytest.mark.parametrize("opset", [11, 13, 15, 16])
def test_what_adds_up_at_indices_raises_the_opset(opset: int, tmp_path: Path) -> None:
    """Windows that overlap have the winner twice; before opset 16 no operation adds it up."""
    x = real(2, 2, 5, 5)
    body = "p = MaxPool<kernel_shape=[3, 3]>(x)  f = Flatten(p)  y = MatMul(f, w)"
    path = opened(proto(body, {"x": x}, {"w": real(18, 3)}, opset=opset)).path
    explainer = tmp_path / "explainer.onnx"
    explainer.write_bytes(compile_model(path, explainer))
    given = Sample("x", "tensors", {"x": x}, InputFacts(kind="tensors", truncated=False))
    expected = [e.record for e in Explainer(path, engine="numpy").explain(given, "1")]
    for file in (path, explainer):
        for found, wanted in zip(Explainer(file).explain(given, "1"), expected, strict=True):
            np.testing.assert_allclose(
                found.record.relevance.total, wanted.relevance.total, atol=1e-5
            )
            assert found.record.ledger["content"] == pytest.approx(wanted.target.value, abs=1e-5)


def test_a_file_of_doubles() -> None:
    """y = Relu(x W): the runtime has fewer operations for them."""
    x, w = real(2, 4).astype(np.float64), real(4, 3).astype(np.float64)
    model = proto("h = MatMul(x, w)  y = Relu(h)", {"x": x}, {"w": w})
    model.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.DOUBLE
    given = Sample("x", "tensors", {"x": x}, InputFacts(kind="tensors", truncated=False))
    for row, each in enumerate(Explainer(opened(model)).explain(given, "pred")):
        value = float(max((x[row] @ w).max(), 0))
        assert each.record.target.value == pytest.approx(value)
        assert sum(each.record.relevance.content) == pytest.approx(value)


@pytest.mark.parametrize("options", [{}, {"engine": "numpy"}, {"dtype": "float64"}])
def test_classes_that_are_switched_off(options: dict[str, str]) -> None:
    """−∞ is no part of the class that is explained."""
    x, w = real(2, 4), real(4, 3)
    body = "h = MatMul(x, w)  y = Add(h, b)"
    model = opened(proto(body, {"x": x}, {"w": w, "b": np.array([0, 0, -np.inf], np.float32)}))
    given = Sample("x", "tensors", {"x": x}, InputFacts(kind="tensors", truncated=False))
    for row, each in enumerate(Explainer(model, **options).explain(given, "0-1")):
        ledger = each.record.ledger
        assert ledger["target"] == pytest.approx(x[row] @ (w[:, 0] - w[:, 1]), rel=1e-5)
        assert abs(ledger["residual_relative"]) < 1e-5


@pytest.mark.parametrize(
    ("name", "place"),
    [("target", 3), ("target", -5), ("target_against", 3), ("target_against", 99)],
)
def test_a_class_outside_of_the_output_stops_the_run(name: str, place: int, tmp_path: Path) -> None:
    """Of three classes 0 to 2; −4 is the first, as −1 is the predicted one."""
    x, w = real(2, 4), real(4, 3)
    path, explainer = opened(proto("y = MatMul(x, w)", {"x": x}, {"w": w})).path, tmp_path / "e"
    explainer.write_bytes(compile_model(path, explainer))
    session = onnxruntime.InferenceSession(explainer)
    first = session.run(["relevance_total"], {"x": x, "target": np.array([0, -4])})[0]
    np.testing.assert_allclose(first, x * w[:, 0], rtol=1e-5)
    with pytest.raises(Exception, match="Gather"):
        session.run(None, {"x": x, name: np.array([0, place])})
    given = Sample("x", "tensors", {"x": x}, InputFacts(kind="tensors", truncated=False))
    with pytest.raises(TargetError, match="Class 3 is outside"):
        Explainer(explainer).explain(given, "index:3")


def test_an_element_outside_of_the_output_stops_the_run() -> None:
    x = real(2, 4)
    body = "h = MatMul(x, w)  y = Unsqueeze(h, axes)"
    model = opened(proto(body, {"x": x}, {"w": real(4, 3), "axes": ints(1, 2)}))
    given = Sample("x", "tensors", {"x": x}, InputFacts(kind="tensors", truncated=False))
    for engine in ENGINES:
        with pytest.raises(TargetError, match="Index 1 is outside an axis of 1"):
            Explainer(model, engine=engine).explain(given, "0,1,2")
