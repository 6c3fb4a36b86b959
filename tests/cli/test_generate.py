"""``explain --generate``: every token that a language model produces, explained where it is."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import onnxruntime
import pytest
from click.testing import Result
from decoders import VOCABULARY, write_with_tokenizer
from pairs import END, START, write_one, write_pair
from tokenizers import Tokenizer  # type: ignore[import-untyped]

from palrp_onnx.matrix import Matrix, matrix_of
from palrp_onnx.record import Attribution

Run = Callable[..., Result]


@pytest.fixture
def decoder(tmp_path: Path) -> Path:
    return write_with_tokenizer(tmp_path)


def greedy(path: Path, count: int) -> list[int]:
    """What ONNX Runtime continues with, the caches left empty."""
    session = onnxruntime.InferenceSession(str(path))
    ids = [3, 7, 1]
    empty = np.zeros((1, 2, 0, 4), np.float32)
    for _ in range(count):
        feeds = {"ids": np.array([ids]), "past_k": empty, "past_v": empty}
        ids.append(int(session.run(["y"], feeds)[0][0, -1].argmax()))
    return ids[3:]


def test_every_token_that_is_produced(run: Run, decoder: Path) -> None:
    prompt = decoder.parent / "prompt.txt"
    result = run("explain", decoder, "--input", prompt, "--generate", "3", "-q")
    assert result.exit_code == 0, result.stderr
    records = json.loads(result.stdout_bytes)
    produced = greedy(decoder, 3)
    assert [r["target"]["index"] for r in records] == produced
    labels = [r["target"]["label"].strip() for r in records]
    assert labels == [VOCABULARY[k] for k in produced]
    assert [r["id"] for r in records] == ["prompt-0", "prompt-1", "prompt-2"]
    for step, record in enumerate(records):
        assert record["target"]["position"] == 2 + step
        assert record["units"]["id"] == [3, 7, 1, *produced[:step]]
        assert len(record["relevance"]["total"]) == 3 + step
        text, units = record["input"]["text"], record["units"]
        spans = [text[a:b] for a, b in zip(units["start"], units["end"], strict=True)]
        assert [span.strip() for span in spans] == [t.strip() for t in units["text"]]
        assert abs(record["ledger"]["residual_relative"]) < 1e-6


def test_it_ends_where_the_text_ends(run: Run, decoder: Path) -> None:
    produced = greedy(decoder, 9)
    count = 1 + next(k for k in range(1, 9) if produced[k] not in produced[:k])
    (decoder.parent / "config.json").write_text(json.dumps({"eos_token_id": produced[count - 1]}))
    out = decoder.parent / "out"
    prompt = decoder.parent / "prompt.txt"
    result = run("explain", decoder, "--input", prompt, "--generate", "9", "-o", f"{out}/")
    assert result.exit_code == 0, result.stderr
    pictures = [f"prompt-{step}.png" for step in range(count)]
    together = ["prompt-matrix.json", "prompt-matrix.png", "prompt.json"]
    assert sorted(p.name for p in out.iterdir()) == [*pictures, *together]


def test_the_matrix_has_the_numbers_of_the_records(run: Run, decoder: Path) -> None:
    prompt, out = decoder.parent / "prompt.txt", decoder.parent / "out"
    result = run("explain", decoder, "--input", prompt, "--generate", "3", "-o", out, "-q")
    assert result.exit_code == 0, result.stderr
    records = json.loads((out / "prompt.json").read_bytes())
    matrix = json.loads((out / "prompt-matrix.json").read_bytes())
    assert matrix["prompt"]["id"] == [3, 7, 1]
    assert matrix["produced"]["id"] == [r["target"]["index"] for r in records]
    assert matrix["targets"] == [r["target"] for r in records]
    assert "start" not in matrix
    for part in ("content", "position", "total"):
        rows = zip(matrix["relevance"][part], matrix["earlier"][part], records, strict=True)
        for row, earlier, record in rows:
            assert len(row) == 3
            assert [*row, *earlier] == record["relevance"][part]
    msgspec.json.decode((out / "prompt-matrix.json").read_bytes(), type=Matrix)


@pytest.mark.parametrize(("name", "start"), [("m.png", b"\x89PNG"), ("m.html", b"<!DOCTYPE")])
def test_a_single_picture_or_page_is_the_matrix(
    run: Run, decoder: Path, name: str, start: bytes
) -> None:
    prompt, out = decoder.parent / "prompt.txt", decoder.parent / name
    result = run("explain", decoder, "--input", prompt, "--generate", "2", "-o", out, "-q")
    assert result.exit_code == 0, result.stderr
    assert out.read_bytes().startswith(start)


def test_given_tokens_are_explained_as_produced_ones(run: Run, decoder: Path) -> None:
    prompt, text = decoder.parent / "prompt.txt", decoder.parent / "text.txt"
    produced = greedy(decoder, 3)
    text.write_text(" " + " ".join(VOCABULARY[k] for k in produced))
    given, own = (
        json.loads(run("explain", decoder, "--input", prompt, *options, "-q").stdout_bytes)
        for options in (("--continuation", text), ("--generate", "3"))
    )
    for one, other in zip(given, own, strict=True):
        one["run"] |= {name: other["run"][name] for name in ("ms", "date")}
        assert one == other


def test_all_tokens_suppressed(run: Run, decoder: Path) -> None:
    settings = {"suppress_tokens": [*range(len(VOCABULARY))]}
    (decoder.parent / "generation_config.json").write_text(json.dumps(settings))
    prompt = decoder.parent / "prompt.txt"
    result = run("explain", decoder, "--input", prompt, "--generate", "1", "-q")
    assert result.exit_code == 3 and "suppress every token" in result.stderr


def test_limits_of_the_tokenizer_are_not_those_of_a_continuation(run: Run, decoder: Path) -> None:
    prompt, text = decoder.parent / "prompt.txt", decoder.parent / "text.txt"
    text.write_text(" " + " ".join(VOCABULARY[k] for k in (4, 5, 6, 7)))
    given = "explain", decoder, "--input", prompt, "--continuation", text, "-q"
    plain = json.loads(run(*given).stdout_bytes)
    tokenizer = Tokenizer.from_file(str(decoder.parent / "tokenizer.json"))
    for length in (4, 20):
        tokenizer.enable_truncation(length)
        tokenizer.enable_padding(length=length)
        tokenizer.save(str(decoder.parent / "tokenizer.json"))
        limited = json.loads(run(*given).stdout_bytes)
        assert [r["target"]["index"] for r in limited] == [r["target"]["index"] for r in plain]


def test_suppressed_tokens_are_not_chosen(run: Run, decoder: Path) -> None:
    first = greedy(decoder, 1)[0]
    (decoder.parent / "generation_config.json").write_text(
        json.dumps({"begin_suppress_tokens": [first], "bad_words_ids": [[18], [19, 2]]})
    )
    prompt = decoder.parent / "prompt.txt"
    result = run("explain", decoder, "--input", prompt, "--generate", "1", "-q")
    record = json.loads(result.stdout_bytes)
    assert record["target"]["index"] != first
    assert "barred" in [each["code"] for each in record["warnings"]]


@pytest.mark.parametrize(
    "facts",
    [
        {"bad_words_ids": [[[1]]]},
        {"bad_words_ids": [["a"]]},
        {"eos_token_id": True},
        {"forced_decoder_ids": 5, "decoder_start_token_id": 0},
        {"forced_decoder_ids": [[1, "x"]], "decoder_start_token_id": 0},
    ],
)
def test_settings_that_are_no_tokens(run: Run, decoder: Path, facts: dict[str, object]) -> None:
    (decoder.parent / "generation_config.json").write_text(json.dumps(facts))
    prompt = decoder.parent / "prompt.txt"
    result = run("explain", decoder, "--input", prompt, "--generate", "1")
    assert result.exit_code == 3 and next(iter(facts)) in result.stderr


@pytest.mark.parametrize("head", ["token-classification", "masked-lm"])
def test_classes_of_tokens_continue_nothing(run: Run, decoder: Path, head: str) -> None:
    labels = {str(k): f"label {k}" for k in range(len(VOCABULARY))}
    config = {"id2label": labels} if head == "token-classification" else {}
    name = {"architectures": ["BertForMaskedLM"]} if head == "masked-lm" else {}
    (decoder.parent / "config.json").write_text(json.dumps(config | name))
    prompt = decoder.parent / "prompt.txt"
    result = run("explain", decoder, "--input", prompt, "--generate", "1")
    assert result.exit_code == 2, result.stderr
    assert "predicts the next token" in result.stderr and head in result.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--target", "1"), "cannot be used with --target"),
        (("--tensors", "x.npz"), "different lengths"),
        (("--continuation", "x.txt"), "says how it goes on"),
        (("--chat", "x.json"), "--input FILE, --text TEXT, or --chat"),
    ],
)
def test_options_that_contradict(
    run: Run, decoder: Path, options: tuple[str, ...], message: str
) -> None:
    prompt = decoder.parent / "prompt.txt"
    result = run("explain", decoder, "--input", prompt, "--generate", "2", *options)
    assert result.exit_code == 2
    assert message in result.stderr


def test_a_classifier_cannot_continue(run: Run, model: Path, text: Path) -> None:
    for options in (("--generate", "2"), ("--continuation", text)):
        result = run("explain", model, "--input", text, *options)
        assert result.exit_code == 2
        assert "predicts the next token" in result.stderr


# --- an encoder with a decoder --------------------------------------------------------------------
@pytest.fixture(params=["pair", "one"])
def reader(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A folder with both files, or the one file; beside it the tokenizer and a text."""
    folder = write_pair(tmp_path / "pair")
    (folder / "source.txt").write_text("w5 w9 w13")
    if request.param == "pair":
        return folder
    for name in ("encoder", "decoder"):
        (folder / f"{name}_model.onnx").unlink()
    return write_one(folder / "one.onnx")


