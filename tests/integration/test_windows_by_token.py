"""Long texts whose output has a row for each token, and long pairs, on models that are linear.

Row t of the models is y[t] = (e[t] + mean e) W over the tokens of a window. So a multiplier m of y
gives token k of the window the relevance e[k] · (m[k] + Σ_t m[t] / T) Wᵀ.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from building import Array, ints, proto, real
from click.testing import CliRunner
from tokenizers import (  # type: ignore[import-untyped]
    AddedToken,
    Tokenizer,
    models,
    pre_tokenizers,
    processors,
)

from palrp_onnx import Explainer
from palrp_onnx.cli.main import program
from palrp_onnx.errors import InputError, TargetError
from palrp_onnx.inputs import Sample, TextReader, read_labels
from palrp_onnx.record import Attribution

ENGINES = ("numpy", "onnxruntime")
WORDS = "[CLS] [SEP] [MASK] berlin is big paris small who she he".split()
LABELS = ("O", "B-LOC", "I-LOC")
WIDTH, LIMIT = 4, 8
TABLE = real(len(WORDS), WIDTH, seed=1)
BODY = "e = Gather(table, input_ids)  c = ReduceMean<keepdims=1>(e, axis)  h = Add(e, c)"
ROWS = f"{BODY}  y = MatMul(h, w)"
ENDS = f"{BODY}  z = MatMul(h, w)  a, b = Split<axis=-1, num_outputs=2>(z)"
ENDS += "  first = Squeeze(a, last)  final = Squeeze(b, last)"
POOLED = "e = Gather(table, input_ids)  c = ReduceMean<keepdims=0>(e, axis)  y = MatMul(c, w)"
TEXT = "berlin is big paris small who she he paris is berlin"
QUESTION = "who is"


def weights(size: int) -> Array:
    return real(WIDTH, size, seed=3)


def made(
    folder: Path, body: str, size: int, config: dict[str, Any], *outputs: str, **options: Any
) -> Path:
    given = {"table": TABLE, "w": weights(size), "axis": ints(1), "last": ints(-1)}
    given["along"] = np.array(1)
    used = {name: array for name, array in given.items() if name in body.replace("input_ids", "")}
    path = folder / "model.onnx"
    feeds = {"input_ids": ints([0, 3, 4, 5, 1])}
    onnx.save(proto(body, feeds, used, outputs=outputs or ("y",), free=(0, 1)), path)
    (folder / "config.json").write_text(json.dumps(config))
    tokenizer = Tokenizer(models.WordLevel({w: k for k, w in enumerate(WORDS)}, "[CLS]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens([AddedToken(w, special=True) for w in WORDS[:3]])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 0), ("[SEP]", 1)],
    )
    if options:
        tokenizer.enable_truncation(LIMIT, **options)
    tokenizer.save(str(folder / "tokenizer.json"))
    named = {"mask_token": "[MASK]"} | ({} if options else {"model_max_length": LIMIT})
    (folder / "tokenizer_config.json").write_text(json.dumps(named))
    return path


def read(path: Path, text: str, pair: str | None = None, overlap: int | None = None) -> Sample:
    inputs = Explainer(path).model.inputs
    return TextReader(path.parent, inputs).read_windows(text, overlap, id="long", pair=pair)


def found(path: Path, sample: Sample, target: str, **options: Any) -> list[Attribution]:
    explanations = Explainer(path, **options).explain(sample, target, read_labels(path))
    return [each.record for each in explanations]


def ids_of(sample: Sample) -> list[list[int]]:
    return [window.units.id for window in sample.windows]


def rows_of(ids: list[int], size: int) -> Array:
    e = TABLE[ids].astype(np.float64)
    return np.asarray((e + e.mean(axis=0)) @ weights(size))


def relevance_of(ids: list[int], place: int, index: int, size: int) -> Array:
    e, wide = TABLE[ids].astype(np.float64), weights(size).astype(np.float64)
    seed = np.zeros((len(ids), size))
    seed[place, index] = 1
    return np.asarray((e * ((seed + seed.sum(axis=0) / len(ids)) @ wide.T)).sum(axis=1))


def expected(sample: Sample, chosen: dict[int, int], index: int, size: int) -> tuple[Array, float]:
    """Map and value of a target at these places of windows: the mean over them."""
    assert sample.units is not None
    total, value = np.zeros(len(sample.units.text)), 0.0
    for k, place in chosen.items():
        ids = sample.windows[k].units.id
        own = relevance_of(ids, place, index, size)
        np.add.at(total, list(sample.windows[k].places), own / len(chosen))
        value += rows_of(ids, size)[place, index] / len(chosen)
    return total, value


def check(record: Attribution, total: Array, value: float) -> None:
    np.testing.assert_allclose(record.relevance.total, total, rtol=1e-4, atol=1e-5)
    assert record.target.value == pytest.approx(value, rel=1e-5) == record.ledger["target"]
    assert abs(record.ledger["residual_relative"]) < 1e-5
    assert sum(record.relevance.total) == pytest.approx(value, rel=1e-4)


def holding(sample: Sample, place: int) -> dict[int, int]:
    return {
        k: each.places.index(place) for k, each in enumerate(sample.windows) if place in each.places
    }


@pytest.fixture
def entities(tmp_path: Path) -> Path:
    return made(tmp_path, ROWS, 3, {"id2label": {str(k): name for k, name in enumerate(LABELS)}})


@pytest.mark.parametrize("engine", ENGINES)
def test_a_token_is_explained_in_the_windows_that_it_stands_in(entities: Path, engine: str) -> None:
    sample = read(entities, TEXT, overlap=2)
    assert [each.places for each in sample.windows] == [
        (0, 1, 2, 3, 4, 5, 6, 12),
        (0, 5, 6, 7, 8, 9, 10, 12),
        (0, 6, 7, 8, 9, 10, 11, 12),
    ]
    for place, said in ((3, "that of window 1"), (6, "the mean over them"), (9, "2 and 3")):
        (record,) = found(entities, sample, f"token:{place}:B-LOC", engine=engine)
        check(record, *expected(sample, holding(sample, place), 1, 3))
        target = record.target
        assert (target.position, target.label, target.token) == (
            place,
            "B-LOC",
            sample.units.text[place] if sample.units else "",
        )
        (warning,) = record.warnings
        assert warning.code == "windows" and warning.message.endswith(said)
        assert (target.probability is None) == (place != 3)
    outside = np.array(found(entities, sample, "token:3:B-LOC")[0].relevance.total)
    assert not outside[7:12].any()
    (contrast,) = found(entities, sample, "token:9:B-LOC-O", engine=engine)
    parts = [expected(sample, holding(sample, 9), k, 3) for k in (1, 0)]
    check(contrast, parts[0][0] - parts[1][0], parts[0][1] - parts[1][1])
    (last,) = found(entities, sample, "token:-2:B-LOC", engine=engine)
    assert last.target.position == 11


def test_the_most_probable_entity_of_all_windows(entities: Path) -> None:
    sample = read(entities, TEXT, overlap=2)
    count = len(sample.units.text) if sample.units else 0
    mean = np.zeros((count, 3))
    for place in range(count):
        own = holding(sample, place)
        mean[place] = np.mean([rows_of(ids_of(sample)[k], 3)[at] for k, at in own.items()], axis=0)
    chances = np.exp(mean) / np.exp(mean).sum(axis=1, keepdims=True)
    place, index = np.unravel_index(chances[1:-1, 1:].argmax(), (count - 2, 2))
    for target in ("default", "pred"):
        (record,) = found(entities, sample, target)
        assert (record.target.position, record.target.index) == (place + 1, index + 1)
        check(record, *expected(sample, holding(sample, int(place) + 1), int(index) + 1, 3))
    (named,) = found(entities, sample, 'token:"small":B-LOC')
    assert named.target.position == 5 and named.target.token == "small"
    several = found(entities, sample, "all")
    assert [each.target.index for each in several] == [0, 1, 2]


@pytest.mark.parametrize("target", ["5,1", ":,1", "span:2-4"])
def test_targets_that_are_at_no_single_token(entities: Path, target: str) -> None:
    with pytest.raises(TargetError):
        found(entities, read(entities, TEXT), target)


def test_a_hidden_token_in_a_late_window(tmp_path: Path) -> None:
    config = {"architectures": ["BertForMaskedLM"], "vocab_size": len(WORDS)}
    path = made(tmp_path, ROWS, len(WORDS), config)
    sample = read(path, TEXT.replace("he paris is", "he [MASK] is"))
    (record,) = found(path, sample, "default")
    at = holding(sample, 9)
    assert record.target.position == 9 and record.target.head == "masked-lm"
    mean = np.mean([rows_of(ids_of(sample)[k], len(WORDS))[p] for k, p in at.items()], axis=0)
    assert record.target.index == mean.argmax()
    check(record, *expected(sample, at, int(mean.argmax()), len(WORDS)))


def test_a_next_token_has_no_windows(tmp_path: Path) -> None:
    body = "e = Gather(table, input_ids)  h = CumSum(e, along)  y = MatMul(h, w)"
    config = {"architectures": ["GPT2LMHeadModel"], "vocab_size": len(WORDS)}
    path = made(tmp_path, body, len(WORDS), config)
    with pytest.raises(TargetError, match="what the model reads last") as caught:
        found(path, read(path, TEXT), "pred")
    assert "the end of the text" in caught.value.hint


@pytest.fixture
def answers(tmp_path: Path) -> Path:
    config = {"architectures": ["BertForQuestionAnswering"]}
    return made(tmp_path, ENDS, 2, config, "first", "final")


@pytest.mark.parametrize("engine", ENGINES)
def test_the_best_answer_of_all_windows(answers: Path, engine: str) -> None:
    sample = read(answers, QUESTION, TEXT)
    assert sample.units is not None and sample.facts.windows_of == "text_pair"
    assert all(each.places[:4] == (0, 1, 2, 3) and len(each.places) == 8 for each in sample.windows)
    assert {p for each in sample.windows for p in each.places} == {*range(len(sample.units.text))}
    spans = sample.facts.windows
    assert spans[0][0] == 0 and spans[-1][1] == len(TEXT)
    scored = {
        (k, s, e): rows_of(ids, 2)[s, 0] + rows_of(ids, 2)[e, 1]
        for k, ids in enumerate(ids_of(sample))
        for s in range(4, 7)
        for e in range(s, 7)
    }
    k, *ends = max(scored, key=lambda each: scored[each])
    maps = [expected(sample, {k: ends[column]}, column, 2) for column in range(2)]
    for target in ("default", "answer", "pred"):
        (record,) = found(answers, sample, target, engine=engine)
        check(record, maps[0][0] + maps[1][0], maps[0][1] + maps[1][1])
        assert record.target.places == [sample.windows[k].places[each] for each in ends]
        text = f'answer:"{record.target.label}"'
        assert found(answers, sample, text, engine=engine)[0].target == record.target
    asked = (
        ("default", "first"),
        ("default", "final"),
        ("answer:start", None),
        ("answer:end", None),
    )
    for number, (target, name) in enumerate(asked):
        (record,) = found(answers, sample, target, engine=engine, output=name)
        column = number % 2
        check(record, *maps[column])
        place = sample.windows[k].places[ends[column]]
        assert record.target.index == record.target.position == place
        assert record.target.label == sample.units.text[place]
        assert record.warnings[0].message.endswith(f"the target is that of window {k + 1}")
        assert record.input.text == QUESTION and record.input.text_pair == TEXT


@pytest.mark.parametrize("engine", ENGINES)
def test_a_named_start_is_that_of_its_best_window(answers: Path, engine: str) -> None:
    sample = read(answers, QUESTION, TEXT)
    for place in (5, 7, 11):
        at = holding(sample, place)
        best = max(at, key=lambda k: rows_of(ids_of(sample)[k], 2)[at[k], 0])
        for target in (f"token:{place}", str(place)):
            (record,) = found(answers, sample, target, engine=engine)
            check(record, *expected(sample, {best: at[best]}, 0, 2))
            assert record.target.index == place
    (pred,) = found(answers, sample, "pred", engine=engine, output="first")
    starts = (
        {
            p: max(rows_of(ids_of(sample)[k], 2)[at, 0] for k, at in holding(sample, p).items())
            for p in range(4, len(sample.units.text) - 1)
        }
        if sample.units
        else {}
    )
    assert pred.target.index == max(starts, key=lambda p: starts[p])
    with pytest.raises(TargetError, match="at no single token"):
        found(answers, sample, "5-7")


def test_classes_of_a_long_pair(tmp_path: Path) -> None:
    path = made(tmp_path, POOLED, 2, {"id2label": {"0": "NO", "1": "YES"}})
    sample = read(path, QUESTION, TEXT)
    (record,) = found(path, sample, "YES")
    assert sample.units is not None
    total = np.zeros(len(sample.units.text))
    for window in sample.windows:
        e = TABLE[window.units.id].astype(np.float64)
        total[list(window.places)] += e @ weights(2)[:, 1] / len(e) / len(sample.windows)
    check(record, total, total.sum())


@pytest.mark.parametrize(
    ("strategy", "text", "pair", "second"),
    [
        ("longest_first", TEXT, QUESTION, False),
        ("longest_first", QUESTION, TEXT, True),
        ("only_first", TEXT, QUESTION, False),
        ("only_second", QUESTION, TEXT, True),
    ],
)
def test_the_windowed_text_is_the_one_that_would_be_truncated(
    tmp_path: Path, strategy: str, text: str, pair: str, second: bool
) -> None:
    sample = read(made(tmp_path, ROWS, 3, {}, strategy=strategy), text, pair)
    assert (sample.facts.windows_of == "text_pair") == second
    assert f"windows of the {'second' if second else 'first'} text" in sample.warnings[0].message
    assert sample.facts.windows[-1][1] == len(TEXT)


def test_no_room_beside_the_other_text(tmp_path: Path) -> None:
    path = made(tmp_path, ROWS, 3, {}, strategy="only_first")
    with pytest.raises(InputError, match="no room for windows of the first text beside 14"):
        read(path, QUESTION, TEXT)


def test_the_command(answers: Path) -> None:
    files = [answers.with_name(f"{name}.txt") for name in ("question", "context")]
    for file, text in zip(files, (QUESTION, TEXT), strict=True):
        file.write_text(text)
    given = ["explain", str(answers), "--input", str(files[0]), "--pair", str(files[1])]
    result = CliRunner().invoke(program, [*given, "--windows"])
    assert result.exit_code == 0, result.stderr
    record = json.loads(result.stdout)
    assert record["input"]["windows_of"] == "text_pair" and record["target"]["kind"] == "answer"
    assert "windows of the second text of at most 8 tokens" in result.stderr
