"""Perturbation of tokens, against the numbers of the reference code and by its own laws."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from committed import GOLDEN
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from palrp_onnx.errors import InputError
from palrp_onnx.evaluate.perturbation import (
    FRACTIONS,
    Curves,
    Followed,
    Protocol,
    bootstrap,
    curves_of,
    measure_together,
    measured,
    perturbed_rows,
    summarise,
)
from palrp_onnx.model.open import Model
from palrp_onnx.runtime.forward import ReferenceForward

Array = NDArray[Any]
Predict = Callable[[Array], Array]
MAPS = {"ours": "map_ours", "attnlrp": "map_attnlrp_norm", "pe_only": "map_pe_only"}
CLASSES = Protocol(unknown=0)
NEXT = Protocol(unknown=0, magnitude=False, classes=False)
CASES = [
    ("palrp_llama_seqcls", "imdb", CLASSES),
    ("palrp_llama_causal_gqa", "wiki", NEXT),
    ("palrp_llama_causal_gqa", "arc", NEXT),
]


def feeds_of(folder: Path, model: Model, ids: Array) -> dict[str, Array]:
    arrays = {path.stem: np.load(path) for path in folder.glob("*_mask.npy")}
    mask = arrays.get("attention_mask", np.ones_like(ids))[:1]
    counting = np.arange(ids.shape[1])[None]
    known = {"input_ids": ids[:1], "attention_mask": mask, "position_ids": counting}
    return {s.name: known[s.name] for s in model.inputs}


def perturb(
    ids: Array, relevance: Array, index: int, predict: Predict, protocol: Protocol
) -> Curves:
    """One text in the order of one map, by a function of token ids alone."""
    rows = perturbed_rows(ids, relevance, protocol)
    logits = predict(rows)
    return curves_of(measured(logits, np.full(len(rows), index), classes=protocol.classes))


@pytest.mark.parametrize("method", MAPS)
@pytest.mark.parametrize(("case", "name", "protocol"), CASES)
def test_the_reference_code(case: str, name: str, protocol: Protocol, method: str) -> None:
    folder = GOLDEN / case
    expected = np.load(folder / "evaluation.npz")
    maps = np.load(folder / "expected.npz")
    ids = np.load(folder / "input_ids.npy")
    model = Model.open(folder / "model.onnx")
    forward = ReferenceForward(model, ["logits"])
    feeds = feeds_of(folder, model, ids)
    position = -1 if protocol is NEXT else None

    def predict(rows: Array) -> Array:
        others = {key: np.repeat(array, len(rows), axis=0) for key, array in feeds.items()}
        logits = forward({**others, "input_ids": rows})["logits"]
        return logits if position is None else logits[:, position]

    if protocol is CLASSES:
        indices = np.load(folder / "targets.npy")
    else:
        indices = predict(ids).argmax(axis=-1)
    found = [
        perturb(row, maps[f"s{k}_{MAPS[method]}"], int(indices[k]), predict, protocol)
        for k, row in enumerate(ids)
    ]
    for k, curves in enumerate(found):
        for ours, theirs in (
            (curves.generation.evidence, "generate_evidence"),
            (curves.generation.error, "generate_mse"),
            (curves.generation.logit, "generate_logit"),
            (curves.pruning.evidence, "pruning_evidence"),
            (curves.pruning.error, "pruning_mse"),
            (curves.pruning.logit, "pruning_logit"),
            (curves.ascending.evidence, "generate_evidence_least"),
            (curves.ascending.logit, "generate_logit_least"),
        ):
            reference = expected[f"{name}_{method}_{theirs}"][k]
            np.testing.assert_allclose(ours, reference, rtol=1e-6, atol=1e-6)
    areas = summarise(found)
    for area, key in (
        (areas.generation_auac, "generate_AU_AC"),
        (areas.generation_mse, "generate_AU_MSE"),
        (areas.pruning_auac, "pruning_AU_AC"),
        (areas.pruning_mse, "pruning_AU_MSE"),
        (areas.morf, "MERF"),
        (areas.lerf, "LERF"),
    ):
        assert area.area == pytest.approx(float(expected[f"{name}_{method}_summary_{key}"]), 1e-6)
        assert area.low <= area.area <= area.high


WEIGHTS = np.random.default_rng(4).normal(size=50)


def additive(rows: Array) -> Array:
    """Two classes; token t speaks for the second by its weight, the unknown one (0) not at all."""
    known = np.where(rows == 0, 0.0, WEIGHTS[rows])
    return np.stack([np.zeros(len(rows)), known.sum(axis=-1)], axis=-1)


def run(ids: list[int], relevance: Array, protocol: Protocol = NEXT) -> Curves:
    return perturb(np.array(ids), relevance, 1, additive, protocol)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(1, 49), min_size=1, max_size=20, unique=True))
def test_the_true_weights_order_best(ids: list[int]) -> None:
    """No order puts evidence in earlier than that of an additive model's own weights."""
    true = run(ids, WEIGHTS[ids])
    other = run(ids, np.random.default_rng(len(ids)).normal(size=len(ids)))
    assert (true.generation.logit >= other.generation.logit - 1e-9).all()
    assert (true.ascending.logit <= other.ascending.logit + 1e-9).all()
    for curves in (true, other):
        whole = additive(np.array([ids]))[0, 1]
        assert curves.generation.logit[[0, -1]] == pytest.approx([0.0, whole])
        assert curves.pruning.logit[[0, -1]] == pytest.approx([whole, 0.0])
        assert curves.generation.error[-1] == curves.pruning.error[0] == 0


