"""Several files for one graph: which inputs each of them gives."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from building import ints, opened, proto, real
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from palrp_onnx import Explainer, Model
from palrp_onnx.errors import InputError
from palrp_onnx.inputs import Given, GraphInput, Sample, open_several
from palrp_onnx.inputs.columns import read_columns
from palrp_onnx.inputs.towers import texts_of
from palrp_onnx.record import InputFacts

pytestmark = pytest.mark.quick

INT, FLOAT = np.dtype("int64"), np.dtype("float32")
IDS = GraphInput("input_ids", INT, ("text_batch", "tokens"))
MASK = GraphInput("attention_mask", INT, ("text_batch", "tokens"))
PIXELS = GraphInput("pixel_values", FLOAT, ("image_batch", 3, 8, 8))
#: Boxes share the batch of a text that has one row.
WORDS = GraphInput("input_ids", INT, ("batch", "tokens"))
BOXES = GraphInput("boxes", FLOAT, ("batch", "tokens", 4))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    names = ["[UNK]", "[PAD]", "<s>", "</s>", "a", "cat", "red", "car"]
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(names)}, "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 2), ("</s>", 3)]
    )
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"pad_token": "[PAD]"}))
    size = {"height": 8, "width": 8}
    kind = {"image_processor_type": "ViTImageProcessor", "size": size}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(kind))
    Image.new("RGB", (10, 20), (200, 10, 10)).save(tmp_path / "photo.png")
    (tmp_path / "texts.txt").write_text("a cat\n\na red car\n")
    np.save(tmp_path / "boxes.npy", np.zeros((1, 7, 4), np.float32))
    np.savez(tmp_path / "part.npz", boxes=np.ones((1, 7, 4), np.float32))
    return tmp_path / "model.onnx"


def test_an_image_and_lines_of_texts(model: Path) -> None:
    files = [Given(model.with_name("photo.png")), Given(model.with_name("texts.txt"))]
    sample = open_several(files, model_path=model, graph_inputs=[IDS, PIXELS, MASK])
    assert sample.kind == "several" and sample.id == "photo+texts"
    assert sample.feeds["input_ids"].tolist() == [[2, 4, 5, 3, 1], [2, 4, 6, 7, 3]]
    assert sample.feeds["attention_mask"].tolist() == [[1, 1, 1, 1, 0], [1] * 5]
    assert sample.feeds["pixel_values"].shape == (1, 3, 8, 8)
    assert sample.rows_of("input_ids") == ("a cat", "a red car")
    units, text = sample.units_of("input_ids"), sample.facts.text
    assert units is not None and text == "a cat\na red car"
    spelled = [text[a:b] for a, b in zip(units.start, units.end, strict=True)]
    assert spelled == ["", "a", "cat", "", "", "", "a", "red", "car", ""]
    assert sample.units_of("pixel_values") is None
    image, box = sample.picture_of("pixel_values")
    assert image is not None and image.size == (10, 20) and box is not None
    second = sample.row("input_ids", 1).units_of("input_ids")
    assert second is not None and second.text == ["<s>", "a", "red", "car", "</s>"]


def test_patches_and_a_text(model: Path) -> None:
    kind = {"image_processor_type": "Siglip2ImageProcessor", "patch_size": 4, "max_num_patches": 9}
    model.with_name("preprocessor_config.json").write_text(json.dumps(kind))
    patches = [
        GraphInput("pixel_values", np.dtype(np.float32), ("images", "patches", 48)),
        GraphInput("pixel_attention_mask", np.dtype(np.int32), ("images", "patches")),
        GraphInput("spatial_shapes", np.dtype(np.int64), ("images", 2)),
    ]
    photo = model.with_name("photo.png")
    files = [Given(photo), Given(model.with_name("texts.txt"))]
    sample = open_several(files, model_path=model, graph_inputs=[IDS, MASK, *patches])
    with pytest.raises(InputError, match="no input foo"):
        open_several([Given(photo, "foo"), files[1]], model_path=model, graph_inputs=patches)
    assert sample.feeds["spatial_shapes"].tolist() == [[4, 2]]
    assert sample.feeds["pixel_attention_mask"].tolist() == [[1] * 8]
    assert len(sample.feeds["input_ids"]) == 2
    units = sample.units_of("pixel_values")
    assert units is not None and units.grid == (4, 2)


def test_padding_that_the_graph_sees_is_said(model: Path) -> None:
    files = [Given(model.with_name("photo.png")), Given(model.with_name("texts.txt"))]
    sample = open_several(files, model_path=model, graph_inputs=[IDS, PIXELS])
    assert [each.code for each in sample.warnings] == ["padded"]


@pytest.mark.parametrize("given", [("boxes", "boxes.npy"), (None, "part.npz")])
def test_a_text_of_the_same_batch_is_one_row(model: Path, given: tuple[str | None, str]) -> None:
    files = [Given(model.with_name("texts.txt")), Given(model.with_name(given[1]), given[0])]
    sample = open_several(files, model_path=model, graph_inputs=[WORDS, BOXES])
    assert sample.feeds["input_ids"].tolist() == [[2, 4, 5, 4, 6, 7, 3]]
    assert sample.feeds["boxes"].shape == (1, 7, 4)
    assert not sample.rows_of("input_ids")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([(None, "photo.png")], "no file gives input_ids, attention_mask"),
        ([(None, "photo.png"), (None, "photo.png")], "no further input takes an image"),
        ([("other", "photo.png"), (None, "texts.txt")], "no input other"),
        ([("pixel_values", "photo.png"), ("pixel_values", "photo.png")], "given twice"),
        ([(None, "texts.txt"), (None, "boxes.npy")], "an array fits input_ids, pixel_values"),
        ([(None, "photo.tiff"), (None, "texts.txt")], "there is no such file"),
    ],
)
def test_errors(model: Path, files: list[tuple[str | None, str]], message: str) -> None:
    given = [Given(model.with_name(file), name) for name, file in files]
    with pytest.raises(InputError, match=message):
        open_several(given, model_path=model, graph_inputs=[IDS, PIXELS, MASK])


def test_two_texts_for_one_row(model: Path) -> None:
    text = Given(model.with_name("texts.txt"))
    boxes = Given(model.with_name("boxes.npy"), "boxes")
    with pytest.raises(InputError, match="several texts for one sample"):
        open_several([text, text, boxes], model_path=model, graph_inputs=[WORDS, BOXES])


def test_masks_of_pixels_keep_them_all(model: Path) -> None:
    words = GraphInput("input_ids", INT, ("batch", "tokens"))
    pixels = GraphInput("pixel_values", FLOAT, ("batch", 3, 8, 8))
    mask = GraphInput("pixel_mask", INT, ("batch", 8, 8), receives="mask")
    files = [Given(model.with_name("photo.png")), Given(model.with_name("texts.txt"))]
    sample = open_several(files, model_path=model, graph_inputs=[words, pixels, mask])
    assert sample.feeds["pixel_mask"].tolist() == np.ones((1, 8, 8)).tolist()


def test_arrays_have_their_own_names(tmp_path: Path) -> None:
    path, boxes = tmp_path / "both.npz", tmp_path / "boxes.npy"
    np.savez(path, input_ids=np.array([[1, 2]]))
    np.save(boxes, np.zeros((1, 2, 4), np.float32))
    options: dict[str, Any] = {"model_path": tmp_path / "m.onnx", "graph_inputs": [WORDS, BOXES]}
    for name in (None, "input_ids"):
        sample = open_several([Given(path, name), Given(boxes)], **options)
        assert sample.feeds["input_ids"].tolist() == [[1, 2]]
    with pytest.raises(InputError, match="not one of boxes alone"):
        open_several([Given(path, "boxes"), Given(boxes, "boxes")], **options)


def test_names_of_many_columns_are_no_path() -> None:
    names = tuple(f"a long name of column {k}" for k in range(300))
    assert read_columns([",".join(names)], ["x"]) == {"": names}


def test_seconds_are_those_of_the_sound_alone() -> None:
    def part(name: str | None, step: float | None) -> Sample:
        facts = InputFacts(kind="sound" if step else "tensors", step=step)
        return Sample("a", "several", {}, facts, subject=name)

    both = replace(part(None, 0.02), parts=(part("wave", 0.02), part(None, None)))
    assert (both.step_of("wave"), both.step_of("table")) == (0.02, None)
    decoded = replace(part(None, 0.02), parts=(part(None, 0.02), part("ids", None)))
    assert (decoded.step_of("frames"), decoded.step_of("ids")) == (0.02, None)
    assert part(None, 0.02).step_of("frames") == 0.02


#: A tower: ids and a mask [B, T] → the mean of the rows of kept tokens [B, 4].
TOWER = """e{k} = Gather(words, ids_{k})  c{k} = Cast <to=1> (mask_{k})  u{k} = Unsqueeze(c{k}, two)
    d{k} = Mul(e{k}, u{k})  s{k} = ReduceSum <keepdims=0> (d{k}, one)
    n{k} = ReduceSum <keepdims=0> (u{k}, one)  v{k} = Div(s{k}, n{k})  """


def two_towers() -> Model:
    """The product of two towers."""
    body = TOWER.format(k="a") + TOWER.format(k="b") + "x = Mul(va, vb)  y = ReduceSum(x, one)"
    weights = {"words": real(8, 4), "one": ints(1), "two": ints(2)}
    row = ints([1, 1, 1])
    feeds = {"ids_a": row, "mask_a": row, "ids_b": row, "mask_b": row}
    made = proto(body, feeds, weights)
    for each in made.graph.input:
        each.type.tensor_type.shape.dim[1].dim_param = f"tokens_{each.name[-1]}"
    return opened(made)


def test_two_texts_with_masks_of_their_own(model: Path) -> None:
    """Each text gives its ids and its mask; padding of one is none of the other."""
    graph = two_towers()
    files = []
    for name, text in (("a", "a cat"), ("b", "a red car red")):
        model.with_name(f"{name}.txt").write_text(text)
        files.append(Given(model.with_name(f"{name}.txt"), f"ids_{name}"))
    one, other = files
    for given in ([one, other], [one, Given(other.path)]):
        sample = open_several(given, model_path=model, graph_inputs=graph.inputs)
        assert sample.feeds["ids_a"].tolist() == [[2, 4, 5, 3]]
        assert sample.feeds["mask_b"].tolist() == [[1] * 6]
        (found,) = Explainer(graph).explain(sample, "index:0")
        first, (second,) = found.record, found.record.others or ((),)
        rows = real(8, 4)
        means = {n: rows[sample.feeds[f"ids_{n}"][0]].mean(axis=0) for n in "ab"}
        for n, shown in (("a", first.relevance), ("b", second.relevance)):
            own = rows[sample.feeds[f"ids_{n}"][0]]
            whole = means["a" if n == "b" else "b"]
            np.testing.assert_allclose(shown.content, own @ whole / len(own) / 2, atol=1e-6)
        assert second.units.text == ["<s>", "a", "red", "car", "red", "</s>"]
        assert second.units.sequence == [1] * 6 and first.input.text_pair == "a red car red"
    unnamed = [Given(each.path) for each in files]
    with pytest.raises(InputError, match="takes several texts, by ids_a and ids_b") as caught:
        open_several(unnamed, model_path=model, graph_inputs=graph.inputs)
    assert "--input ids_a=FILE --input ids_b=FILE" in caught.value.hint


def test_a_mask_that_meets_two_texts_at_once_is_of_none() -> None:
    body = """a = Gather(words, ids_a)  b = Gather(words, ids_b)  j = Concat <axis=1> (a, b)
        c = Cast <to=1> (kept)  u = Unsqueeze(c, two)  d = Mul(j, u)
        y = ReduceSum <keepdims=0> (d, one)"""
    weights = {"words": real(8, 4), "one": ints(1), "two": ints(2)}
    feeds = {name: ints([1, 1]) for name in ("ids_a", "ids_b", "kept")}
    inputs = opened(proto(body, feeds, weights, free=(0, 1))).inputs
    with pytest.raises(InputError, match=r"open whose kept is: .* ids_a and ids_b at once"):
        texts_of(inputs, {"ids_a": "ids", "ids_b": "ids", "kept": "mask"})
