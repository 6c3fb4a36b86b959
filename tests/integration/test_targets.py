"""Targets of every kind of head, on linear models whose relevance is known: x ∘ gradient.

Row t of the models is y[t] = (e[t] + mean e) W, with e the embeddings of tokens. So a multiplier
m of y gives token k the relevance e[k] · (m[k] + Σ_t m[t] / T) Wᵀ, and all of them together the
target's value. In the language model, row t is the sum of e[0] … e[t] instead of the mean.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from building import Array, floats, ints, proto, real
from PIL import Image
from tokenizers import (  # type: ignore[import-untyped]
    AddedToken,
    Tokenizer,
    models,
    pre_tokenizers,
    processors,
)

from palrp_onnx import Explainer
from palrp_onnx.compiler.file import compile_model
from palrp_onnx.errors import InputError, TargetError
from palrp_onnx.inputs import Sample, TextReader, open_sample, read_labels
from palrp_onnx.inputs.sample import ImageGeometry
from palrp_onnx.inputs.vectors import mask_of_places
from palrp_onnx.jobs.records import Record
from palrp_onnx.jobs.settings import Settings
from palrp_onnx.jobs.stacking import Padding, stack
from palrp_onnx.jobs.worker import Worker
from palrp_onnx.record import Attribution, InputFacts, encode
from palrp_onnx.relevance.target import Target, resolve
from palrp_onnx.render import wording
from palrp_onnx.render.titles import title_of
from palrp_onnx.types import Box

ENGINES = ("numpy", "onnxruntime")
WORDS = "[CLS] [SEP] [MASK] berlin is big paris small who she he".split()
LABELS = ("O", "B-LOC", "I-LOC")
WIDTH = 4
TABLE = real(len(WORDS), WIDTH, seed=1)
MIXED = "e = Gather(table, input_ids)  c = ReduceMean<keepdims=1>(e, axis)  h = Add(e, c)"
SUMMED = "e = Gather(table, input_ids)  h = CumSum(e, along)"
TEXT = "berlin is big"
IDS = [0, 3, 4, 5, 1]


def weights(size: int) -> Array:
    return real(WIDTH, size, seed=3)


def made(folder: Path, body: str, size: int, config: dict[str, Any], *outputs: str) -> Path:
    """A model with its tokenizer and ``config.json``."""
    given = {"table": TABLE, "w": weights(size), "axis": ints(1), "along": np.array(1)}
    masked = {"attention_mask": np.ones_like(ints([*IDS]))} if "attention_mask" in body else {}
    given |= {"two": ints(2), "last": ints(-1), "mix": TABLE[:WIDTH]}
    used = {name: array for name, array in given.items() if name in body.replace("input_ids", "")}
    feeds = {"input_ids": ints([*IDS]), **masked}
    path = folder / "model.onnx"
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
    tokenizer.save(str(folder / "tokenizer.json"))
    named = {"mask_token": "[MASK]"}
    (folder / "tokenizer_config.json").write_text(json.dumps(named))
    return path


def explained(
    path: Path, text: str, target: str, *, pair: str | None = None, **options: Any
) -> list[Attribution]:
    written = [path.with_name(f"{k}.txt") for k in ("t", "p")]
    written[0].write_text(text)
    written[1].write_text(pair or "")
    explainer = Explainer(path, **options)
    given = open_sample(
        written[0],
        model_path=path,
        graph_inputs=explainer.model.inputs,
        tokenizer=None,
        pair=written[1] if pair else None,
    )
    return [e.record for e in explainer.explain(given, target, read_labels(path))]


def one(path: Path, text: str, target: str, **options: Any) -> Attribution:
    (record,) = explained(path, text, target, **options)
    return record


def outputs_of(ids: list[int], size: int, *, summed: bool = False) -> Array:
    """The output [T, size] in float64."""
    e = TABLE[ids].astype(np.float64)
    h = e.cumsum(axis=0) if summed else e + e.mean(axis=0)
    return np.asarray(h @ weights(size))


def expected(ids: list[int], seed: Array, *, summed: bool = False) -> Array:
    """Relevance of each token for a multiplier [T, size] of the output."""
    e, wide = TABLE[ids].astype(np.float64), weights(seed.shape[1]).astype(np.float64)
    sent = seed[::-1].cumsum(axis=0)[::-1] if summed else seed + seed.sum(axis=0) / len(ids)
    return np.asarray((e * (sent @ wide.T)).sum(axis=1))


def softmax(scores: Array) -> Array:
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


def check(record: Attribution, seed: Array, value: float, ids: list[int], **form: Any) -> None:
    """The map, the value, and a ledger that accounts for the value."""
    assert record.target.value == pytest.approx(value, rel=1e-5, abs=1e-6)
    relevance = expected(ids, seed, **form)
    np.testing.assert_allclose(record.relevance.total, relevance, rtol=1e-4, atol=1e-5)
    assert record.ledger["target"] == pytest.approx(value, rel=1e-5, abs=1e-6)
    assert abs(record.ledger["residual_relative"]) < 1e-5
    left = value - relevance.sum()
    assert record.ledger["softmax"] == pytest.approx(left, rel=1e-4, abs=1e-5)


def hot(place: int, index: int, shape: tuple[int, int]) -> Array:
    seed = np.zeros(shape)
    seed[place, index] = 1
    return seed


@pytest.fixture
def entities(tmp_path: Path) -> Path:
    config = {"id2label": {str(k): label for k, label in enumerate(LABELS)}}
    return made(tmp_path, f"{MIXED}  y = MatMul(h, w)", len(LABELS), config)


@pytest.mark.parametrize("engine", ENGINES)
def test_the_most_probable_entity(entities: Path, engine: str) -> None:
    """Not of special tokens, and not the class of tokens without an entity."""
    y = outputs_of(IDS, 3)
    chances = softmax(y)[1:4, 1:]
    place, index = np.unravel_index(chances.argmax(), chances.shape)
    for target in ("default", "pred"):
        record = one(entities, TEXT, target, engine=engine)
        check(record, hot(place + 1, index + 1, y.shape), y[place + 1, index + 1], IDS)
        found = record.target
        assert (found.head, found.position, found.index) == (
            "token-classification",
            place + 1,
            index + 1,
        )
        word = TEXT.split()[place]
        assert title_of(record) == f'"{word}" → {LABELS[index + 1]} {chances.max():.3g}'


@pytest.mark.parametrize("engine", ENGINES)
def test_labels_at_tokens(entities: Path, engine: str) -> None:
    y = outputs_of(IDS, 3)
    for target in ("token:1:B-LOC", 'token:"berlin":B-LOC', "token:berlin:1", 'token:1:"B-LOC"'):
        record = one(entities, TEXT, target, engine=engine)
        check(record, hot(1, 1, y.shape), y[1, 1], IDS)
        assert (record.target.label, record.target.token) == ("B-LOC", "berlin")
    record = one(entities, TEXT, 'token:"berlin":B-LOC-O', engine=engine)
    check(record, hot(1, 1, y.shape) - hot(1, 0, y.shape), y[1, 1] - y[1, 0], IDS)
    assert title_of(record) == '"berlin" → B-LOC rather than O'


def test_a_label_alone_is_where_it_is_most_probable(entities: Path) -> None:
    y = outputs_of(IDS, 3)
    place = 1 + int(softmax(y)[1:4, 2].argmax())
    check(one(entities, TEXT, "I-LOC"), hot(place, 2, y.shape), y[place, 2], IDS)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_log_probability(entities: Path, engine: str) -> None:
    """Its seed is its gradient; the rest is absorbed by the softmax, as in a graph with one."""
    y = outputs_of(IDS, 3)
    chances = softmax(y[2])
    seed = np.zeros_like(y)
    seed[2] = np.eye(3)[1] - chances
    record = one(entities, TEXT, "logprob:token:2:B-LOC", engine=engine)
    check(record, seed, np.log(chances[1]), IDS)
    assert record.target.logprob
    assert record.target.probability == pytest.approx(chances[1], rel=1e-5)
    config = json.loads(entities.with_name("config.json").read_text())
    body = f"{MIXED}  z = MatMul(h, w)  y = LogSoftmax<axis=-1>(z)"
    ended = made(entities.parent, body, 3, config)
    same = one(ended, TEXT, "token:2:B-LOC", engine=engine, output="y")
    np.testing.assert_allclose(same.relevance.total, record.relevance.total, atol=1e-5)
    for name, amount in same.ledger.items():
        assert record.ledger[name] == pytest.approx(amount, abs=1e-5)


@pytest.mark.parametrize("engine", ENGINES)
def test_an_entry_against_the_mean_of_the_rest(entities: Path, engine: str) -> None:
    """Its seed is 1 at the entry, −1/n at the n others: the mean of the contrasts with each."""
    y = outputs_of(IDS, 3)
    seed = np.zeros_like(y)
    seed[2] = [-0.5, 1, -0.5]
    record = one(entities, TEXT, "rest:token:2:B-LOC", engine=engine)
    check(record, seed, y[2, 1] - (y[2, 0] + y[2, 2]) / 2, IDS)
    assert record.target.rest and not record.target.logprob
    assert record.target.index == 1 and record.target.against is None
    assert "against the rest" in title_of(record)
    single = [one(entities, TEXT, f"token:2:1-{k}", engine=engine) for k in (0, 2)]
    mean = np.mean([each.relevance.content for each in single], axis=0)
    np.testing.assert_allclose(record.relevance.content, mean, atol=1e-5)


def test_entries_that_are_switched_off_are_no_rest() -> None:
    row = np.array([1.0, -np.inf, 3.0, 5.0], np.float32)
    found = resolve(Target("index", index=2, rest=True), row, None)
    assert found.value == 3.0 - (1.0 + 5.0) / 2
    np.testing.assert_array_equal(found.seed(row), [-0.5, 0, 1, -0.5])
    with pytest.raises(TargetError, match="no other entries"):
        resolve(Target("index", index=0, rest=True), row[:1], None)


@pytest.mark.parametrize(
    ("target", "message", "hint"),
    [
        ("rest:B-LOC-O", "names what it is against already", "Leave out rest"),
        ("token:1:B-PER", "no label 'B-PER'", "Labels: O, B-LOC, I-LOC"),
        ('token:"rome"', "No token is 'rome'", "1:berlin"),
        ("logprob:B-LOC-O", "contrast of two log-probabilities", "Leave out"),
        ("span:1-2", "each predicted by those before it", "next tokens"),
        ("answer", "does not say where an answer", "pred"),
    ],
)
def test_what_the_head_does_not_have(entities: Path, target: str, message: str, hint: str) -> None:
    with pytest.raises(TargetError, match=message) as caught:
        one(entities, TEXT, target)
    assert hint in caught.value.hint


def test_a_word_that_stands_twice(entities: Path) -> None:
    with pytest.raises(TargetError, match="2 tokens are 'is'") as caught:
        one(entities, "berlin is is big", "token:is")
    assert "token:2, token:3" in caught.value.hint


def test_a_label_that_is_an_index_at_a_token(tmp_path: Path) -> None:
    config = {"id2label": {"0": "1", "1": "2", "2": "3"}}
    path = made(tmp_path, f"{MIXED}  y = MatMul(h, w)", 3, config)
    with pytest.raises(TargetError, match="ambiguous") as caught:
        one(path, TEXT, "token:1:2")
    assert "token:1:index:2 or token:1:label:2" in caught.value.hint
    assert one(path, TEXT, "token:1:index:2").target.index == 2
    assert one(path, TEXT, "token:1:label:2").target.index == 1


@pytest.fixture
def masked(tmp_path: Path) -> Path:
    config = {"architectures": ["BertForMaskedLM"], "vocab_size": len(WORDS)}
    return made(tmp_path, f"{MIXED}  y = MatMul(h, w)", len(WORDS), config)


@pytest.mark.parametrize("engine", ENGINES)
def test_the_masked_token(masked: Path, engine: str) -> None:
    ids = [0, 2, 4, 5, 1]
    y = outputs_of(ids, len(WORDS))
    best = int(y[1].argmax())
    record = one(masked, "[MASK] is big", "default", engine=engine)
    check(record, hot(1, best, y.shape), y[1, best], ids)
    chance = softmax(y[1])[best]
    assert title_of(record) == f'"[MASK]" → "{WORDS[best]}" (id {best}, p {chance:.2g})'
    assert record.target.head == "masked-lm"
    for target in ('"paris"', "token:[MASK]:paris", "token:1:6"):
        record = one(masked, "[MASK] is big", target, engine=engine)
        check(record, hot(1, 6, y.shape), y[1, 6], ids)
        assert record.target.label == "paris"
    record = one(masked, "[MASK] is big", 'token:1:"paris"-"berlin"', engine=engine)
    check(record, hot(1, 6, y.shape) - hot(1, 3, y.shape), y[1, 6] - y[1, 3], ids)


def test_a_text_without_a_masked_token(masked: Path) -> None:
    with pytest.raises(TargetError, match=r"no masked token \[MASK\]"):
        one(masked, TEXT, "pred")
    assert one(masked, TEXT, "token:2").target.position == 2
    (warning,) = one(masked, "[MASK] is [MASK]", "pred").warnings
    assert "token:3" in warning.message


def test_a_warning_is_of_the_row_that_it_is_about(masked: Path) -> None:
    explainer, samples = Explainer(masked), []
    for k, text in enumerate(("[MASK] is [MASK]", "[MASK] is big")):
        path = masked.with_name(f"{k}.txt")
        path.write_text(text)
        samples.append(
            open_sample(
                path, model_path=masked, graph_inputs=explainer.model.inputs, tokenizer=None
            )
        )
    first, second = (e.record for e in explainer.explain(stack(samples, None), "pred"))
    assert [w.code for w in first.warnings] == ["several-masks"] and not second.warnings


def test_a_warning_names_places_as_they_are_in_the_row_alone(tmp_path: Path) -> None:
    body = """e = Gather(table, input_ids)  c = Cast <to=1> (attention_mask)
        u = Unsqueeze(c, last)  d = Mul(e, u)  s = ReduceSum(d, axis)  h = Add(d, s)
        y = MatMul(h, w)"""
    config = {"architectures": ["BertForMaskedLM"], "vocab_size": len(WORDS)}
    path = made(tmp_path, body, len(WORDS), config)
    explainer = Explainer(path)
    reader = TextReader(tmp_path / "tokenizer.json", explainer.model.inputs)
    samples = [reader.read(text, id="x") for text in ("[MASK] is [MASK]", "[MASK] is big or small")]
    padding = Padding("input_ids", 0, frozenset(["attention_mask"]), "left")
    padded, _ = explainer.explain(stack(samples, padding), "pred")
    (warning,) = padded.record.warnings
    assert "token:-2" in warning.message
    (alone,) = explainer.explain(samples[0], "token:-2")
    assert alone.record.target.position == 3


@pytest.fixture
def decoder(tmp_path: Path) -> Path:
    config = {"architectures": ["GPT2LMHeadModel"], "vocab_size": len(WORDS)}
    return made(tmp_path, f"{SUMMED}  y = MatMul(h, w)", len(WORDS), config)


@pytest.mark.parametrize("engine", ENGINES)
def test_the_next_token(decoder: Path, engine: str) -> None:
    y = outputs_of(IDS, len(WORDS), summed=True)
    best = int(y[-1].argmax())
    record = one(decoder, TEXT, "default", engine=engine)
    check(record, hot(4, best, y.shape), y[4, best], IDS, summed=True)
    chance = softmax(y[-1])[best]
    assert title_of(record) == f'next token "{WORDS[best]}" (id {best}, p {chance:.2g})'
    record = one(decoder, TEXT, 'token:-1:"she"-"he"', engine=engine)
    check(record, hot(4, 9, y.shape) - hot(4, 10, y.shape), y[4, 9] - y[4, 10], IDS, summed=True)
    assert title_of(record) == 'next token "she" rather than "he"'


@pytest.mark.parametrize("engine", ENGINES)
def test_a_span_in_one_pass(decoder: Path, engine: str) -> None:
    """The sum of the log-probabilities of tokens 2 and 3, in rows 1 and 2."""
    y = outputs_of(IDS, len(WORDS), summed=True)
    chances = softmax(y)
    seed, value = np.zeros_like(y), 0.0
    for place in (1, 2):
        seed[place] = np.eye(len(WORDS))[IDS[place + 1]] - chances[place]
        value += np.log(chances[place, IDS[place + 1]])
    record = one(decoder, TEXT, "span:2-3", engine=engine)
    check(record, seed, value, IDS, summed=True)
    assert (record.target.kind, record.target.places) == ("span", [1, 2])
    assert record.target.label == " ".join(WORDS[IDS[k]] for k in (2, 3))
    single = [one(decoder, TEXT, f"logprob:token:{k}:{IDS[k + 1]}", engine=engine) for k in (1, 2)]
    together = np.sum([each.relevance.total for each in single], axis=0)
    np.testing.assert_allclose(record.relevance.total, together, atol=1e-5)
    with pytest.raises(TargetError, match="which nothing"):
        one(decoder, TEXT, "span:0-2", engine=engine)


@pytest.fixture
def answers(tmp_path: Path) -> Path:
    body = f"{MIXED}  z = MatMul(h, w)  a, b = Split<axis=-1, num_outputs=2>(z)"
    body += "  first = Squeeze(a, last)  final = Squeeze(b, last)"
    config = {"architectures": ["BertForQuestionAnswering"]}
    return made(tmp_path, body, 2, config, "first", "final")


@pytest.mark.parametrize("engine", ENGINES)
def test_the_best_answer(answers: Path, engine: str) -> None:
    """One target: the sum of both scores at its first token and its last, in the second text."""
    pair = "berlin is big paris"
    ids = [0, 8, 4, 1, 3, 4, 5, 6, 1]
    y = outputs_of(ids, 2)
    pairs = [(s, e) for s in range(4, 8) for e in range(s, 8)]
    best = max(pairs, key=lambda pair: y[pair[0], 0] + y[pair[1], 1])
    chance = softmax(y[:, 0])[best[0]] * softmax(y[:, 1])[best[1]]
    seeds = [hot(best[k], k, y.shape) for k in range(2)]
    values = [y[best[k], k] for k in range(2)]
    for target in ("default", "answer", "pred"):
        record = one(answers, "who is", target, pair=pair, engine=engine)
        check(record, seeds[0] + seeds[1], values[0] + values[1], ids)
        said = " ".join(WORDS[k] for k in ids[best[0] : best[1] + 1])
        assert (record.target.kind, record.target.places) == ("answer", [*best])
        assert (record.target.label, record.target.output) == (said, "first + final")
        assert record.target.probability == pytest.approx(chance, rel=1e-5)
        assert record.prediction.label == said and record.prediction.index == best[0]
        assert record.prediction.probability == record.target.probability
        assert record.prediction.value == record.target.value and wording.said(record) is None
        assert title_of(record).startswith(f'answer "{said}" (token')
        assert record.fidelity.rewritten["outputs joined"] == 1
    for k, (output, end) in enumerate((("first", "answer:start"), ("final", "answer:end"))):
        for options in ({"target": end}, {"target": "default", "output": output}):
            record = one(answers, "who is", pair=pair, engine=engine, **options)
            check(record, seeds[k], values[k], ids)
            target = record.target
            assert (target.kind, target.index, target.output) == ("place", best[k], output)
            assert target.label == WORDS[ids[best[k]]]
            assert target.probability == pytest.approx(softmax(y[:, k])[best[k]], rel=1e-5)
    record = one(answers, "who is", "token:paris", pair=pair, engine=engine)
    check(record, hot(7, 0, y.shape), y[7, 0], ids)
    assert not record.warnings


@pytest.mark.parametrize("engine", ENGINES)
def test_no_answer_scores_more(tmp_path: Path, engine: str) -> None:
    """Both scores are the product with the first token's vector, so that it has the largest."""
    body = """h = Gather(table, input_ids)  z = MatMul(h, w)
        a, b = Split<axis=-1, num_outputs=2>(z)
        first = Squeeze(a, last)  final = Squeeze(b, last)"""
    path = made(tmp_path, body, 2, {}, "first", "final")
    model = onnx.load(path)
    for each in model.graph.initializer:
        if each.name == "w":
            scores = np.stack([TABLE[0], TABLE[0]], axis=1).astype(np.float32)
            each.CopyFrom(onnx.numpy_helper.from_array(scores, "w"))
    onnx.save(model, path)
    y = (TABLE[[0, 8, 4, 1, 3, 4, 5, 6, 1]] @ TABLE[0]).astype(np.float64)
    record = one(path, "who is", "default", pair="berlin is big paris", engine=engine)
    assert record.target.places is not None and min(record.target.places) > 3
    assert 2 * y[0] > sum(y[place] for place in record.target.places)
    assert [each.code for each in record.warnings] == ["no-answer"]
    named = one(path, "who is", 'answer:"paris"', pair="berlin is big paris", engine=engine)
    assert not named.warnings


