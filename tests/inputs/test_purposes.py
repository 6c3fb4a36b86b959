"""What a text provides for each input follows from the graph, whatever the inputs are called."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from building import ints, opened, proto, real
from onnx import TensorProto, helper, numpy_helper
from tokenizing import wordpiece

from palrp_onnx.errors import InputError, UsageError
from palrp_onnx.inputs import GraphInput, TextReader, bind_inputs
from palrp_onnx.inputs.purposes import purposes
from palrp_onnx.model.open import Model

pytestmark = pytest.mark.quick

#: A mask of which ones keep tokens, by the type of its input.
KEEPING = """
    m = Cast<to = 1>(mask)
    off = Sub(float_one, m)
    far = Mul(off, low)
    wide = Unsqueeze(far, one)
    hidden = Add(scores, wide)
"""
#: As written by PyTorch for ``key_padding_mask``: ones hide tokens.
HIDING = """
    wide = Unsqueeze(mask, one)
    hidden = Where(wide, low, scores)
"""
CHOOSING = """
    wide = Unsqueeze(mask, one)
    hidden = Where(wide, scores, low)
"""
COMPARED = """
    padded = Equal(mask, int_zero)
    wide = Unsqueeze(padded, one)
    hidden = Where(wide, low, scores)
"""
UNREAD = "hidden = Identity(scores)"


def write(
    path: Path, how: str = KEEPING, kind: int = TensorProto.INT64, **names: str
) -> tuple[GraphInput, ...]:
    """One layer of attention over words, positions and token types, with a mask."""
    body = f"""
        w = Gather(words, ids)
        p = Gather(places, positions)
        t = Gather(kinds, types)
        wp = Add(w, p)
        x = Add(wp, t)
        q = MatMul(x, wq)
        k = Transpose<perm = [0, 2, 1]>(x)
        scores = MatMul(q, k)
        {how}
        a = Softmax<axis = -1>(hidden)
        v = MatMul(a, x)
        pooled = ReduceMean<keepdims = 0>(v, one)
        y = MatMul(pooled, classes)
    """
    graph = onnx.parser.parse_graph(f"g () => () {{ {body} }}")
    for name in ("mask", "positions", "ids", "types"):
        own = kind if name == "mask" else TensorProto.INT64
        shape = ["batch", "tokens"]
        graph.input.append(helper.make_tensor_value_info(name, own, shape))
    graph.output.append(helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 2]))
    rng = np.random.default_rng(0)
    shapes = {"words": (8, 4), "places": (16, 4), "kinds": (2, 4), "wq": (4, 4), "classes": (4, 2)}
    shapes["words"] = (6000, 4)
    stored = {n: rng.normal(size=s).astype(np.float32) for n, s in shapes.items()}
    stored["float_one"], stored["low"] = np.float32(1), np.float32(-1e4)
    stored["one"], stored["int_zero"] = np.array([1]), np.array(0)
    graph.initializer.extend(numpy_helper.from_array(np.asarray(v), k) for k, v in stored.items())
    for each in graph.input:
        each.name = names.get(each.name, each.name)
    for node in graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = names.get(name, name)
    opset = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), path)
    return Model.open(path).inputs


ALL = {"ids": "ids", "mask": "mask", "types": "types", "positions": "positions"}
ODD = {"ids": "input:0", "mask": "Input3", "types": "input.1", "positions": "ids"}


@pytest.mark.parametrize("names", [{}, ODD])
def test_by_structure(tmp_path: Path, names: dict[str, str]) -> None:
    found = purposes(write(tmp_path / "model.onnx", **names))
    assert found == {names.get(name, name): what for name, what in ALL.items()}


@pytest.mark.parametrize(
    ("how", "kind", "what"),
    [
        (KEEPING, TensorProto.INT64, "mask"),
        (KEEPING, TensorProto.FLOAT, "mask"),
        (KEEPING, TensorProto.BOOL, "mask"),
        (CHOOSING, TensorProto.BOOL, "mask"),
        (COMPARED, TensorProto.INT64, "mask"),
        (HIDING, TensorProto.BOOL, "padding"),
        (UNREAD, TensorProto.INT64, "unused"),
    ],
)
def test_which_entries_of_a_mask_keep_tokens(
    tmp_path: Path, how: str, kind: int, what: str
) -> None:
    assert purposes(write(tmp_path / "model.onnx", how, kind, mask="m0"))["m0"] == what


def test_a_mask_that_hides_gets_zeros(tmp_path: Path) -> None:
    inputs = write(tmp_path / "model.onnx", HIDING, TensorProto.BOOL)
    wordpiece().save(str(tmp_path / "tokenizer.json"))
    sample = TextReader(tmp_path, inputs).read("hello world", id="x")
    assert {name: array.tolist() for name, array in sample.feeds.items()} == {
        "ids": [[2, 4, 5, 3]],
        "mask": [[False] * 4],
        "types": [[0] * 4],
        "positions": [[0, 1, 2, 3]],
    }


def test_a_mask_that_hides_is_not_padded(tmp_path: Path) -> None:
    inputs = [
        replace(each, shape=(1, 6)) for each in write(tmp_path / "m.onnx", HIDING, TensorProto.BOOL)
    ]
    wordpiece().save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(InputError, match="mask is 1 for padding"):
        TextReader(tmp_path, inputs).read("hello world", id="x")


@pytest.mark.parametrize(
    "names",
    [
        {"ids": "attention_mask", "mask": "input_ids"},
        {"positions": "token_type_ids", "types": "position_ids"},
        {"ids": "token_type_ids"},
    ],
)
def test_names_that_contradict_the_graph(tmp_path: Path, names: dict[str, str]) -> None:
    inputs = write(tmp_path / "model.onnx", **names)
    with pytest.raises(InputError, match=r"its name says that it receives .*--bind"):
        purposes(inputs)
    turned = {names.get(name, name): what for name, what in ALL.items()}
    assert purposes(bind_inputs(inputs, turned)) == turned


def test_bindings_come_first(tmp_path: Path) -> None:
    unknown = [GraphInput(name, np.dtype(np.int64), ("batch", "seq")) for name in "ab"]
    wordpiece().save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(InputError, match=r"leaves open.* at a, b .*--bind"):
        TextReader(tmp_path, unknown)
    bound = bind_inputs(unknown, {"a": "mask", "b": "ids"})
    feeds = TextReader(tmp_path, bound).read("hello", id="x").feeds
    assert {name: array.tolist() for name, array in feeds.items()} == {
        "a": [[1, 1, 1]],
        "b": [[2, 4, 3]],
    }
    with pytest.raises(UsageError, match="no such input"):
        bind_inputs(unknown, {"c": "ids"})
    with pytest.raises(UsageError, match="not one of"):
        bind_inputs(unknown, {"a": "words"})


def test_one_row_without_a_batch(tmp_path: Path) -> None:
    wordpiece().save(str(tmp_path / "tokenizer.json"))
    flat = [GraphInput(n, np.dtype(np.int64), ("seq",)) for n in ("input_ids", "attention_mask")]
    feeds = TextReader(tmp_path, flat).read("hello", id="x").feeds
    assert feeds["input_ids"].tolist() == [2, 4, 3]
    assert feeds["attention_mask"].tolist() == [1, 1, 1]


def test_an_unused_input_has_no_tokens_of_its_own(tmp_path: Path) -> None:
    """Some files carry a number for each sample through the graph."""
    write(tmp_path / "m.onnx", ids="input_ids")
    proto = onnx.load(tmp_path / "m.onnx")
    proto.graph.input.append(helper.make_tensor_value_info("number", TensorProto.INT64, ["batch"]))
    proto.graph.output.append(helper.make_tensor_value_info("same", TensorProto.INT64, ["batch"]))
    proto.graph.node.append(helper.make_node("Identity", ["number"], ["same"]))
    onnx.save(proto, tmp_path / "m.onnx")
    wordpiece().save(str(tmp_path / "tokenizer.json"))
    inputs = Model.open(tmp_path / "m.onnx").inputs
    assert TextReader(tmp_path, inputs).read("hello", id="x").feeds["number"].tolist() == [0]


def test_a_mask_of_real_numbers_that_is_added(tmp_path: Path) -> None:
    """Zeros do not hide tokens, so a text cannot be padded."""
    added = "wide = Unsqueeze(mask, one) hidden = Add(scores, wide)"
    inputs = write(tmp_path / "m.onnx", added, TensorProto.FLOAT, mask="attention_mask")
    assert purposes(inputs)["attention_mask"] == "mask"
    fixed = [replace(each, shape=(1, 6)) for each in inputs]
    with pytest.raises(InputError, match="zeros do not hide"):
        purposes(fixed)
    own = write(tmp_path / "n.onnx", added, TensorProto.FLOAT, mask="m0")
    assert purposes(own)["m0"] is None


def test_a_number_is_no_mask_of_tokens(tmp_path: Path) -> None:
    write(tmp_path / "m.onnx", "m = Cast<to = 1>(mask) hidden = Mul(scores, m)", mask="m0")
    proto = onnx.load(tmp_path / "m.onnx")
    (value,) = (each for each in proto.graph.input if each.name == "m0")
    value.CopyFrom(helper.make_tensor_value_info("m0", TensorProto.INT64, []))
    onnx.save(proto, tmp_path / "m.onnx")
    assert purposes(Model.open(tmp_path / "m.onnx").inputs)["m0"] is None


def test_other_content_than_words_has_no_tokens() -> None:
    """A mask that is multiplied, beside a number that belongs to the whole text."""
    body = """e = Gather(words, ids)  wide = Unsqueeze(keeps, two)  kept = Mul(e, wide)
        s = ReduceSum <keepdims = 0>(kept, one)  all = Concat <axis = 1>(s, number)
        y = MatMul(all, head)"""
    weights = {"words": real(9, 4), "two": ints(2), "one": ints(1), "head": real(5, 3)}
    feeds = {"ids": ints(1, 2, 3, 4, 5)[None], "keeps": real(1, 5), "number": real(1, 1)}
    model = opened(proto(body, feeds, weights))
    found = purposes(model.inputs)
    assert (found["ids"], found["keeps"], found["number"]) == ("ids", "mask", None)
