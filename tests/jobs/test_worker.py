"""A batch is a loop of singles: the same records, whatever runs beside them."""

from __future__ import annotations

import json
import random
import shutil
import wave
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pairs
import pytest
import shifted_ids
from building import proto, real
from committed import MODELS
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from palrp_onnx import Explainer
from palrp_onnx.errors import InputError, ModelError, TargetError
from palrp_onnx.inputs import read_labels
from palrp_onnx.jobs import Line, Record, Settings, Worker
from palrp_onnx.jobs.records import parse

BERT, ROPE, VIT = (
    MODELS / n / "model.onnx" for n in ("reviews-bert", "reviews-rope", "digits-vit")
)


def records(rows: Sequence[Any], folder: Path = Path()) -> list[Record]:
    return [
        Record(number, json.dumps(row).encode(), folder=folder)
        for number, row in enumerate(rows, start=1)
    ]


def texts(model: Path, count: int) -> list[dict[str, Any]]:
    words = (model.parent / "sample.txt").read_text().split()
    generator = random.Random(1)
    return [
        {"id": f"r{number}", "text": " ".join(generator.choices(words, k=generator.randint(1, 30)))}
        for number in range(count)
    ]


def decoded(lines: Sequence[Line]) -> list[dict[str, Any]]:
    return [json.loads(line.data) for line in lines]


def alike(first: Any, second: Any, scale: float = 1.0) -> None:
    """Equal but for rounding in numbers, which are held against the target."""
    if isinstance(first, dict):
        assert first.keys() == second.keys()
        for key in first:
            alike(first[key], second[key], scale)
    elif isinstance(first, list):
        assert len(first) == len(second)
        for pair in zip(first, second, strict=True):
            alike(*pair, scale)
    elif isinstance(first, float):
        assert abs(first - second) <= 1e-5 * scale
    else:
        assert first == second


def same_as_singles(worker: Worker, given: Sequence[Record]) -> list[dict[str, Any]]:
    together = decoded(worker(given))
    for whole, record in zip(together, given, strict=True):
        (alone,) = decoded(worker([record]))
        if "error" in alone:
            assert whole == alone
            continue
        scale = max(1.0, *map(abs, alone["ledger"].values()))
        for name in ("ledger", "sites", "relevance"):
            alike(whole.pop(name), alone.pop(name), scale)
        alike(whole, alone, scale)
    return together