def test_protected_tokens_stay() -> None:
    seen: list[Array] = []

    def predict(rows: Array) -> Array:
        seen.append(rows)
        return additive(rows)

    ids = np.arange(1, 9)
    perturb(ids, WEIGHTS[ids], 1, predict, Protocol(unknown=0, prefix=2, suffix=1))
    assert (seen[0][:, :2] == ids[:2]).all()
    assert (seen[0][:, -1] == ids[-1]).all()
    assert (seen[0][0, 2:-1] == 0).all()
    with pytest.raises(InputError, match="No tokens are left"):
        perturb(ids, WEIGHTS[ids], 1, predict, Protocol(unknown=0, prefix=4, suffix=4))


def test_intervals() -> None:
    same = np.repeat(np.linspace(0, 1, 11)[None], 5, axis=0)
    area = bootstrap(same)
    assert (area.area, area.low, area.high) == pytest.approx((0.5, 0.5, 0.5))
    spread = np.random.default_rng(0).normal(size=(400, 1)) + np.zeros(len(FRACTIONS))
    area = bootstrap(spread)
    assert area.high - area.low == pytest.approx(2 * 1.96 / 20, rel=0.15)
    assert bootstrap(spread) == area
    with pytest.raises(InputError):
        summarise([])


def test_curves_do_not_keep_the_vocabulary() -> None:
    def predict(rows: Array) -> Array:
        return np.random.default_rng(0).normal(size=(len(rows), 1000))

    found = perturb(np.arange(6), np.arange(6.0), 3, predict, NEXT)
    for steps in vars(found).values():
        assert all(
            (array if array.base is None else array.base).size < 100
            for array in vars(steps).values()
        )


@pytest.mark.parametrize("classes", [True, False])
def test_texts_together_are_texts_alone(classes: bool) -> None:
    """Rows of several texts in one run, each once, give what every row alone gives."""
    generator, runs = np.random.default_rng(5), []
    weights = generator.normal(size=(50, 3))

    def forward(feeds: Mapping[str, Array], places: Array | None) -> Array:
        runs.append(feeds["ids"])
        kept = weights[feeds["ids"]] * feeds["mask"][:, :, None]
        return kept.sum(axis=1) if places is None else kept[np.arange(len(kept)), places]

    texts = [
        Followed(
            feeds={"ids": ids[None], "mask": generator.integers(0, 2, (1, 7))},
            rows=perturbed_rows(ids, generator.normal(size=7), CLASSES),
            index=k % 3,
            position=position,
        )
        for k, position in enumerate([None] * 4 if classes else [2, -1, 0, 6])
        for ids in [generator.integers(1, 50, 7)]
    ]
    found = measure_together(forward, "ids", texts, classes=classes, rows=30)
    for text, own in zip(texts, found, strict=True):
        at = None if text.position is None else np.array([text.position])
        alone = [
            measured(
                forward({**text.feeds, "ids": row[None]}, at),
                np.array([text.index]),
                classes=classes,
            )[0]
            for row in text.rows
        ]
        np.testing.assert_allclose(own, alone, rtol=1e-12)
    together = runs[: -sum(len(text.rows) for text in texts)]
    assert sum(map(len, together)) == sum(len(np.unique(t.rows, axis=0)) for t in texts)
    assert max(map(len, together)) == 30