def by_attention(ids: list[int], seed: Array) -> Array:
    """AttnLRP of one layer of attention by hand, from a multiplier [T, 2] of the output."""
    e, mix, w = (a.astype(np.float64) for a in (TABLE[ids], TABLE[:WIDTH], weights(2)))
    q = e @ mix
    a = softmax(q @ e.T)
    m = seed @ w.T
    of_weights = m @ e.T / 2
    of_scores = a * (of_weights - (a * of_weights).sum(axis=1, keepdims=True))
    whole = m + a.T @ m / 2 + of_scores.T @ q / 2 + of_scores @ e @ mix.T / 2
    return np.asarray((e * whole).sum(axis=1))


@pytest.mark.parametrize("engine", ENGINES)
def test_an_answer_through_attention(tmp_path: Path, engine: str) -> None:
    """The map of both ends together, which is the sum of their maps: also of every entry."""
    body = """e = Gather(table, input_ids)  q = MatMul(e, mix)  k = Transpose<perm=[0, 2, 1]>(e)
        s = MatMul(q, k)  p = Softmax<axis=-1>(s)  v = MatMul(p, e)  h = Add(v, e)
        z = MatMul(h, w)  a, b = Split<axis=-1, num_outputs=2>(z)
        first = Squeeze(a, last)  final = Squeeze(b, last)"""
    path = made(tmp_path, body, 2, {}, "first", "final")
    ids = [0, 8, 4, 1, 3, 4, 5, 6, 1]
    found = [
        one(path, "who is", target, pair="berlin is big paris", engine=engine)
        for target in ("answer", "answer:start", "answer:end")
    ]
    whole, *ends = found
    seed = np.zeros((len(ids), 2))
    for k, place in enumerate(whole.target.places or ()):
        seed[place, k] = 1
    np.testing.assert_allclose(whole.relevance.total, by_attention(ids, seed), atol=1e-5)
    for name in ("target", "content", "softmax"):
        both = sum(each.ledger[name] for each in ends)
        assert whole.ledger[name] == pytest.approx(both, abs=1e-5)
    assert abs(whole.ledger["residual_relative"]) < 1e-5