class Runs:
    """Sizes of batches that an explainer was given."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.shapes: list[tuple[int, ...]] = []
        own = Explainer.explain

        def explain(explainer: Explainer, sample: Any, *rest: Any) -> Any:
            self.shapes.append(next(iter(sample.feeds.values())).shape)
            return own(explainer, sample, *rest)

        monkeypatch.setattr(Explainer, "explain", explain)

    @property
    def rows(self) -> list[int]:
        return [shape[0] for shape in self.shapes]


@pytest.mark.quick
@pytest.mark.parametrize("model", [BERT, ROPE], ids=["bert", "rope"])
def test_texts(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = texts(model, 20)
    rows[3]["text"] = ""
    rows[4]["target"] = "NEGATIVE"
    rows[5]["target"] = "POSITIVE-NEGATIVE"
    rows[6] |= {"target": 0, "meta": {"source": ["a", None]}}
    rows[7] = {"id": "ids", "input_ids": [2, 17, 80, 3]}
    rows[8]["target"] = "NEITHER"
    worker = Worker(model, Settings())
    seen = Runs(monkeypatch)
    found = same_as_singles(worker, records(rows))
    assert max(seen.rows) > 3  # they did run together, and filled up
    assert [line["id"] for line in found] == [row["id"] for row in rows]
    errors = {line["id"]: line["error"]["code"] for line in found if "error" in line}
    assert errors == {"r3": "input", "r8": "target"}
    assert found[6]["meta"] == {"source": ["a", None]}
    assert all("meta" not in line for line in found if line["id"] != "r6")


def test_the_explainer_itself_says_the_same() -> None:
    """Not only does a batch agree with itself."""
    rows = texts(BERT, 5)
    worker = Worker(BERT, Settings())
    explainer = Explainer(BERT)
    for line, record in zip(decoded(worker(records(rows))), records(rows), strict=True):
        sample = worker.reader.read(parse(record), line["id"], Path())
        (alone,) = explainer.explain(sample, "pred", read_labels(BERT))
        np.testing.assert_allclose(
            line["relevance"]["total"], alone.record.relevance.total, atol=1e-5
        )
        assert line["units"]["text"] == alone.record.units.text
        assert line["target"]["label"] == alone.record.target.label
        assert line["run"]["ms"] == {}


def test_images_pairs_and_tensors(tmp_path: Path) -> None:
    picture = Image.open(VIT.parent / "sample.png")
    for number in range(4):
        picture.rotate(number * 30).save(tmp_path / f"{number}.png")
    rows = [{"image": f"{number}.png"} for number in range(4)]
    (tmp_path / "bad.png").write_bytes(b"no picture")
    rows += [{"image": "bad.png"}, {"image": "missing.png"}, {"text": "no image"}]
    found = same_as_singles(Worker(VIT, Settings()), records(rows, tmp_path))
    assert ["error" in line for line in found] == [False] * 4 + [True] * 3
    assert found[0]["units"]["grid"] and found[0]["id"] == "1"

    ids = np.array([[2, 9, 30, 3]])
    feeds = {"attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    np.savez(tmp_path / "one.npz", input_ids=ids, **feeds)
    two = {name: np.repeat(array, 2, 0) for name, array in {"input_ids": ids, **feeds}.items()}
    np.savez(tmp_path / "two.npz", **two)
    (tmp_path / "t.txt").write_text("a gripping drama")
    rows = [
        {"tensors": "one.npz"},
        {"text": "a dull film", "text_pair": "is it good?"},
        {"text_file": "t.txt"},
        {"tensors": "two.npz"},
    ]
    found = same_as_singles(Worker(BERT, Settings()), records(rows, tmp_path))
    assert found[1]["input"]["text_pair"] == "is it good?" and 1 in found[1]["units"]["sequence"]
    assert "one row" in found[3]["error"]["message"]


def test_sounds(tmp_path: Path) -> None:
    body = "h = MatMul(x, w)  a = Relu(h)  y = MatMul(a, v)"
    weights = {"w": real(4, 6, seed=1), "v": real(6, 3, seed=2)}
    onnx.save(proto(body, {"x": real(1, 4)}, weights, free=(0,)), tmp_path / "model.onnx")
    kind = {"feature_extractor_type": "Wav2Vec2FeatureExtractor"}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(kind))
    for number in range(3):
        with wave.open(str(tmp_path / f"{number}.wav"), "wb") as file:
            file.setparams((1, 2, 16000 if number < 2 else 8000, 0, "NONE", ""))
            file.writeframes(np.array([1, -2, 3 * number, 5], "<i2").tobytes())
    rows = [{"sound": f"{number}.wav"} for number in range(3)]
    found = same_as_singles(Worker(tmp_path / "model.onnx", Settings()), records(rows, tmp_path))
    assert [line["input"]["kind"] for line in found[:2]] == ["sound"] * 2
    assert "error" in found[2]


def test_a_bad_record_costs_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    worker = Worker(BERT, Settings())
    own = Explainer.explain

    def explain(self: Explainer, sample: Any, *rest: Any) -> Any:
        if (sample.feeds["input_ids"] == 77).any():
            raise RuntimeError("bad luck") if len(sample.feeds["input_ids"]) == 1 else MemoryError
        return own(self, sample, *rest)

    monkeypatch.setattr(Explainer, "explain", explain)
    rows = [{"id": str(n), "input_ids": [2, 9 + n, 77 if n == 3 else 5, 3]} for n in range(6)]
    lines = worker(records(rows))
    found = decoded(lines)
    assert [line.failed for line in lines] == [n == 3 for n in range(6)]
    assert [line["id"] for line in found] == [row["id"] for row in rows]
    assert found[3]["error"]["code"] == "bug" and "bad luck" in found[3]["error"]["message"]
    assert found[3]["error"]["place"] == "record:4"


def test_places_that_are_named_are_the_records_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """An index beyond a short record is refused, however long the others are."""
    worker = Worker(BERT, Settings())
    seen = Runs(monkeypatch)
    rows = [{"input_ids": [2, *range(9, 9 + n), 3], "target": "1,1"} for n in (3, 3, 8)]
    assert all(line.failed for line in worker(records(rows)))
    assert {shape[1] for shape in seen.shapes} == {5, 10}


def test_what_records_may_ask_for(tmp_path: Path) -> None:
    """A number is an index; several targets have no line, and files are not the data's to name."""
    folder = tmp_path / "stars"
    shutil.copytree(BERT.parent, folder)
    config = json.loads((folder / "config.json").read_text())
    config["id2label"] = {"0": "1", "1": "2"}
    (folder / "config.json").write_text(json.dumps(config))
    np.save(tmp_path / "v.npy", np.array([1.0, -1.0]))
    wanted: list[Any] = [1, "index:1", "label:1", "1", "all", f"dot:{tmp_path / 'v.npy'}"]
    rows = [{"text": "good", "target": each} for each in wanted]
    found = decoded(Worker(folder / "model.onnx", Settings())(records(rows)))
    assert [each["target"]["index"] for each in found[:3]] == [1, 1, 0]
    assert "ambiguous" in found[3]["error"]["message"]
    assert "several" in found[4]["error"]["message"]
    assert "file" in found[5]["error"]["message"]
    with pytest.raises(TargetError, match="several"):
        Worker(BERT, Settings(target="0,POSITIVE"))


