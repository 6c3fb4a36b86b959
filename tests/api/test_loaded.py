"""A loaded model: what it takes, what it gives, and what it refuses."""

from __future__ import annotations

import pickle  # noqa: TID251 - other processes pickle explanations; nothing here reads a file
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import decoders
import numpy as np
import pairs
import pytest
from committed import MODELS
from loaded import TEXT, loaded
from PIL import Image

import palrp_onnx as px
from palrp_onnx.inputs import open_sample, read_labels

REVIEW = MODELS / "reviews-rope" / "sample.txt"
DIGIT = MODELS / "digits-vit" / "sample.png"


def explained_by_hand(path: Path) -> px.Explanation:
    model = px.Model.open(MODELS / "reviews-rope" / "model.onnx")
    sample = open_sample(path, model_path=model.path, graph_inputs=model.inputs, tokenizer=None)
    (found,) = px.Explainer(model).explain(sample, "default", read_labels(model.path))
    return found


@pytest.mark.quick
def test_is_what_the_explainer_gives() -> None:
    found, wanted = loaded("reviews-rope").explain(REVIEW), explained_by_hand(REVIEW)
    assert found.record.relevance == wanted.record.relevance
    assert found.record.ledger == wanted.record.ledger
    assert found.id == "sample"


def test_a_text_is_the_text_itself_and_a_path_is_a_file(tmp_path: Path) -> None:
    model, file = loaded("reviews-rope"), tmp_path / "review.txt"
    file.write_text(TEXT)
    as_text, as_path = model.explain(TEXT), model.explain(file)
    assert as_text.record.relevance == as_path.record.relevance
    assert [each.id for each in (as_text, as_path)] == ["text", "review"]
    as_name = model.explain(str(file))  # the name of a file is a text like any other
    assert as_name.record.input.text == str(file)
    assert [each.code for each in as_name.warnings] == ["also-file"]


def test_an_image_is_opened_or_a_file() -> None:
    model = loaded("digits-vit")
    image = Image.open(DIGIT)
    arrays = model.read(DIGIT).feeds
    pixels = arrays["pixel_values"]
    ways: list[Any] = [str(DIGIT), DIGIT, image, arrays, pixels, {"pixel_values": image}]
    found = [model.explain(each) for each in ways]
    assert all(np.array_equal(each.total, found[0].total) for each in found)
    assert found[2].id == "sample"
    assert found[2].sample is not None and found[2].sample.image is not None


def test_ids_and_arrays_and_tensors_of_others() -> None:
    class Tensor:
        """An array of another library."""

        def __init__(self, numbers: Any) -> None:
            self.numbers = np.asarray(numbers)

        def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
            return self.numbers

    model = loaded("reviews-rope")
    feeds = model.read(TEXT).feeds
    wanted = model.explain(TEXT).total
    ids = feeds["input_ids"][0].tolist()
    for value in (feeds, {k: Tensor(v) for k, v in feeds.items()}, ids, np.array(ids)):
        assert np.array_equal(model.explain(value).total, wanted)
    several = {name: np.repeat(array, 2, 0) for name, array in feeds.items()}
    rows = model.explain(several)
    assert isinstance(rows, px.Explanations) and len(rows) == 2
    with pytest.raises(AttributeError, match=r"2 explanations, and 'words' belongs to one"):
        _ = rows.words


def test_a_pair_is_two_texts_or_two_files(tmp_path: Path) -> None:
    model = loaded("reviews-bert")
    for name, text in (("a", "A film."), ("b", "A good one.")):
        (tmp_path / f"{name}.txt").write_text(text)
    found = model.explain(("A film.", "A good one."))
    files = model.explain((tmp_path / "a.txt", tmp_path / "b.txt"))
    assert found.record.relevance == files.record.relevance
    assert found.record.input.text_pair == "A good one."
    assert {each.sequence for each in found.words} == {0, 1}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (["a", "b"], "a list of texts is no single input"),
        (("a", "b", "c"), "3 texts are no pair"),
        (3.5, "one array for 2 inputs"),
        (object(), "object is no input"),
        (None, "NoneType is no input"),
        ({"input_ids": [[1, 2]]}, "missing: attention_mask"),
        ({"input_ids": [[1.5]], "attention_mask": [[1]]}, "without loss"),
        (Path("nothing.txt"), "No such file"),
        ("", "there is no text"),
        (Image.new("RGB", (8, 8)), "an image provides"),
    ],
    ids=[
        "texts",
        "three",
        "number",
        "object",
        "nothing",
        "no-mask",
        "fraction",
        "no-file",
        "empty",
        "image",
    ],
)
def test_refused_values(value: Any, message: str) -> None:
    with pytest.raises(px.PalrpError, match=message):
        loaded("reviews-rope").explain(value)