def text_of(reader: Path) -> Path:
    return (reader if reader.is_dir() else reader.parent) / "source.txt"


def greedy_of(path: Path, begin: list[int], count: int) -> list[int]:
    session = onnxruntime.InferenceSession(str(path))
    ids, source = list(begin), np.array([[5, 9, 13]])
    for _ in range(count):
        feeds = {"ids": source, "kept": np.ones_like(source), "decoder_ids": np.array([ids])}
        ids.append(int(session.run(["y"], feeds)[0][0, -1].argmax()))
        if ids[-1] == END:
            break
    return ids[len(begin) :]


@pytest.mark.parametrize(("options", "begin"), [((), [START]), (("--start", "w7 w2"), [7, 2])])
def test_a_decoder_continues(
    run: Run, reader: Path, tmp_path: Path, options: tuple[str, ...], begin: list[int]
) -> None:
    source, out = text_of(reader), tmp_path / "out"
    result = run(
        "explain", reader, "--input", source, "--generate", "4", "-o", f"{out}/", "-q", *options
    )
    assert result.exit_code == 0, result.stderr
    records = json.loads((out / "source.json").read_bytes())
    matrix = json.loads((out / "source-matrix.json").read_bytes())
    produced = greedy_of(write_one(tmp_path / "again.onnx"), begin, 4)
    assert matrix["produced"]["id"] == [r["target"]["index"] for r in records] == produced
    assert matrix["prompt"]["text"] == ["w5", "w9", "w13"]
    assert matrix["start"]["id"] == begin
    for step, record in enumerate(records):
        assert record["input"]["text"] == "w5 w9 w13"
        assert record["target"]["position"] == len(begin) - 1 + step
        assert matrix["relevance"]["total"][step] == record["relevance"]["total"]
        (other,) = record["others"]
        assert other["input"] == "decoder_ids"
        assert other["units"]["id"] == [*begin, *produced[:step]]
        assert matrix["earlier"]["total"][step] == other["relevance"]["total"]
        assert abs(record["ledger"]["residual_relative"]) < 1e-6