def test_products_with_a_vector(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.save(tmp_path / "v.npy", np.array([1.0, -1.0]))
    rows = texts(BERT, 4)
    found = decoded(Worker(BERT, Settings(target=f"dot:{tmp_path / 'v.npy'}"))(records(rows)))
    contrasts = decoded(Worker(BERT, Settings(target="0-1"))(records(rows)))
    for ours, theirs in zip(found, contrasts, strict=True):
        assert ours["target"]["kind"] == "dot"
        assert ours["target"]["value"] == pytest.approx(theirs["target"]["value"], rel=1e-4)
        alike(ours["relevance"], theirs["relevance"], abs(theirs["target"]["value"]))


def test_without_a_mask_only_equal_lengths_run_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = pooled(tmp_path)
    worker = Worker(model, Settings())
    seen = Runs(monkeypatch)
    rows = [{"input_ids": list(range(1, 1 + n))} for n in (3, 5, 3, 5, 5)]
    assert not any(line.failed for line in worker(records(rows)))
    assert sorted(seen.shapes) == [(2, 3), (3, 5)]
    same_as_singles(worker, records(rows))


def test_rows_that_share_a_scale_run_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Dynamic quantisation measures its scale over the whole batch."""
    worker = Worker(pooled(tmp_path, quantised=True), Settings())
    seen = Runs(monkeypatch)
    rows = [{"input_ids": [n, n + 1, n + 2]} for n in range(1, 6)]
    worker(records(rows))
    assert seen.rows == [1] * 5


@pytest.mark.parametrize(("pooling", "lengths"), [("ReduceSum", {5}), ("ReduceMean", {3, 4, 5})])
def test_rows_are_filled_up_where_that_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pooling: str, lengths: set[int]
) -> None:
    """A mean over all places, masked ones too, does notice padding."""
    (tmp_path / "config.json").write_text('{"pad_token_id": 0}')
    worker = Worker(pooled(tmp_path, pooling=pooling, masked=True), Settings())
    seen = Runs(monkeypatch)
    rows = [{"input_ids": list(range(1, 1 + n))} for n in (5, 4, 5, 3, 4, 5)]
    worker(records(rows))
    assert {shape[1] for shape in seen.shapes} == lengths
    same_as_singles(worker, records(rows))


def pooled(
    folder: Path, *, quantised: bool = False, pooling: str = "ReduceMean", masked: bool = False
) -> Path:
    """Words + positions → square → product, in eight bits or masked → pooling → classes."""
    generator = np.random.default_rng(0)

    def table(name: str, *shape: int) -> onnx.TensorProto:
        return numpy_helper.from_array(generator.normal(size=shape).astype(np.float32), name)

    def whole(name: str, values: list[int]) -> onnx.TensorProto:
        return numpy_helper.from_array(np.array(values, np.int64), name)

    few = generator.integers(-9, 9, size=(4, 4)).astype(np.int8)
    middle = [
        helper.make_node("DynamicQuantizeLinear", ["active"], ["q", "scale", "zero"]),
        helper.make_node("MatMulInteger", ["q", "few", "zero"], ["i"]),
        helper.make_node("Cast", ["i"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["f", "scale"], ["mixed"]),
    ]
    nodes = [
        helper.make_node("Gather", ["words", "input_ids"], ["content"]),
        helper.make_node("Shape", ["input_ids"], ["length"], start=1),
        helper.make_node("Slice", ["places", "zero1", "length", "zero1"], ["position"]),
        helper.make_node("Add", ["content", "position"], ["hidden"]),
        helper.make_node("Mul", ["hidden", "hidden"], ["active"]),
        *(middle if quantised else [helper.make_node("MatMul", ["active", "real"], ["mixed"])]),
        helper.make_node("Cast", ["attention_mask"], ["flags"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["flags", "last"], ["keep"]),
        helper.make_node("Mul", ["mixed", "keep"], ["kept"]),
        helper.make_node(pooling, ["kept" if masked else "mixed", "axis"], ["mean"], keepdims=0),
        helper.make_node("MatMul", ["mean", "classes"], ["logits"]),
    ]
    weights = [
        table("words", 30, 4),
        table("places", 40, 4),
        table("classes", 4, 2),
        table("real", 4, 4),
        numpy_helper.from_array(few, "few"),
        whole("zero1", [0]),
        whole("axis", [1]),
        whole("last", [-1]),
    ]
    if not masked:
        nodes = [node for node in nodes if node.output[0] not in ("flags", "keep", "kept")]
    used = {name for node in nodes for name in node.input}
    graph = helper.make_graph(
        nodes,
        "pooled",
        [
            helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "tokens"])
            for name in ("input_ids", "attention_mask")[: 1 + masked]
        ],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 2])],
        [weight for weight in weights if weight.name in used],
    )
    path = folder / "pooled.onnx"
    opset = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), path)
    return path


def test_engines_and_settings() -> None:
    rows = texts(BERT, 3)
    plain = decoded(Worker(BERT, Settings())(records(rows)))
    wide = decoded(Worker(BERT, Settings(dtype="float64", method="attnlrp"))(records(rows)))
    assert wide[0]["run"]["dtype"] == "float64" and wide[0]["run"]["method"] == "attnlrp"
    assert wide[0]["target"]["value"] == pytest.approx(plain[0]["target"]["value"], rel=1e-4)


def test_models_that_cannot_be_explained_are_no_records_fault(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        Worker(tmp_path / "missing.onnx", Settings())
    (tmp_path / "bad.onnx").write_bytes(b"no model")
    with pytest.raises(ModelError):
        Worker(tmp_path / "bad.onnx", Settings())
    with pytest.raises(TargetError):
        Worker(BERT, Settings(target="NEITHER"))
    with pytest.raises(TargetError):
        Worker(BERT, Settings(output="neither"))


def test_without_a_tokenizer_texts_fail_and_ids_do_not(tmp_path: Path) -> None:
    shutil.copy(BERT, tmp_path / "model.onnx")
    worker = Worker(tmp_path / "model.onnx", Settings())
    text, ids = decoded(worker(records([{"text": "a"}, {"input_ids": [2, 9, 3]}])))
    assert "tokenizer" in text["error"]["message"]
    assert ids["units"]["text"] == ["2", "9", "3"]


@pytest.mark.parametrize("rows", [1, 2])
def test_with_an_example_records_run_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    model = shifted_ids.write_model(tmp_path / "model.onnx")
    example = shifted_ids.write_example(tmp_path / "example.npz", shifted_ids.IDS[:rows])
    data = records([{"input_ids": ids} for ids in ([1003, 1001], [1000, 1005, 1009], [1002, 1002])])
    worker = Worker(model, Settings(example=str(example)))
    seen = Runs(monkeypatch)
    same_as_singles(worker, data)
    assert (2, 2) in seen.shapes
    alone = Worker(model, Settings())
    seen = Runs(monkeypatch)
    assert not any(line.failed for line in alone(data))
    assert seen.rows == [1, 1, 1]


def test_rows_that_run_other_numbers_of_rounds_run_alone(tmp_path: Path) -> None:
    """Doubled twice, or once if the largest number of all rows is above 10 by then."""
    graph = onnx.parser.parse_graph(
        """g (float[batch, 3] x) => (float[batch, 2] y) <float[3, 2] W = {1, 2, 3, 4, 5, 6},
        int64 most = {2}, float ten = {10}, float two = {2}, bool true = {1}> {
        z = Loop <body = b (int64 i, bool c, float[batch, 3] h) => (bool c2, float[batch, 3] g)
        { g = Mul (h, two)  m = ReduceMax <keepdims = 0> (g)  c2 = Less (m, ten) }> (most, true, x)
        t = Tanh (z)  y = MatMul (t, W) }"""
    )
    imports = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=10), tmp_path / "m.onnx")
    rows = []
    for k, scale in enumerate([0.5, 4.0, 0.5, 0.5, 9.0, 0.6]):
        x = np.array([[0.3, 0.9, -0.2]], np.float32) * scale
        np.savez(tmp_path / f"{k}.npz", x=x)
        rows.append({"tensors": f"{k}.npz"})
    worker = Worker(tmp_path / "m.onnx", Settings(target="0"))
    found = same_as_singles(worker, records(rows, tmp_path))
    assert not any("error" in line for line in found)


def test_the_first_token_of_a_decoder(tmp_path: Path) -> None:
    """Records of an encoder with a decoder, together and alone; sources are not padded."""
    worker = Worker(pairs.write_pair(tmp_path / "pair"), Settings())
    rows: list[dict[str, Any]] = [
        {"id": f"r{k}", "text": text}
        for k, text in enumerate(("w5 w9", "w3 w9 w2", "w7 w4 w8", "w9", "w3 w3"))
    ]
    given = records([*rows, {"id": "ids", "input_ids": [4, 6, 7]}])
    together = decoded(worker(given))
    for record, found in zip(given, together, strict=True):
        (alone,) = decoded(worker([record]))
        del found["fidelity"], alone["fidelity"]  # of the whole batch
        alike(found, alone, abs(alone["target"]["value"]))
        assert found["target"]["token"] == "w2"  # what its texts begin with
        assert [each["input"] for each in found["others"]] == ["decoder_ids"]
    assert together[-1]["units"]["text"] == ["w4", "w6", "w7"]


def test_records_with_other_numbers_beside_the_input_are_apart(tmp_path: Path) -> None:
    """The graph scales all rows by the first row's size; alone, every record has its own."""
    graph = onnx.parser.parse_graph(
        """g (float[batch, 3] x, int64[batch, 2] size) => (float[batch, 2] y)
        <float[3, 2] W = {1, 2, 3, 4, 5, 6}, int64 first = {0}> {
        s = Gather <axis = 0> (size, first)  r = ReduceSum <keepdims = 0> (s)
        f = Cast <to = 1> (r)  h = MatMul (x, W)  y = Mul (h, f) }"""
    )
    imports = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=10), tmp_path / "m.onnx")
    rows = []
    for k, size in enumerate([(1, 2), (3, 4), (1, 2), (5, 6)]):
        x = real(1, 3, seed=k)
        np.savez(tmp_path / f"{k}.npz", x=x, size=np.array([size]))
        rows.append({"tensors": f"{k}.npz"})
    worker = Worker(tmp_path / "m.onnx", Settings(target="0"))
    found = same_as_singles(worker, records(rows, tmp_path))
    assert not any("error" in line for line in found)