def test_targets() -> None:
    model = loaded("reviews-rope")
    assert model.explain(TEXT, 0).target.label == "NEGATIVE"
    assert model.explain(TEXT, np.int64(0)).target.label == "NEGATIVE"
    assert model.explain(TEXT, "POSITIVE-NEGATIVE").target.kind == "contrast"
    both = model.explain(TEXT, ("POSITIVE", 0), method="attnlrp")
    assert [each.target.label for each in both] == ["POSITIVE", "NEGATIVE"]
    assert [each.id for each in both] == ["text-0", "text-1"]
    assert {each.record.run.method for each in both} == {"attnlrp"}
    assert isinstance(model.explain(TEXT, ["POSITIVE"]), px.Explanations)
    for wrong in ((), True, 1.5):
        with pytest.raises(px.PalrpError):
            model.explain(TEXT, wrong)  # type: ignore[call-overload]
    with pytest.raises(px.PalrpError, match="no target 'GOOD'"):
        model.explain(TEXT, "GOOD")


def test_targets_of_a_row_follow_each_other() -> None:
    model = loaded("reviews-rope")
    feeds = {name: np.repeat(array, 2, 0) for name, array in model.read(TEXT).feeds.items()}
    found = model.explain(feeds, ("POSITIVE", "NEGATIVE"))
    assert [each.target.label for each in found] == ["POSITIVE", "NEGATIVE"] * 2


def test_options_share_nothing_but_the_model() -> None:
    model = loaded("reviews-rope")
    usual, other = model.explain(TEXT), model.explain(TEXT, method=px.method("attnlrp"))
    assert not np.array_equal(usual.total, other.total)
    assert np.array_equal(model.explain(TEXT).total, usual.total)
    found = model.explain(TEXT, output="logits")
    assert found.target.output == "logits"
    with pytest.raises(px.PalrpError, match="Unknown method"):
        model.explain(TEXT, method="none")


def test_windows() -> None:
    long = " ".join([TEXT] * 40)
    model = loaded("reviews-rope")
    assert model.explain(long).record.input.truncated
    assert len(model.explain(long, windows=True).record.input.windows) > 1
    shared, short = model.explain_many([long, TEXT], windows=20)
    assert isinstance(shared, px.Explanation) and isinstance(short, px.Explanation)
    assert shared.record.input.windows and not short.record.input.windows
    shared = model.explain(long, windows=20)
    assert shared.words.total.sum() == pytest.approx(shared.total.sum())


def test_many_are_what_they_are_alone() -> None:
    model = loaded("reviews-rope")
    texts = [TEXT, "So dull.", "", "A gripping film."] * 3
    found = list(model.explain_many([*texts, REVIEW, 3.5], batch_size=2))
    assert [type(each).__name__ for each in found[2::4][:3]] == ["InputError"] * 3
    assert isinstance(found[-1], px.PalrpError)
    for number, (value, each) in enumerate(zip([*texts, REVIEW], found, strict=False)):
        if isinstance(each, px.Explanation):
            alone = model.explain(value)
            np.testing.assert_allclose(each.total, alone.total, atol=2e-5 * abs(alone.total).max())
            assert each.id == ("sample" if value is REVIEW else str(number))
            assert each.words and not each.tensors