@pytest.mark.parametrize("engine", ENGINES)
def test_an_answer_by_its_text(answers: Path, engine: str) -> None:
    pair, ids = "berlin is big paris is big", [0, 8, 4, 1, 3, 4, 5, 6, 4, 5, 1]
    y = outputs_of(ids, 2)
    record = one(answers, "who is", 'answer:"big  Paris"', pair=pair, engine=engine)
    check(record, hot(6, 0, y.shape) + hot(7, 1, y.shape), y[6, 0] + y[7, 1], ids)
    assert record.target.label == "big paris"
    best = one(answers, "who is", "answer", pair=pair, engine=engine)
    assert record.prediction == best.prediction and best.target.label == best.prediction.label
    first = max((5, 8), key=lambda place: y[place, 0] + y[place + 1, 1])  # not in the question
    record = one(answers, "who is", 'answer:"is big"', pair=pair, engine=engine)
    assert record.target.places == [first, first + 1]
    with pytest.raises(TargetError, match="No answer is spelled 'she'"):
        one(answers, "who is", 'answer:"she"', pair=pair, engine=engine)


@pytest.mark.parametrize("engine", ENGINES)
def test_similarity_with_another_text(tmp_path: Path, engine: str) -> None:
    """The cosine of two mean embeddings; the length of its own counts as a constant."""
    body = "e = Gather(table, input_ids)  c = ReduceMean<keepdims=0>(e, axis)  y = MatMul(c, w)"
    path = made(tmp_path, body, 3, {})
    other = tmp_path / "other.txt"
    other.write_text("paris is small")
    v = TABLE[[0, 6, 4, 7, 1]].mean(axis=0) @ weights(3).astype(np.float64)
    e = TABLE[IDS].astype(np.float64)
    y = e.mean(axis=0) @ weights(3)
    for form, scale in (("similarity", np.linalg.norm(v) * np.linalg.norm(y)), ("dot", 1.0)):
        record = one(path, TEXT, f"{form}:{other}", engine=engine)
        assert record.target.value == pytest.approx(v @ y / scale, rel=1e-5)
        relevance = (e / len(IDS)) @ weights(3) @ v / scale
        np.testing.assert_allclose(record.relevance.total, relevance, rtol=1e-4, atol=1e-6)
        assert record.target.vector == "other.txt"