def test_a_given_target_text(run: Run, reader: Path, tmp_path: Path) -> None:
    text = tmp_path / "target.txt"
    text.write_text("w4 w6")
    result = run("explain", reader, "--input", text_of(reader), "--continuation", text, "-q")
    assert result.exit_code == 0, result.stderr
    records = json.loads(result.stdout_bytes)
    assert [r["target"]["index"] for r in records] == [4, 6]
    assert [r["target"]["label"].strip() for r in records] == ["w4", "w6"]


def test_arrays_of_the_encoder_alone(run: Run, reader: Path, tmp_path: Path) -> None:
    """The decoder's tokens are added where the file holds none, and taken where it does."""
    source = np.array([[5, 9, 13]])
    arrays = {"ids": source, "kept": np.ones_like(source)}
    read = tmp_path / "read.npz"
    np.savez(read, **arrays)
    both = tmp_path / "both.npz"
    np.savez(both, **arrays, decoder_ids=np.array([[2]]))
    found = []
    for path in (read, both):
        result = run("explain", reader, "--input", path, "-q")
        assert result.exit_code == 0, result.stderr
        found.append(json.loads(result.stdout_bytes))
    assert found[0]["target"] == found[1]["target"]
    assert found[0]["relevance"] == found[1]["relevance"]


