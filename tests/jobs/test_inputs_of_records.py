"""Records with windows, several inputs, names of columns and continuations: as ``explain`` does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pairs
import pytest
from building import ints, proto, real
from click.testing import CliRunner
from committed import MODELS
from towers import F, write_tokenizer, write_towers

from palrp_onnx.cli.main import program
from palrp_onnx.jobs import Record, Settings, Worker

BERT = MODELS / "reviews-bert"
LONG = "A good film. " * 150 + "But the end is terrible and boring."


def lines(model: Path, rows: list[dict[str, Any]], **settings: Any) -> list[dict[str, Any]]:
    worker = Worker(model, Settings(**settings))
    given = [
        Record(k, row, folder=model if model.is_dir() else model.parent)
        for k, row in enumerate(rows, 1)
    ]
    return [json.loads(line.data) for line in worker(given)]


def explained(model: Path, *options: object) -> dict[str, Any]:
    """The record of the command, which asks for one target."""
    result = CliRunner().invoke(program, ["explain", str(model), *map(str, options), "-q"])
    assert result.exit_code == 0, result.stderr
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def same(line: dict[str, Any], record: dict[str, Any]) -> None:
    """Equal up to rounding in numbers, the id and the time."""
    for each in (line, record):
        each.pop("id", None)
        each["run"].pop("ms")
        each["run"].pop("date", None)
    assert line.keys() == record.keys(), line
    for key in line:
        alike(line[key], record[key])


def alike(first: Any, second: Any) -> None:
    if isinstance(first, dict):
        assert first.keys() == second.keys()
        for key in first:
            alike(first[key], second[key])
    elif isinstance(first, list):
        assert len(first) == len(second)
        for pair in zip(first, second, strict=True):
            alike(*pair)
    elif isinstance(first, float):
        assert first == pytest.approx(second, rel=1e-4, abs=1e-5)
    else:
        assert first == second


def test_windows(tmp_path: Path) -> None:
    rows = [{"text": LONG, "target": "NEGATIVE"}, {"text": "A good film."}, {"text": LONG}]
    rows += [{"text": "A good film.", "text_pair": LONG}]
    found = lines(BERT / "model.onnx", rows, windows=20)
    (tmp_path / "long.txt").write_text(LONG)
    (tmp_path / "short.txt").write_text("A good film.")
    long = ("--input", tmp_path / "long.txt", "--windows", "20")
    short = ("--input", tmp_path / "short.txt", "--target", "pred")
    same(found[0], explained(BERT, *long, "--target", "NEGATIVE"))
    same(found[1], explained(BERT, *short))
    same(found[2], explained(BERT, *long, "--target", "pred"))
    pair = ("--pair", tmp_path / "long.txt", "--windows", "20")
    assert found[3]["input"]["windows_of"] == "text_pair"
    same(found[3], explained(BERT, *short, *pair))
    (bad,) = lines(BERT / "model.onnx", [{"text": LONG}], windows=254)
    assert "cannot share 254" in bad["error"]["message"]


# --- several inputs -------------------------------------------------------------------------------
TOGETHER = """e = Gather(words, ids)  m = MatMul(boxes, v)  h = Add(e, m)
    p = ReduceMean <keepdims=0> (h, one)  y = MatMul(p, k)"""


@pytest.fixture
def towers(tmp_path: Path) -> Path:
    return write_towers(tmp_path)


def test_an_image_and_texts(towers: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"image": "photo.png", "text": "a cat\nred car", "target": "red car"},
        {"image": "photo.png", "text_file": "texts.txt", "target": "a cat"},
        {"inputs": {"x": "photo.png", "ids": "texts.txt"}, "target": "red car"},
        {"image": "photo.png", "text": "a cat"},
        {"image": "photo.png"},
        {"image": "nothing.png", "text": "a cat"},
        {"inputs": {"z": "photo.png"}, "text": "a cat"},
        {"inputs": {"x": "photo"}, "text": "a cat"},
        {"inputs": {"x": "photo.png", "ids": "a red car.png"}},
        {"inputs": {"x": "photo.png", "ids": "a cat"}},
    ]
    found = lines(towers, rows)
    files = ("--input", towers.with_name("photo.png"), "--input", towers.with_name("texts.txt"))
    for k, target in enumerate(("red car", "a cat", "red car")):
        same(found[k], explained(towers, *files, "--target", target))
    towers.with_name("texts.txt").write_text("a cat")
    same(found[3], explained(towers, *files, "--target", "pred"))
    same(found.pop(), explained(towers, *files, "--target", "pred"))
    messages = [each["error"]["message"] for each in found[4:]]
    assert "one float or uint8 input" in messages[0] and "No such file" in messages[1]
    assert "no input z" in messages[2] and "several texts" in messages[3]
    assert "an image provides one" in messages[4]


def test_pictures_of_several_inputs(towers: Path, tmp_path: Path) -> None:
    data = tmp_path / "data.jsonl"
    data.write_text(json.dumps({"image": "photo.png", "text": "a cat"}))
    given = ["batch", str(towers), "--input", str(data), "-o", str(tmp_path / "o")]
    result = CliRunner().invoke(program, [*given, "--pictures", "1"])
    assert result.exit_code == 0, result.stderr
    assert (tmp_path / "o" / "pictures" / "00000001.png").stat().st_size > 0


@pytest.fixture
def boxes(tmp_path: Path) -> Path:
    weights = {
        "words": real(6, F, seed=1),
        "v": real(4, F, seed=2),
        "k": real(F, 3, seed=3),
        "one": ints(1),
    }
    feeds = {"ids": np.ones((1, 2), np.int64), "boxes": real(1, 2, 4, seed=5)}
    onnx.save(proto(TOGETHER, feeds, weights, free=(0, 1)), tmp_path / "layout.onnx")
    write_tokenizer(tmp_path)
    for k in range(4):
        np.save(tmp_path / f"{k}.npy", real(1, 2, 4, seed=k))
        np.savez(tmp_path / f"{k}.npz", boxes=real(1, 2, 4, seed=k))
    return tmp_path / "layout.onnx"


def test_words_and_boxes_of_many_records(boxes: Path) -> None:
    texts = ["a cat", "red car", "a car", "red cat"]
    rows = [{"text": text, "inputs": {"boxes": f"{k}.npy"}} for k, text in enumerate(texts)]
    rows += [{"text": text, "tensors": f"{k}.npz"} for k, text in enumerate(texts)]
    found = lines(boxes, rows, target="1")
    for k, text in enumerate(texts):
        boxes.with_name("t.txt").write_text(text)
        files = (
            "--input",
            boxes.with_name("t.txt"),
            "--input",
            f"boxes={boxes.parent / str(k)}.npy",
        )
        record = explained(boxes, *files, "--target", "1")
        same(found[k], dict(record, run=dict(record["run"])))
        same(found[4 + k], record)


def test_names_of_columns(tmp_path: Path) -> None:
    path = tmp_path / "table.onnx"
    onnx.save(proto("y = MatMul(x, w)", {"x": real(1, 3)}, {"w": real(3, 2)}), path)
    rows = [{"tensors": f"{k}.npz"} for k in range(3)]
    for k in range(3):
        np.savez(tmp_path / f"{k}.npz", x=real(1, 3, seed=k))
    (tmp_path / "names.txt").write_text("age\nincome\nheight\n")
    data = tmp_path / "data.jsonl"
    data.write_text("\n".join(map(json.dumps, rows)))
    for columns in (tmp_path / "names.txt", "x=age,income,height"):
        place = tmp_path / f"o{len(str(columns))}"
        given = ["batch", path, "--input", data, "-o", place, "--columns", columns]
        result = CliRunner().invoke(program, list(map(str, given)))
        assert result.exit_code == 0, result.stderr
        found = [json.loads(each) for each in (place / "part-00000.jsonl").open()]
        for k, line in enumerate(found):
            assert line["units"]["text"] == ["age", "income", "height"]
            named = ("--columns", columns, "--target", "pred")
            same(line, explained(path, "--input", tmp_path / f"{k}.npz", *named))
    (wrong,) = lines(path, rows[:1], columns={"x": ("a", "b")})
    assert "2 names were given for the 3 columns" in wrong["error"]["message"]


# --- continuations --------------------------------------------------------------------------------
def test_a_given_continuation(tmp_path: Path) -> None:
    body = "e = Gather(words, ids)  h = CumSum(e, along)  y = MatMul(h, w)"
    weights = {"words": real(5, F, seed=1), "w": real(F, 5, seed=2), "along": np.array(1)}
    path = tmp_path / "decoder.onnx"
    feeds = {"ids": np.ones((1, 2), np.int64)}
    onnx.save(proto(body, feeds, weights, free=(0, 1)), path)
    config = {"architectures": ["GPT2LMHeadModel"], "vocab_size": 5}
    (tmp_path / "config.json").write_text(json.dumps(config))
    write_tokenizer(tmp_path)
    rows: list[dict[str, Any]] = [
        {"text": "a", "continuation": "cat red"},
        {"text": "a red", "continuation": "car"},
        {"text": "red a", "continuation": "car cat"},
        {"text": "a", "continuation": " "},
        {"input_ids": [1], "continuation": "cat"},
    ]
    found = lines(path, rows)
    for line, row, span in zip(found, rows, ("1-2", "2-2", "2-3"), strict=False):
        (tmp_path / "t.txt").write_text(f"{row['text']} {row['continuation']}")
        record = explained(path, "--input", tmp_path / "t.txt", "--target", f"span:{span}")
        for each in (line, record):  # a continuation is shown as it was decoded
            each["input"].pop("text")
            each["target"].pop("label")
            each["units"] = [each["units"][name] for name in ("id", "special")]
        same(line, record)
    assert "no tokens" in found[3]["error"]["message"]
    assert found[4]["target"]["kind"] == "span"


def test_what_a_decoder_produces(tmp_path: Path) -> None:
    folder = pairs.write_pair(tmp_path / "pair")
    (line, bad) = lines(
        folder, [{"text": "w5 w9", "continuation": "w4 w6"}, {"text": "w5", "continuation": " "}]
    )
    arrays = {"ids": ints([5, 9]), "kept": ints([1, 1]), "decoder_ids": ints([pairs.START, 4, 6])}
    np.savez(tmp_path / "a.npz", **arrays)
    record = explained(folder, "--input", tmp_path / "a.npz", "--target", "span:1-2")
    assert "error" not in line, line["error"]
    assert line["target"]["along"] == "decoder_ids" and "no tokens" in bad["error"]["message"]
    for each in (line, record):  # a continuation is shown as it was decoded
        each["target"].pop("label")
        each["others"][0]["units"].pop("text")
    for name in ("target", "relevance", "sites", "ledger", "others"):
        alike(line[name], record[name])