def test_no_similarity_of_hidden_states_without_a_place(tmp_path: Path) -> None:
    path = made(tmp_path, f"{MIXED}  y = MatMul(h, w)", 3, {})
    other = tmp_path / "other.txt"
    other.write_text("paris is small")
    with pytest.raises(TargetError, match="not one vector"):
        one(path, TEXT, f"similarity:{other}")
    assert one(path, TEXT, f"similarity:{other}:0").target.position == 0
    with pytest.raises(InputError, match="No such file"):
        one(path, TEXT, "similarity:nothing.txt")


@pytest.mark.parametrize("engine", ENGINES)
def test_all_labels_above_one_half(tmp_path: Path, engine: str) -> None:
    body = "e = Gather(table, input_ids)  c = ReduceMean<keepdims=0>(e, axis)  y = MatMul(c, w)"
    config = {
        "id2label": {str(k): each for k, each in enumerate("abcdef")},
        "problem_type": "multi_label_classification",
    }
    path = made(tmp_path, body, 6, config)
    y = TABLE[IDS].mean(axis=0) @ weights(6)
    found = explained(path, TEXT, "default", engine=engine)
    assert [each.target.index for each in found] == np.flatnonzero(y > 0).tolist()
    assert all((each.target.probability or 0) > 0.5 for each in found)
    assert found[0].target.head == "multi-label"
    record = one(path, TEXT, "logprob:b", engine=engine)
    chance = 1 / (1 + np.exp(-y[1]))
    assert record.target.value == pytest.approx(np.log(chance), rel=1e-5)
    relevance = (TABLE[IDS].astype(np.float64) / len(IDS)) @ weights(6)[:, 1] * (1 - chance)
    np.testing.assert_allclose(record.relevance.total, relevance, rtol=1e-4, atol=1e-6)
    assert record.ledger["other"] == pytest.approx(np.log(chance) - relevance.sum(), abs=1e-5)
    assert abs(record.ledger["residual_relative"]) < 1e-5