def test_a_decoder_reads_no_windows(run: Run, reader: Path) -> None:
    source = text_of(reader)
    source.write_text(" ".join(["w5"] * 30))
    config = {"model_max_length": 8}
    (source.parent / "tokenizer_config.json").write_text(json.dumps(config))
    result = run("explain", reader, "--input", source, "--windows", "2")
    assert result.exit_code == 3
    assert "as a whole" in result.stderr


def test_files_of_the_model_one_folder_up(run: Run, tmp_path: Path) -> None:
    """As hubs store models: graphs in ``onnx``, the rest above."""
    folder = write_pair(tmp_path / "model")
    (folder / "onnx").mkdir()
    for name in ("encoder", "decoder"):
        (folder / f"{name}_model.onnx").rename(folder / "onnx" / f"{name}_model.onnx")
    source = tmp_path / "source.txt"
    source.write_text("w5 w9")
    for place in (folder, folder / "onnx"):
        result = run("explain", place, "--input", source, "--generate", "2", "-q")
        assert result.exit_code == 0, result.stderr


def test_nothing_says_how_a_text_begins(run: Run, reader: Path) -> None:
    source = text_of(reader)
    (source.parent / "generation_config.json").unlink()
    result = run("explain", reader, "--input", source, "--generate", "2")
    assert result.exit_code == 3
    assert "--start" in result.stderr


def test_only_a_decoder_with_an_encoder_begins_with_a_text(run: Run, decoder: Path) -> None:
    prompt = decoder.parent / "prompt.txt"
    result = run("explain", decoder, "--input", prompt, "--start", "w1")
    assert result.exit_code == 3


def test_inputs_that_are_no_part_of_the_matrix_are_named(run: Run, reader: Path) -> None:
    result = run("explain", reader, "--input", text_of(reader), "--generate", "2", "-q")
    records = msgspec.json.decode(result.stdout_bytes, type=list[Attribution])
    own = next(m.input for m in records[0].maps if m.input != records[0].input_name)
    assert not matrix_of("x", records, own).warnings
    more = [
        msgspec.structs.replace(
            each, others=[*each.maps[1:], msgspec.structs.replace(each.maps[0], input="picture")]
        )
        for each in records
    ]
    (warning,) = matrix_of("x", more, own).warnings
    assert warning.code == "other-inputs" and "picture" in warning.message