def test_many_reads_only_what_it_needs() -> None:
    taken = []

    def values() -> Iterator[str]:
        for number in range(1000):
            taken.append(number)
            yield f"A film of {number} minutes."

    found = loaded("reviews-rope").explain_many(values(), batch_size=2)
    assert not taken
    assert isinstance(next(found), px.Explanation)
    assert len(taken) == 8


def test_many_refuses_wrong_options_at_once() -> None:
    model = loaded("reviews-rope")
    for wrong in ({"batch_size": 0}, {"method": "none"}, {"target": "GOOD"}):
        with pytest.raises(px.PalrpError):
            model.explain_many([TEXT], **wrong)  # type: ignore[arg-type]


def test_generated_text(tmp_path: Path) -> None:
    decoders.write_with_tokenizer(tmp_path)
    model = px.load(tmp_path)
    found = model.generate("w5 w9", 3)
    assert len(found) == len(found.matrix.targets) == 3
    assert found.text == "".join(found.matrix.produced.text)
    told = model.generate("w5 w9", continuation=" w4 w6")
    assert told.text.split() == ["w4", "w6"]
    for suffix in ("html", "png", "svg", "json"):
        assert found.save(tmp_path / f"matrix.{suffix}").stat().st_size
    records = px.load_record(tmp_path / "matrix.json")
    assert [each.record for each in records] == [each.record for each in found]


def test_messages_go_through_the_template(tmp_path: Path) -> None:
    decoders.write_with_tokenizer(tmp_path)
    (tmp_path / "chat_template.jinja").write_text("{{ messages[0].content }} w1")
    found = px.load(tmp_path).explain([{"role": "user", "content": "w5 w9"}])
    assert found.record.input.text == "w5 w9 w1"
    assert found.id == "messages"


def test_encoder_and_decoder(tmp_path: Path) -> None:
    pairs.write_pair(tmp_path)
    model = px.load(tmp_path)
    found = model.explain("w5 w9 w13")
    assert list(found.maps) == ["ids", "decoder_ids"]
    assert [each.text for each in found.words] == ["w5", "w9", "w13"]
    assert len(model.generate("w5 w9", 2)) == 2
    assert all(isinstance(e, px.Explanation) for e in model.explain_many(["w5", "w9 w4"]))


def test_caches_that_are_given_are_kept(tmp_path: Path) -> None:
    model = px.load(decoders.cached(tmp_path))
    past = {name: np.ones((1, 2, 3, 4), "f4") for name in ("past_k", "past_v")}
    found = model.explain({"ids": [[1, 2]], **past})
    empty = {name: np.ones((1, 2, 0, 4), "f4") for name in past}
    assert found.target.value != model.explain({"ids": [[1, 2]], **empty}).target.value
    assert {"past_k", "past_v"} & set(found.maps) or "past_k" in found.record.ledger


def test_compiled(tmp_path: Path) -> None:
    model = loaded("reviews-rope")
    place = model.compile(tmp_path / "explainer.onnx", method="attnlrp", features=True)
    for name in ("tokenizer.json", "tokenizer_config.json", "config.json"):
        (tmp_path / name).symlink_to(MODELS / "reviews-rope" / name)
    found, wanted = px.load(place).explain(TEXT), model.explain(TEXT, method="attnlrp")
    np.testing.assert_allclose(found.total, wanted.total, atol=1e-5)
    with pytest.raises(px.PalrpError, match="replace its model"):
        model.compile(model.path)


def test_text_and_pickle_of_a_model() -> None:
    model = loaded("digits-vit")
    assert repr(model) == "digits-vit/model.onnx: pixel_values → 0, 1, 2, 3, … (10)"
    again = pickle.loads(pickle.dumps(px.load(model.path, memory="fast")))
    assert again.path == model.path and repr(again) == repr(model)


def test_inspection_shows_itself() -> None:
    found = loaded("digits-vit").inspect(why=["logits"])
    assert found.explainable and found.why[0].name == "logits"
    assert "site/0/table" in str(found)
    assert found._repr_html_().startswith("<pre>")


def test_there_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(px.PalrpError, match="no such model file"):
        px.load(tmp_path / "none.onnx")