@pytest.mark.parametrize("engine", ENGINES)
def test_the_chosen_of_several_texts(tmp_path: Path, engine: str) -> None:
    """Every line of the second text is a choice; shorter ones are padded."""
    body = "s = Shape(input_ids)  t = Slice(s, two, three)  n = Slice(s, one, two)"
    body += "  rows = Concat<axis=0>(less, t)  flat = Reshape(input_ids, rows)"
    body += "  e = Gather(table, flat)  c = ReduceMean<keepdims=0>(e, one)  z = MatMul(c, w)"
    body += "  shape = Concat<axis=0>(less, n)  y = Reshape(z, shape)"
    given = {"table": TABLE, "w": weights(1), "one": ints(1), "two": ints(2), "three": ints(3)}
    feeds = {"input_ids": np.zeros((1, 2, 5), np.int64), "attention_mask": np.ones((1, 2, 5))}
    feeds["attention_mask"] = feeds["attention_mask"].astype(np.int64)
    body = body.replace("e = Gather(table, flat)", _KEPT)
    model = proto(body, feeds, {**given, "less": ints(-1)}, free=(0, 1, 2))
    path = made(tmp_path, f"{MIXED}  y = MatMul(h, w)", 3, {"pad_token_id": 1})
    onnx.save(model, path)
    choices = ["big paris", "berlin"]
    ids = np.array([[0, 8, 4, 1, 5, 6, 1], [0, 8, 4, 1, 3, 1, 1]])
    kept = np.array([[1] * 7, [1] * 6 + [0]])[:, :, None]
    e = TABLE[ids].astype(np.float64) * kept
    y = e.mean(axis=1) @ weights(1)[:, 0]
    best = int(y.argmax())
    record = one(path, "who is", "default", pair="\n".join(choices), engine=engine)
    seed = np.eye(2)[best][:, None]
    relevance = (e @ weights(1)[:, 0]) / 7 * seed
    np.testing.assert_allclose(record.relevance.total, relevance.ravel(), rtol=1e-4, atol=1e-6)
    assert (record.target.head, record.target.label) == ("multiple-choice", choices[best])
    assert record.target.probability == pytest.approx(softmax(y)[best], rel=1e-5)
    assert record.units.text[:7] == ["[CLS]", "who", "is", "[SEP]", "big", "paris", "[SEP]"]
    spans = zip(record.units.start, record.units.end, record.units.sequence, strict=True)
    texts = ("who is", "\n".join(choices))
    shown = [texts[s][a:b] for a, b, s in spans]
    assert shown[4:6] == ["big", "paris"] and shown[11] == "berlin"
    contrast = one(path, "who is", "berlin-big paris", pair="\n".join(choices), engine=engine)
    assert contrast.target.value == pytest.approx(y[1] - y[0], rel=1e-4)
    with pytest.raises(InputError, match="several choices"):
        one(path, "who is", "pred", engine=engine)


