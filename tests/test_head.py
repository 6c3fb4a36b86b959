"""Classes, labels and probabilities: there where something says so, and never made up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from building import ints, proto, real
from msgspec import structs
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static

from palrp_onnx import Explainer
from palrp_onnx.compiler.file import compile_model
from palrp_onnx.errors import TargetError, UsageError
from palrp_onnx.head import check_kind, find_head
from palrp_onnx.inputs import Sample, read_labels
from palrp_onnx.inputs.sidecar import Declared
from palrp_onnx.record import Attribution, InputFacts
from palrp_onnx.relevance.target import Target, resolve
from palrp_onnx.subject import OutputFacts, Subject

ENGINES = ("numpy", "onnxruntime")
X = real(2, 5, 4)
HEAD = "h = MatMul(x, w)  z = ReduceMean<keepdims = 0>(h, axis)"
WEIGHTS = {"w": real(4, 3, seed=3), "axis": ints(1)}
Z = (X.astype(np.float64) @ WEIGHTS["w"]).mean(axis=1)


def softmax(z: Any) -> Any:
    powers = np.exp(z - z.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def sigmoid(z: Any) -> Any:
    return 1 / (1 + np.exp(-z))


def explained(
    folder: Path,
    body: str,
    config: dict[str, Any] | None,
    target: str = "pred",
    *,
    engine: str = "onnxruntime",
    outputs: tuple[str, ...] = ("y",),
    weights: dict[str, Any] | None = None,
    **options: Any,
) -> list[Attribution]:
    path = folder / "model.onnx"
    onnx.save(proto(body, {"x": X}, {**WEIGHTS, **(weights or {})}, outputs=outputs), path)
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    given = Sample("x", "tensors", {"x": X}, InputFacts(kind="tensors"))
    found = Explainer(path, engine=engine, **options).explain(given, target, read_labels(path))
    return [each.record for each in found]


def named(*labels: str, **more: Any) -> dict[str, Any]:
    return {"id2label": {str(k): label for k, label in enumerate(labels)}, **more}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("problem", "link"),
    [
        (None, softmax),
        ("single_label_classification", softmax),
        ("multi_label_classification", sigmoid),
    ],
)
def test_probability_as_the_problem_says(
    tmp_path: Path, engine: str, problem: str | None, link: Any
) -> None:
    config = named("a", "b", "c", **({"problem_type": problem} if problem else {}))
    body = f"{HEAD}  y = Identity(z)"
    for target in ("a", "1", "b-c", "pred"):
        for row, record in enumerate(explained(tmp_path, body, config, target, engine=engine)):
            index = record.target.index
            assert isinstance(index, int)
            assert record.target.kind == ("contrast" if target == "b-c" else "class")
            assert record.target.label == "abc"[index]
            assert record.target.probability == pytest.approx(link(Z[row])[index], rel=1e-5)
            assert not record.warnings


def test_a_regression_has_no_probability(tmp_path: Path) -> None:
    config = named("valence", "arousal", "power", problem_type="regression")
    (record, _) = explained(tmp_path, f"{HEAD}  y = Identity(z)", config, "arousal")
    assert record.target.kind == "element"
    assert (record.target.index, record.target.label) == ([1], "arousal")
    assert record.target.probability is None
    (record, _) = explained(tmp_path, f"{HEAD}  y = Identity(z)", config)
    assert [w.code for w in record.warnings] == ["no-classes"]


@pytest.mark.parametrize(
    ("config", "probability"),
    [
        (named("score"), None),
        (named("score", problem_type="regression"), None),
        (named("toxic", problem_type="multi_label_classification"), sigmoid),
        (named("toxic", problem_type="single_label_classification"), sigmoid),
        (None, None),
    ],
)
def test_a_single_score(tmp_path: Path, config: dict[str, Any] | None, probability: Any) -> None:
    """Only a word on the problem tells a logit from a regression; one number is no choice."""
    body = f"{HEAD}  y = Slice(z, from, to, last)"
    weights = {"from": ints(0), "to": ints(1), "last": ints(1)}
    (record, _) = explained(tmp_path, body, config, weights=weights)
    expected = None if probability is None else pytest.approx(probability(Z[0, 0]), rel=1e-5)
    assert record.target.probability == expected
    assert not record.warnings


@pytest.mark.parametrize(
    ("config", "size"),
    [
        (None, 3),
        ({}, 3),
        ({"model_type": "bert"}, 3),
        (named("a", "b"), 3),
        ({"id2label": {"1": "a", "2": "b", "3": "c"}}, 3),
        ({"vocab_size": 30522}, 3),
    ],
)
@pytest.mark.parametrize("engine", ENGINES)
def test_nothing_is_made_up(
    tmp_path: Path, config: dict[str, Any] | None, size: int, engine: str
) -> None:
    for row, record in enumerate(
        explained(tmp_path, f"{HEAD}  y = Identity(z)", config, engine=engine)
    ):
        target = record.target
        assert (target.kind, target.index) == ("element", [int(Z[row].argmax())])
        assert (target.label, target.probability) == (None, None)
        assert [w.code for w in record.warnings] == ["no-classes"]
    (record, _) = explained(tmp_path, f"{HEAD}  y = Identity(z)", config, "1", engine=engine)
    assert (record.target.kind, record.target.index) == ("element", [1])
    assert not record.warnings


def test_hidden_states_are_no_classes(tmp_path: Path) -> None:
    (record, _) = explained(tmp_path, "y = MatMul(x, w)", named("a", "b"))
    assert record.target.kind == "element"
    assert record.target.index == [4, int((X[0, 4] @ WEIGHTS["w"]).argmax())]
    assert record.target.probability is None
    assert "there are labels for 2" in record.warnings[0].message


def test_classes_of_tokens(tmp_path: Path) -> None:
    (record, _) = explained(tmp_path, "y = MatMul(x, w)", named("O", "B", "I"), "token:2:1")
    z = X[0, 2].astype(np.float64) @ WEIGHTS["w"]
    assert (record.target.kind, record.target.position) == ("token", 2)
    assert record.target.label == "B"
    assert record.target.probability == pytest.approx(softmax(z)[1], rel=1e-5)


def test_two_classes_are_the_default_of_transformers(tmp_path: Path) -> None:
    """Which leaves ``id2label`` out of ``config.json`` then."""
    body = f"{HEAD}  y = Slice(z, from, to, last)"
    weights = {"from": ints(0), "to": ints(2), "last": ints(1)}
    (record, _) = explained(tmp_path, body, {"model_type": "bert"}, weights=weights)
    index = record.target.index
    assert isinstance(index, int)
    assert (record.target.kind, record.target.label) == ("class", None)
    assert record.target.probability == pytest.approx(softmax(Z[0, :2])[index], rel=1e-5)


def test_a_label_needs_the_output_to_have_its_classes(tmp_path: Path) -> None:
    with pytest.raises(TargetError, match="labels for 2 classes, but the last axis") as caught:
        explained(tmp_path, f"{HEAD}  y = Identity(z)", named("a", "b"), "b")
    assert "index:0" in caught.value.hint


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("ending", "link", "before"),
    [
        ("y = Softmax<axis = -1>(z)", softmax, "z"),
        ("y = Sigmoid(z)", sigmoid, "z"),
        ("l = LogSoftmax<axis = -1>(z)  y = Exp(l)", softmax, "z"),
        ("six = Mul(z, k)  y = Sigmoid(six)", lambda z: sigmoid(6 * z), "six"),
        ("p = Softmax<axis = -1>(z)  y = Clip(p, low, high)", softmax, "z"),
        ("p = Sigmoid(z)  q = Unsqueeze(p, axis)  y = Squeeze(q, axis)", sigmoid, "z"),
        (
            "p = Sigmoid(z)  q = Div(p, k)  r = Add(q, k)  t = Sub(r, k)  y = Mul(t, k)",
            sigmoid,
            "z",
        ),
    ],
)
def test_an_output_that_is_a_probability(
    tmp_path: Path, engine: str, ending: str, link: Any, before: str
) -> None:
    weights = {"k": np.float32(6), "low": np.float32(1e-7), "high": np.float32(1)}
    weights = {name: array for name, array in weights.items() if name in ending}
    found = explained(
        tmp_path, f"{HEAD}  {ending}", None, "1", engine=engine, weights=weights, output="y"
    )
    for row, record in enumerate(found):
        assert (record.target.kind, record.target.index) == ("class", 1)
        assert record.target.probability == record.target.value
        assert record.target.probability == pytest.approx(link(Z[row])[1], rel=1e-5)
        assert [w.code for w in record.warnings] == ["probability"]
        assert f"--output {before}" in record.warnings[0].message
    behind = explained(
        tmp_path, f"{HEAD}  {ending}", None, "1", engine=engine, weights=weights, output=before
    )
    assert not behind[0].warnings
    assert behind[0].target.output == before
    assert behind[0].target.probability == pytest.approx(link(Z[0])[1], rel=1e-5)
    usual = explained(tmp_path, f"{HEAD}  {ending}", None, "1", engine=engine, weights=weights)
    assert [each.target for each in usual] == [each.target for each in behind]
    assert "what stands before that is explained" in (usual[0].target.head_reason or "")


@pytest.mark.parametrize(
    "ending",
    [
        "p = Sigmoid(z)  y = Round(p)",
        "p = Sigmoid(z)  q = Mul(p, k)  r = Round(q)  y = Div(r, k)",
        "p = Softmax<axis = -1>(z)  y = Clip(p, half, one)",
        "p = Softmax<axis = -1>(z)  y = Clip(p, zero, half)",
        "p = Softmax<axis = -1>(z)  q = Mul(p, k)  r = Clip(q, zero, one)  y = Div(r, k)",
    ],
)
def test_what_is_left_of_a_probability_is_none(tmp_path: Path, ending: str) -> None:
    """Rounded to whole numbers or sixths, or cut off."""
    numbers = {"k": 6.0, "zero": 0.0, "half": 0.5, "one": 1.0}
    weights = {name: np.float32(number) for name, number in numbers.items() if name in ending}
    weights = {name: each for name, each in weights.items() if name != "k" or ", k)" in ending}
    found = explained(tmp_path, f"{HEAD}  {ending}", None, "1", weights=weights)
    assert {record.target.probability for record in found} == {None}


class Calibration(CalibrationDataReader):
    def __init__(self) -> None:
        self._next = iter([{"x": real(2, 5, 4, seed=k)} for k in range(4)])

    def get_next(self) -> Any:
        return next(self._next, None)


@pytest.mark.parametrize("form", [QuantFormat.QDQ, QuantFormat.QOperator])
@pytest.mark.parametrize(("kind", "link"), [("Softmax<axis = -1>", softmax), ("Sigmoid", sigmoid)])
def test_a_quantised_probability(tmp_path: Path, kind: str, link: Any, form: Any) -> None:
    """The factors and offsets of quantising and dequantising cancel."""
    plain, path = tmp_path / "plain.onnx", tmp_path / "model.onnx"
    model = proto(f"{HEAD}  y = {kind}(z)", {"x": X}, WEIGHTS)
    known = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["axis0", 3])
    model.graph.output[0].CopyFrom(known)
    onnx.save(model, plain)
    quantize_static(plain, path, Calibration(), quant_format=form)
    given = Sample("x", "tensors", {"x": X}, InputFacts(kind="tensors"))
    for engine in ENGINES:
        record = Explainer(path, engine=engine, output="y").explain(given, "1")[0].record
        assert record.target.probability == record.target.value
        assert record.target.value == pytest.approx(link(Z[0])[1], abs=0.03)
        (warning,) = (w for w in record.warnings if w.code == "probability")
        before = warning.message.rpartition("--output ")[2]
        behind = Explainer(path, engine=engine, output=before).explain(given, "1")[0].record
        assert behind.target.probability == pytest.approx(link(Z[0])[1], abs=0.03)
        assert behind.target.value == pytest.approx(Z[0, 1], abs=0.1)


def test_a_compiled_file_knows_its_ending(tmp_path: Path) -> None:
    given = Sample("x", "tensors", {"x": X}, InputFacts(kind="tensors"))
    for output, codes in (("y", ["probability"]), (None, [])):
        (record, _) = explained(tmp_path, f"{HEAD}  y = Sigmoid(z)", None, "1", output=output)
        file = tmp_path / "explainer.onnx"
        file.write_bytes(compile_model(tmp_path / "model.onnx", file, output=output))
        ours = Explainer(file).explain(given, "1")[0].record
        assert ours.target == record.target
        assert [w.code for w in ours.warnings] == codes


def test_a_logarithm_of_probabilities(tmp_path: Path) -> None:
    for ending in ("y = LogSoftmax<axis = -1>(z)", "p = Softmax<axis = -1>(z)  y = Log(p)"):
        (record, _) = explained(tmp_path, f"{HEAD}  {ending}", None, "1", output="y")
        assert record.target.value == pytest.approx(np.log(softmax(Z[0])[1]), rel=1e-4)
        assert record.target.probability == pytest.approx(softmax(Z[0])[1], rel=1e-4)


def test_what_is_no_probability_any_more(tmp_path: Path) -> None:
    """A sigmoid that is scaled is none."""
    body, weights = f"{HEAD}  p = Sigmoid(z)  y = Mul(p, k)", {"k": np.float32(5)}
    (record, _) = explained(tmp_path, body, None, "1", weights=weights)
    assert (record.target.kind, record.target.probability) == ("element", None)


BLENDED = {
    "a mean of two": "p = Softmax<axis=-1>(z)  v = Neg(z)  q = Softmax<axis=-1>(v)  y = Mean(p, q)",
    "a weighted sum": """p = Softmax<axis=-1>(z)  r = Mul(p, k)  v = Neg(z)
        q = Softmax<axis=-1>(v)  y = Sub(q, r)""",
    "of every token": "p = Softmax<axis=-1>(h)  y = ReduceMean<keepdims=0>(p, axis)",
    "the others": "p = Sigmoid(z)  y = Sub(k, p)",
    "a share": "r = Relu(z)  s = ReduceSum(r, axis)  t = Add(s, k)  y = Div(r, t)",
}


@pytest.mark.parametrize("body", BLENDED.values(), ids=BLENDED)
@pytest.mark.parametrize("head", [None, "single-label"])
def test_what_is_made_of_probabilities_is_no_score(
    tmp_path: Path, body: str, head: str | None
) -> None:
    weights = {"k": np.float32(0.3)}
    whole = f"{HEAD}  {body}"
    weights = weights if " k)" in whole or "(k" in whole else {}
    (record, _) = explained(tmp_path, whole, named("a", "b", "c"), "b", weights=weights, head=head)
    assert (record.target.label, record.target.probability) == ("b", None)


def test_scores_that_happen_to_be_a_distribution_are_scores(tmp_path: Path) -> None:
    """Numbers say nothing: the same head has the same kind of probability for every input."""
    body, weights = f"{HEAD}  s = Mul(z, none)  y = Add(s, b)", {"none": np.float32(0)}
    weights["b"] = np.array([0.5, 0.25, 0.25], np.float32)
    (record, _) = explained(tmp_path, body, named("a", "b", "c"), "a", weights=weights)
    assert record.target.probability == pytest.approx(softmax(weights["b"])[0])


def test_a_gate_makes_scores(tmp_path: Path) -> None:
    body = f"{HEAD}  g = Sigmoid(z)  y = Mul(g, z)"
    (record, _) = explained(tmp_path, body, named("a", "b", "c"), "b")
    expected = softmax(Z[0] * sigmoid(Z[0]))[1]
    assert record.target.probability == pytest.approx(expected, rel=1e-5)


def test_a_softmax_that_is_written_out(tmp_path: Path) -> None:
    """A softmax that is written out in other operations is one, and its value a probability."""
    body = f"{HEAD}  e = Exp(z)  s = ReduceSum<keepdims = 1>(e, axis)  y = Div(e, s)"
    (record, _) = explained(tmp_path, body, named("a", "b", "c"), "b", output="y")
    assert record.target.label == "b"
    assert record.target.probability == pytest.approx(record.target.value)


def test_scores_with_a_sigmoid_as_another_output(tmp_path: Path) -> None:
    """The graph says how a probability follows, whatever ``config.json`` leaves open."""
    body = f"{HEAD}  y = Identity(z)  p = Sigmoid(y)"
    (record, _) = explained(tmp_path, body, named("a", "b", "c"), "b", outputs=("y", "p"))
    assert record.target.probability == pytest.approx(sigmoid(Z[0, 1]), rel=1e-5)
    assert not record.warnings


@pytest.mark.parametrize("engine", ENGINES)
def test_values_inside_have_no_probability_of_their_own(tmp_path: Path, engine: str) -> None:
    """What is made of them on the way to the output is not known."""
    body, weights = f"{HEAD}  y = Mul(z, k)", {"k": np.float32(6)}
    (record, _) = explained(
        tmp_path, body, named("a", "b", "c"), "b", engine=engine, weights=weights, output="z"
    )
    assert (record.target.output, record.target.label) == ("z", "b")
    assert record.target.value == pytest.approx(Z[0, 1], rel=1e-5)
    assert record.target.probability is None
    assert abs(record.ledger["residual_relative"]) < 1e-5


def test_names_that_are_no_output_and_no_value(tmp_path: Path) -> None:
    for name in ("nothing", "w", "x"):
        with pytest.raises(TargetError, match="There is no output") as caught:
            explained(tmp_path, f"{HEAD}  y = Identity(z)", None, output=name)
        assert "Outputs: y." in caught.value.hint


@pytest.mark.parametrize("method", ["attnlrp-gamma", "pa-lrp-gamma", "pa-lrp-alpha"])
@pytest.mark.parametrize("engine", ENGINES)
def test_methods_that_stop_at_attention_pass_the_softmax_of_a_head(
    tmp_path: Path, method: str, engine: str
) -> None:
    body = f"{HEAD}  y = Softmax<axis = -1>(z)"
    (record, _) = explained(tmp_path, body, None, "1", engine=engine, method=method)
    assert any(record.relevance.content)
    assert abs(record.ledger["residual_relative"]) < 1e-5


def head_of(
    shape: tuple[int, ...],
    facts: OutputFacts,
    declared: Declared,
    labels: dict[int, str] | None = None,
    asked: Any = None,
) -> Any:
    subject = Subject(
        source=None,  # type: ignore[arg-type]
        output="y",
        axes=len(shape),
        input="x",
        batched=("x",),
        masks=(),
        mask=None,
        unit_mask=None,
        image=None,
        patch=None,
        mixed=None,
        facts=facts,
    )
    return find_head(subject, shape, declared, labels or {}, asked)


@pytest.mark.parametrize(
    ("facts", "declared"),
    [
        (OutputFacts(vocabularies=(7,)), Declared()),
        (OutputFacts(), Declared(vocabulary=7)),
    ],
)
def test_an_entry_for_every_token(facts: OutputFacts, declared: Declared) -> None:
    head = head_of((1, 4, 7), facts, declared)
    assert head.classes
    assert head.vocabulary
    row = real(4, 7)
    found = resolve(Target("pred"), row, None)
    assert head.probability(found) == pytest.approx(softmax(row[3].astype(np.float64)).max())
    assert not head_of((1, 4, 8), facts, declared).classes


def test_an_axis_of_tokens_is_no_axis_of_classes() -> None:
    """Of as many tokens as there are classes, or as the vocabulary has."""
    facts = OutputFacts(tokens=True, vocabularies=(7,))
    assert not head_of((1, 7), facts, Declared(classes=7)).classes


def test_large_numbers_have_finite_probabilities() -> None:
    row = np.array([1e4, -1e4, 0.0], np.float32)
    found = resolve(Target("pred"), row, None)
    head = head_of((1, 3), OutputFacts(), Declared(classes=3))
    assert head.probability(found) == 1.0
    several = head_of((1, 3), OutputFacts(followed="Sigmoid"), Declared())
    chances = [several.probability(resolve(Target("index", k), row, None)) for k in range(3)]
    assert chances == [1.0, 0.0, 0.5]


WORDS = OutputFacts(vocabularies=(7,), sequence=True)
TWO = {0: "a", 1: "b"}


@pytest.mark.parametrize(
    ("shape", "facts", "declared", "kind", "why"),
    [
        ((1, 2), OutputFacts(), Declared(classes=2), "single-label", "config.json"),
        ((1, 2), OutputFacts(ending="Softmax"), Declared(), "single-label", "Softmax"),
        ((1, 2), OutputFacts(followed="Sigmoid"), Declared(), "multi-label", "before that"),
        (
            (1, 2),
            OutputFacts(),
            Declared(classes=2, problem="multi_label_classification"),
            "multi-label",
            "problem_type",
        ),
        ((1, 1), OutputFacts(followed="Sigmoid"), Declared(), "binary", "Sigmoid"),
        ((1, 1), OutputFacts(), Declared(), "regression", "one number"),
        ((1, 2), OutputFacts(), Declared(classes=2, problem="regression"), "regression", "problem"),
        (
            (1, 4, 2),
            OutputFacts(sequence=True),
            Declared(classes=2),
            "token-classification",
            "every",
        ),
        ((1, 4, 7), WORDS, Declared(architecture="BertForMaskedLM"), "masked-lm", "BertForMasked"),
        ((1, 4, 7), WORDS, Declared(architecture="GPT2LMHeadModel"), "causal-lm", "GPT2LMHead"),
        ((1, 4, 7), structs.replace(WORDS, causal=False), Declared(), "masked-lm", "later tokens"),
        ((1, 4, 7), structs.replace(WORDS, causal=True), Declared(), "causal-lm", "back only"),
        (
            (1, 4),
            OutputFacts(tokens=True, siblings=("end",)),
            Declared(classes=2),
            "question-answering",
            "end",
        ),
        ((1, 3), OutputFacts(tokens=True, choices=True), Declared(), "multiple-choice", "choices"),
        ((1, 9), OutputFacts(), Declared(architecture="BertModel"), "embedding", "BertModel"),
        ((1, 9), OutputFacts(), Declared(), "numbers", "nothing says"),
        ((1, 5, 3), OutputFacts(boxes="boxes"), Declared(classes=3), "detection", "boxes"),
        (
            (1, 9, 7),
            OutputFacts(sequence=True, causal=False),
            Declared(vocabulary=7),
            "token-classification",
            "no tokens",
        ),
    ],
)
def test_kinds_of_heads(
    shape: tuple[int, ...], facts: OutputFacts, declared: Declared, kind: str, why: str
) -> None:
    head = head_of(shape, facts, declared)
    assert head.kind == kind
    assert why in head.why


@pytest.mark.parametrize(("labels", "link"), [(3, "sigmoid"), (2, "softmax")])
def test_probabilities_of_detectors(labels: int, link: str) -> None:
    """With a class for no object they add up to one; without it, each class has its own."""
    names = {k: "abc"[k] for k in range(labels)}
    head = head_of((1, 5, 3), OutputFacts(boxes="boxes"), Declared(), names)
    assert (head.kind, head.link) == ("detection", link)
    assert head.names[2] == ("c" if labels == 3 else "no object")


def test_the_caller_may_say_what_a_head_is() -> None:
    """Of the kinds that its shape allows; probabilities follow from the kind."""
    declared = Declared(classes=2)
    head = head_of((1, 2), OutputFacts(), declared, TWO, "multi-label")
    assert (head.kind, head.link, head.why) == ("multi-label", "sigmoid", "the caller says so")
    head = head_of((1, 2), OutputFacts(), declared, TWO, "regression")
    assert (head.classes, head.link) == (False, None)
    head = head_of((1, 2), OutputFacts(ending="Sigmoid"), declared, TWO, "single-label")
    assert head.link == "value"
    assert head_of((1, 4, 7), WORDS, Declared(), None, "masked-lm").vocabulary
    for asked in ("segmentation", "masked-lm"):
        with pytest.raises(UsageError, match=f"no {asked}"):
            head_of((1, 2), OutputFacts(), declared, TWO, asked)
    with pytest.raises(UsageError, match="Unknown head"):
        check_kind("oracle")


@pytest.mark.parametrize("causal", [True, False])
def test_attention_that_looks_back_only(tmp_path: Path, causal: bool) -> None:
    """It tells a model that predicts the next token from one that fills in a masked one."""
    mask = np.triu(np.full((5, 5), -1e9, np.float32), k=1) if causal else np.zeros((5, 5))
    weights = {
        "table": real(7, 4, seed=1),
        "head": real(4, 7, seed=2),
        "mask": mask.astype(np.float32),
    }
    body = "e = Gather(table, ids)  t = Transpose<perm=[0,2,1]>(e)  s = MatMul(e, t)"
    body += "  u = Add(s, mask)  a = Softmax<axis=-1>(u)  h = MatMul(a, e)  y = MatMul(h, head)"
    path = tmp_path / "model.onnx"
    onnx.save(proto(body, {"ids": ints([1, 2, 3, 4, 5])}, weights), path)
    given = Sample("x", "tensors", {"ids": ints([1, 2, 3, 4, 5])}, InputFacts(kind="tensors"))
    target = Explainer(path).explain(given, "token:2")[0].record.target
    assert target.head == ("causal-lm" if causal else "masked-lm")
