"""Maps of an encoder with a decoder: over what is read and over what was produced."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pairs
import pytest
from msgspec import UNSET

from palrp_onnx import Explainer, Explanation
from palrp_onnx.engines import NumpyEngine
from palrp_onnx.inputs import Sample
from palrp_onnx.record import InputFacts
from palrp_onnx.relevance.ledger import in_order
from palrp_onnx.types import Feeds

pytestmark = pytest.mark.quick
ENGINES = ("onnxruntime", "numpy")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pairs.write_pair(tmp_path_factory.mktemp("models") / "pair")


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pairs.write_one(tmp_path_factory.mktemp("models") / "one.onnx")


def sample(feeds: Feeds) -> Sample:
    return Sample(id="s", kind="tensors", feeds=dict(feeds), facts=InputFacts(kind="tensors"))


def explained(path: Path, feeds: Feeds, **options: str) -> list[Explanation]:
    return Explainer(path, **options).explain(sample(feeds))  # type: ignore[arg-type]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("method", ["pa-lrp", "attnlrp"])
def test_two_files_as_one(pair: Path, one: Path, engine: str, method: str) -> None:
    options = {"engine": engine, "method": method}
    first = explained(pair, pairs.feeds(), **options)
    second = explained(one, pairs.feeds(), **options)
    for a, b in zip(first, second, strict=True):
        assert a.record.model.files == ["encoder_model.onnx", "decoder_model.onnx"]
        assert a.record.fidelity is not UNSET
        assert a.record.fidelity.rewritten["joined"] == 2
        assert a.record.fidelity.difference is not None
        assert a.record.ledger == pytest.approx(b.record.ledger, rel=1e-5, abs=1e-6)
        assert len(a.record.maps) == len(b.record.maps) == 2
        for x, y in zip(a.record.maps, b.record.maps, strict=True):
            assert x.input == y.input
            for part in ("content", "position", "total"):
                assert np.allclose(
                    getattr(x.relevance, part), getattr(y.relevance, part), rtol=1e-5, atol=1e-6
                )
            assert [s.name for s in x.sites] == [s.name for s in y.sites]
            assert x.sites or method == "attnlrp"


def test_the_seed_of_the_encoder_is_the_multiplier_at_its_states(pair: Path) -> None:
    """Each file explained alone, in float64: together they make the explanation of both."""
    feeds, options = pairs.feeds(), {"engine": "numpy", "dtype": "float64"}
    whole = explained(pair, feeds, **options)
    encoder = Explainer(pair / "encoder_model.onnx", **options)  # type: ignore[arg-type]
    own = {"ids": feeds["ids"], "kept": feeds["kept"]}
    first = encoder.engine(own)
    assert isinstance(first, NumpyEngine)
    values = first.forward(own)
    states = values["r"]
    decoder = Explainer(pair / "decoder_model.onnx", **options)  # type: ignore[arg-type]
    given = {
        "ids": feeds["decoder_ids"],
        "kept": feeds["kept"],
        "input_3": states.astype(np.float32),
    }
    second = decoder.engine(given)
    assert isinstance(second, NumpyEngine)
    given = {**given, "input_3": states}
    run = second.forward(given)
    seed = np.zeros_like(run["y"])
    for row, each in enumerate(whole):
        target = each.record.target
        assert isinstance(target.index, int) and target.position is not None
        seed[row, target.position, target.index] = 1
    read = next(v for v in second.planned.analysis.model.graph.inputs if v.name == "input_3")
    multiplier = second.multipliers(run, seed, [read])[read]
    theirs, ours = second.propagate(run, seed), first.propagate(values, multiplier)
    passed = (multiplier * states).sum(axis=(1, 2))
    assert np.allclose(ours.ledger["target"], passed)
    for row, each in enumerate(whole):
        record = each.record
        assert np.allclose(record.relevance.content, ours.content[row].sum(axis=-1), atol=1e-9)
        entries = {**theirs.ledger}
        named = {"content": "decoder_ids", "input_3": None}
        added = {name: float(amount[row]) for name, amount in ours.ledger.items()}
        total = {**dict.fromkeys(in_order(record.ledger), 0.0)}
        for name in in_order(entries):
            if (known := named.get(name, name)) is not None:
                total[known] += float(entries[name][row])
        for name in in_order(added):
            total[name] += added[name]
        for name, amount in total.items():
            assert record.ledger[name] == pytest.approx(amount, abs=1e-9), name
        assert abs(record.ledger["residual_relative"]) < 1e-10


@pytest.mark.parametrize("engine", ENGINES)
def test_a_batch_is_its_rows(pair: Path, engine: str) -> None:
    explainer = Explainer(pair, engine=engine)
    batch = explainer.explain(sample(pairs.feeds()))
    for row, together in enumerate(batch):
        (alone,) = explainer.explain(sample(pairs.feeds(rows=slice(row, row + 1))))
        for x, y in zip(together.record.maps, alone.record.maps, strict=True):
            assert np.allclose(x.relevance.total, y.relevance.total, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("engine", ENGINES)
def test_padding_gets_nothing_and_changes_nothing(pair: Path, engine: str) -> None:
    explainer = Explainer(pair, engine=engine)
    feeds = pairs.feeds(rows=slice(1, 2))
    short = {**feeds, "ids": feeds["ids"][:, :3], "kept": feeds["kept"][:, :3]}
    (padded,), (plain,) = (explainer.explain(sample(each)) for each in (feeds, short))
    assert padded.record.relevance.total[3:] == [0.0, 0.0]
    for x, y in zip(padded.record.maps, plain.record.maps, strict=True):
        assert np.allclose(x.relevance.total[:3], y.relevance.total[:3], rtol=1e-4, atol=1e-6)


def test_tokens_that_come_later_change_nothing(pair: Path) -> None:
    explainer = Explainer(pair)
    feeds = pairs.feeds(rows=slice(0, 1))
    short = {**feeds, "decoder_ids": feeds["decoder_ids"][:, :2]}
    (early,) = explainer.explain(sample(short))
    target = early.record.target
    (late,) = explainer.explain(sample(feeds), f"token:1:{target.index}")
    assert late.record.target.value == pytest.approx(target.value, rel=1e-5)
    produced = late.record.maps[1].relevance.total
    assert produced[2] == 0
    assert np.allclose(produced[:2], early.record.maps[1].relevance.total, rtol=1e-4, atol=1e-6)
    assert np.allclose(
        late.record.relevance.total, early.record.relevance.total, rtol=1e-4, atol=1e-6
    )


def test_arrays_name_the_units_of_both(pair: Path) -> None:
    (found,) = Explainer(pair).explain(replace(sample(pairs.feeds(rows=slice(0, 1)))))
    assert [each.input for each in found.record.maps] == ["ids", "decoder_ids"]
    assert [each.units.id for each in found.record.maps] == [
        pairs.SOURCE[0].tolist(),
        pairs.PRODUCED[0].tolist(),
    ]


@pytest.mark.parametrize("engine", ENGINES)
def test_places_are_those_of_the_decoder(pair: Path, engine: str) -> None:
    explainer, given = Explainer(pair, engine=engine), sample(pairs.feeds(rows=slice(0, 1)))
    (found,) = explainer.explain(given)
    target = found.record.target
    assert (target.head, target.along, target.position) == ("causal-lm", "decoder_ids", 2)
    (span,) = explainer.explain(given, "span:1-2")
    scores = explainer.engine(given.feeds).output(given.feeds)[0].astype(np.float64)
    logs = scores - np.log(np.exp(scores).sum(axis=-1, keepdims=True))
    expected = sum(logs[k - 1, pairs.PRODUCED[0, k]] for k in (1, 2))
    assert span.record.target.value == pytest.approx(expected, rel=1e-5)
    assert span.record.target.places == [0, 1]
    assert abs(span.record.ledger["residual_relative"]) < 1e-5
    assert span.record.maps[1].relevance.total[2] == 0  # nothing after it is read


def test_a_span_needs_no_map_of_the_decoder(pair: Path) -> None:
    given = sample(pairs.feeds(rows=slice(0, 1)))
    (one,) = Explainer(pair).explain(given, "span:1-2")
    (other,) = Explainer(pair, explain_input="ids").explain(given, "span:1-2")
    assert other.record.target.value == pytest.approx(one.record.target.value, rel=1e-6)
    assert len(other.record.maps) == 1