#: Embeddings that a mask of the tokens switches off.
_KEPT = (
    "v = Gather(table, flat)  f = Reshape(attention_mask, rows)  g = Cast<to=1>(f)"
    "  k = Unsqueeze(g, less)  e = Mul(v, k)"
)
PICTURE = real(1, 3, 6, 6, seed=5)
KERNEL = real(4, 3, 1, 1, seed=6)


def of_picture(folder: Path, body: str, given: dict[str, Array], **options: Any) -> Any:
    """What explains a target of a model of :data:`PICTURE` with four labels."""
    path = folder / "model.onnx"
    outputs = options.pop("outputs", ("y",))
    onnx.save(proto(body, {"x": PICTURE}, given, outputs=outputs), path)
    names = {"id2label": {str(k): each for k, each in enumerate("abcd")}}
    (folder / "config.json").write_text(json.dumps(names))
    sample = Sample("x", "tensors", {"x": PICTURE}, InputFacts(kind="tensors"))
    explainer = Explainer(path, **options)
    return lambda target: explainer.explain(sample, target, read_labels(path))[0]


@pytest.mark.parametrize("engine", ENGINES)
def test_a_class_over_its_region(tmp_path: Path, engine: str) -> None:
    """A convolution of one pixel: every pixel has the relevance of its own entry."""
    explain = of_picture(tmp_path, "y = Conv(x, k)", {"k": KERNEL}, engine=engine)
    x, k = (each.astype(np.float64) for each in (PICTURE[0], KERNEL[:, :, 0, 0]))
    y = np.einsum("chw,kc->khw", x, k)
    largest = y.argmax(axis=0)
    usual = int(np.bincount(largest.ravel(), minlength=4).argmax())
    mask = np.zeros((6, 6), bool)
    mask[1:3, 2:5] = True
    np.save(tmp_path / "mask.npy", mask)
    Image.fromarray(mask.astype(np.uint8) * 255).save(tmp_path / "mask.png")
    box = np.zeros((6, 6), bool)
    box[:2, 3:] = True
    whole = np.ones((6, 6), bool)
    for target, index, cells in (
        ("default", usual, largest == usual),
        ("c", 2, largest == 2),
        ("region:c", 2, largest == 2),
        (f"region:c:{tmp_path}/mask.npy", 2, mask),
        (f"region:2:{tmp_path}/mask.png", 2, mask),
        ("1,:,:", 1, whole),
        ("1,:2,3:6", 1, box),
        ("1,:-4,-3:", 1, box),
    ):
        found = explain(target)
        expected = np.einsum("chw,c->chw", x, k[index]) * cells
        np.testing.assert_allclose(found.tensors["pixels"][0], expected, rtol=1e-4, atol=1e-6)
        target_facts = found.record.target
        assert target_facts.value == pytest.approx(y[index][cells].sum(), rel=1e-5)
        assert (target_facts.kind, target_facts.cells) == ("region", int(cells.sum()))
        assert target_facts.head == "segmentation"
        assert abs(found.record.ledger["residual_relative"]) < 1e-5
    assert "places, where it is the largest" in title_of(explain("c").record)


def test_a_mask_in_the_size_of_the_picture(tmp_path: Path) -> None:
    """Places of two by two pixels, and of an original of which the model sees a part."""
    kernel = real(4, 3, 2, 2, seed=6)
    body = "y = Conv<kernel_shape=[2, 2], strides=[2, 2]>(x, k)"
    explain = of_picture(tmp_path, body, {"k": kernel})
    mask = np.zeros((6, 6), bool)
    mask[1:3, 2:5] = True  # half of one place, a quarter of others
    np.save(tmp_path / "mask.npy", mask)
    found = explain(f"region:c:{tmp_path}/mask.npy").record
    cells = mask.reshape(3, 2, 3, 2).mean(axis=(1, 3)) >= 0.5
    windows = PICTURE[0].astype(np.float64).reshape(3, 3, 2, 3, 2)
    y = np.einsum("chawb,kcab->khw", windows, kernel)
    assert found.target.value == pytest.approx(y[2][cells].sum(), rel=1e-5)
    assert found.target.cells == cells.sum() == 2
    assert [each.code for each in found.warnings] == ["resized-mask"]
    geometry = ImageGeometry(size=(10, 8), box=Box(left=2, top=1, right=8, bottom=7))
    facts = InputFacts(kind="image", size=(10, 8))
    sample = Sample("x", "image", {"x": PICTURE}, facts, geometry=geometry, subject="x")
    original = np.zeros((8, 10), bool)
    original[1:7, 2:8] = mask
    original[0] = True  # cropped off
    np.save(tmp_path / "original.npy", original)
    explainer = Explainer(tmp_path / "model.onnx")
    labels = read_labels(tmp_path / "model.onnx")
    (same,) = explainer.explain(sample, f"region:c:{tmp_path}/original.npy", labels)
    assert same.record.target.value == pytest.approx(found.target.value)
    np.save(tmp_path / "little.npy", np.eye(6, dtype=bool) * [0, 0, 0, 1, 0, 0])
    with pytest.raises(TargetError, match="covers less than half of every place"):
        explain(f"region:c:{tmp_path}/little.npy")


@pytest.mark.parametrize(
    ("box", "size"),
    [((0, 0, 6, 4), (2, 3)), ((-3, -2, 9, 6), (4, 4)), ((1.5, 0.5, 4.5, 3.5), (2, 3))],
)
def test_a_place_is_masked_if_half_of_its_area_is(box: Any, size: tuple[int, int]) -> None:
    """Counted on a grid of 24 × 24 points in each pixel."""
    mask = np.random.default_rng(0).random((4, 6)) < 0.5
    left, top, right, bottom = box
    steps = 24
    fine = np.repeat(np.repeat(mask, steps, 0), steps, 1)
    around = np.pad(fine, 4 * steps)
    down, across = (int((b - a) * steps) for a, b in ((top, bottom), (left, right)))
    first = int((top + 4) * steps), int((left + 4) * steps)
    seen = around[first[0] : first[0] + down, first[1] : first[1] + across]
    share = seen.reshape(size[0], down // size[0], size[1], across // size[1]).mean(axis=(1, 3))
    found = mask_of_places(mask, Box(*box), size)
    np.testing.assert_array_equal(found, share >= 0.5)


@pytest.mark.parametrize(("ending", "half"), [("Identity", 0), ("Sigmoid", 0.5)])
def test_the_region_of_one_number_a_place(tmp_path: Path, ending: str, half: float) -> None:
    body = f"c = Conv(x, k)  y = {ending}(c)"
    explain = of_picture(tmp_path, body, {"k": KERNEL[:1]}, output="y")
    if ending == "Identity":  # it may be a depth, unless something says that it is a class
        with pytest.raises(TargetError, match="no meaning for an output of 4 axes"):
            explain("default")
        explain = of_picture(tmp_path, body, {"k": KERNEL[:1]}, output="y")
        said = {"architectures": ["SegformerForSemanticSegmentation"]}
        (tmp_path / "config.json").write_text(json.dumps(said))
    y = np.einsum("chw,c->hw", PICTURE[0], KERNEL[0, :, 0, 0])
    target = explain("default").record.target
    assert target.cells == (y > 0).sum() < y.size
    assert target.region == f"where it is above {half}"


def test_regions_that_are_not_there(tmp_path: Path) -> None:
    kernel = KERNEL.copy()
    kernel[3] = -np.abs(KERNEL).sum()
    given = {"k": kernel, "low": np.array([0, 0, 0, 100], np.float32).reshape(1, 4, 1, 1)}
    explain = of_picture(tmp_path, "c = Conv(x, k)  y = Sub(c, low)", given)
    with pytest.raises(TargetError, match="No place of the output is d") as caught:
        explain("d")
    assert "element:3,:,:" in caught.value.hint
    assert explain("element:3,:,:").record.target.cells == 36
    np.save(tmp_path / "small.npy", np.ones((2, 2)))
    with pytest.raises(TargetError, match=r"shape \[2, 2\]"):
        explain(f"region:a:{tmp_path}/small.npy")
    with pytest.raises(TargetError, match="is empty"):
        explain("1,2:2,:")
    with pytest.raises(TargetError, match="3 parts"):
        explain("1,:")


@pytest.mark.parametrize("engine", ENGINES)
def test_the_most_probable_box(tmp_path: Path, engine: str) -> None:
    """Five queries that each sum the pixels; the last class is no object."""
    given = {"q": real(5, 36, seed=8), "w": real(3, 5, seed=9), "b": real(3, 4, seed=10)}
    given["rows"] = ints(0, 3, -1)
    body = "f = Reshape(x, rows)  p = Transpose<perm=[0,2,1]>(f)  h = MatMul(q, p)"
    body += "  y = MatMul(h, w)  boxes = MatMul(h, b)"
    explain = of_picture(tmp_path, body, given, engine=engine, outputs=("y", "boxes"))
    x = PICTURE[0].reshape(3, 36).T.astype(np.float64)
    y = given["q"] @ x @ given["w"]
    chances = softmax(y)[:, :4]
    query, index = np.unravel_index(chances.argmax(), chances.shape)
    for target, at, entry in (("default", query, index), ("box:1:c", 1, 2)):
        found = explain(target)
        expected = given["q"][at][:, None] * x * given["w"][:, entry].astype(np.float64)
        np.testing.assert_allclose(
            found.tensors["pixels"][0], expected.T.reshape(3, 6, 6), rtol=1e-4, atol=1e-5
        )
        assert found.record.target.head == "detection"
        assert title_of(found.record).startswith(f"box {at} → {'abcd'[entry]} ")


SUMMED_KEPT = (
    "v = Gather(table, input_ids)  g = Cast<to=1>(attention_mask)  k = Unsqueeze(g, last)"
    "  e = Mul(v, k)  c = ReduceSum<keepdims=1>(e, axis)  h = Add(e, c)"
)
BATCHES = {
    "entities": (f"{SUMMED_KEPT}  y = MatMul(h, w)", 3, ("y",)),
    "masked": (f"{SUMMED_KEPT}  y = MatMul(h, w)", len(WORDS), ("y",)),
    "answers": (
        f"{SUMMED_KEPT}  z = MatMul(h, w)  a, b = Split<axis=-1, num_outputs=2>(z)"
        "  first = Squeeze(a, last)  final = Squeeze(b, last)",
        2,
        ("first", "final"),
    ),
}


def batched(folder: Path, kind: str, side: str) -> Path:
    """A model with a mask, whose tokenizer fills up on this side."""
    body, size, outputs = BATCHES[kind]
    config: dict[str, Any] = {"pad_token_id": 1}
    if kind == "entities":
        config["id2label"] = {str(k): label for k, label in enumerate(LABELS)}
    path = made(folder, f"{MIXED}  y = MatMul(h, w)", size, config)
    named = {"mask_token": "[MASK]", "padding_side": side}
    (folder / "tokenizer_config.json").write_text(json.dumps(named))
    feeds = {"input_ids": ints([*IDS]), "attention_mask": ints([1] * 5)}
    given = {"table": TABLE, "w": weights(size), "last": ints(-1), "axis": ints(1)}
    onnx.save(proto(body, feeds, given, outputs=outputs, free=(0, 1)), path)
    return path


@pytest.mark.parametrize("kind", BATCHES)
@pytest.mark.parametrize("side", ["right", "left"])
def test_records_of_a_batch_are_as_alone(tmp_path: Path, kind: str, side: str) -> None:
    """Filled up on either side: no place is one of the padding, and each record has its own."""
    path = batched(tmp_path, kind, side)
    texts = ["[MASK] is", "big berlin is [MASK] paris", "small [MASK] she"]
    pairs = ["berlin is big", "he", "paris is small who"]
    pair = kind == "answers"
    records = [
        Record(k, {"text": text, **({"text_pair": other} if pair else {})})
        for k, (text, other) in enumerate(zip(texts, pairs, strict=True))
    ]
    worker = Worker(path, Settings(batch_size=3))
    assert worker._batcher.batching.padding is not None
    lines = [json.loads(line.data) for line in worker(records)]
    for line, text, other in zip(lines, texts, pairs, strict=True):
        alone = one(path, text, "pred", pair=other if pair else None)
        target = json.loads(encode(alone))["target"]
        for name in ("value", "probability"):
            assert line["target"].pop(name) == pytest.approx(target.pop(name), rel=1e-4)
        assert line["target"] == target
        np.testing.assert_allclose(
            line["relevance"]["total"], alone.relevance.total, rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize("side", ["right", "left"])
def test_places_that_records_name_are_no_padding(tmp_path: Path, side: str) -> None:
    """Places by number, as an entry of the ends of answers, or in a region of all tokens."""
    for kind, target in (("answers", "4"), ("entities", ":,1")):
        path = batched(tmp_path, kind, side)
        texts = ["is big", "who is small she"]
        pair = {"text_pair": "berlin"} if kind == "answers" else {}
        records = [
            Record(k, {"text": text, **pair, "target": target}) for k, text in enumerate(texts)
        ]
        worker = Worker(path, Settings(batch_size=2))
        assert worker._batcher.batching.padding is not None
        for line, text in zip(worker(records), texts, strict=True):
            found, alone = (
                json.loads(line.data),
                one(path, text, target, pair=pair.get("text_pair")),
            )
            assert found["target"]["value"] == pytest.approx(alone.target.value, rel=1e-4)
            assert found["target"].get("index") == alone.target.index
            np.testing.assert_allclose(
                found["relevance"]["total"], alone.relevance.total, rtol=1e-4, atol=1e-5
            )


def test_the_last_token_of_another_text_is_no_padding(tmp_path: Path) -> None:
    path = batched(tmp_path, "entities", "right")
    for name, more in (("other", 0), ("padded", 2)):
        ids, kept = [0, 6, 4, 1] + [1] * more, [1] * 4 + [0] * more
        np.savez(tmp_path / f"{name}.npz", input_ids=[ids], attention_mask=[kept])
    values = [
        one(path, TEXT, f"similarity:{tmp_path / name}.npz:-1").target.value
        for name in ("other", "padded")
    ]
    assert values[0] == pytest.approx(values[1], rel=1e-5)


def test_a_compiled_file(entities: Path) -> None:
    """Takes log-probabilities at a place, and says that it takes no spans and regions."""
    explainer = entities.with_name("explainer.onnx")
    explainer.write_bytes(compile_model(entities, explainer))
    for target in ("default", "logprob:token:2:B-LOC", 'token:"berlin":B-LOC-O'):
        ours, theirs = (one(path, TEXT, target) for path in (explainer, entities))
        assert ours.target == theirs.target
        np.testing.assert_allclose(ours.relevance.total, theirs.relevance.total, atol=1e-5)
        assert ours.ledger["softmax"] == pytest.approx(theirs.ledger["softmax"], abs=1e-5)
    with pytest.raises(TargetError, match="several places"):
        one(explainer, TEXT, "1:3,0")


def test_a_sure_log_probability_is_a_map_of_zeros(tmp_path: Path) -> None:
    """Its gradient is 0, which is no default target of the compiled graph."""
    body = "e = Gather(table, input_ids)  c = ReduceMean<keepdims=0>(e, axis)  m = MatMul(c, w)"
    path = made(tmp_path, f"{body}  d = Mul(m, table)", 3, {})
    given = {"table": TABLE, "w": weights(3), "axis": ints(1), "far": floats(1e4, 0.0, 0.0)}
    model = proto(f"{body}  y = Add(m, far)", {"input_ids": ints([*IDS])}, given, free=(0, 1))
    onnx.save(model, path)
    (tmp_path / "config.json").write_text(json.dumps({"id2label": {"0": "a", "1": "b", "2": "c"}}))
    for engine in ENGINES:
        record = one(path, TEXT, "logprob:a", engine=engine)
        assert record.target.value == 0
        assert not any(record.relevance.total)
        assert [w.code for w in record.warnings] == ["zero_map"]


def test_negative_places_count_from_the_last_token_of_the_text(tmp_path: Path) -> None:
    """In a graph of a fixed length, whose rows are filled up."""
    config = {"id2label": dict(zip("012", LABELS, strict=True)), "pad_token_id": 1}
    path = made(tmp_path, f"{MIXED}  y = MatMul(h, w)", 3, config)
    feeds = {"input_ids": ints([*IDS, 1, 1, 1]), "attention_mask": ints([1] * 8)}
    given = {"table": TABLE, "w": weights(3), "last": ints(-1), "axis": ints(1)}
    onnx.save(proto(f"{SUMMED_KEPT}  y = MatMul(h, w)", feeds, given), path)
    records = [one(path, TEXT, target) for target in ("token:-2:B-LOC", "token:big:B-LOC")]
    assert records[0].target == records[1].target
    assert records[0].target.position == 3
    with pytest.raises(TargetError, match="before the first of 5"):
        one(path, TEXT, "token:-6:B-LOC")
