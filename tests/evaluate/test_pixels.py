"""Perturbation of pixels, against the numbers of the reference code and by its own laws."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from committed import GOLDEN, MODELS
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from palrp_onnx.errors import InputError, UsageError
from palrp_onnx.evaluate.image_maps import ComparedMaps, pixel_map, spread
from palrp_onnx.evaluate.images import black_pixel, evaluate_pixels
from palrp_onnx.evaluate.pixels import (
    BASELINES,
    Retention,
    orders,
    perturb,
    perturbed,
    replacement,
    summarise,
)
from palrp_onnx.explainer import Explainer
from palrp_onnx.inputs import open_sample
from palrp_onnx.model.open import Model
from palrp_onnx.runtime.forward import FileForward

REFERENCE = GOLDEN / "palrp_vision_eval"
DIGITS = MODELS / "digits-vit"
Array = NDArray[Any]
SUFFIX = {"black": "", "mean": "_average", "blur": "_blur"}


@pytest.fixture(scope="module")
def deit() -> Model:
    return Model.open(REFERENCE / "model.onnx")


@pytest.fixture(scope="module")
def images(deit: Model) -> list[Array]:
    return [
        open_sample(
            REFERENCE / f"{k}.png", model_path=deit.path, graph_inputs=deit.inputs, tokenizer=None
        ).feeds["pixel_values"][0]
        for k in range(4)
    ]


@pytest.mark.parametrize("baseline", BASELINES)
def test_the_reference_code(deit: Model, images: list[Array], baseline: str) -> None:
    """Steps and areas; logits, which the shares hide, to the rounding of float32."""
    results = json.loads((REFERENCE / "results.json").read_text())
    expected, first = results["perturbation"], results["predicted_class"]
    maps = np.load(REFERENCE / "perturbation.npz")
    forward = FileForward(deit, "logits")
    logits: list[Array] = []

    def predict(rows: Array) -> Array:
        logits.append(forward({"pixel_values": rows}))
        return logits[-1]

    assert predict(np.stack(images)).argmax(axis=-1).tolist() == first
    black = black_pixel(deit, 3)
    for variant, classes in (("predicted", first), ("target", maps["target"].tolist())):
        logits.clear()
        found = summarise(
            [
                perturb(image, replacement(image, baseline, black), relevance, index, predict)
                for image, relevance, index in zip(
                    images, maps[f"map_{variant}"].astype(np.int8), classes, strict=True
                )
            ]
        )
        name = {"predicted": "top", "target": "target"}[variant] + SUFFIX[baseline]
        for way, area in (("pos", found.positive), ("neg", found.negative)):
            assert area.curve == expected[f"{way}_{name}"]
            assert area.area == pytest.approx(expected[f"{way}_auc_{name}"], abs=1e-12)
            assert area.low <= area.area <= area.high
        if variant == "predicted":
            for way, start in (("pos", 0), ("neg", 1)):
                pairs = zip(logits[start::2], classes, strict=True)
                mean = np.mean([rows[:, index] for rows, index in pairs], axis=0)
                reference = expected[f"{way}_logits{SUFFIX[baseline]}"]
                np.testing.assert_allclose(mean, reference, atol=1e-6)


@settings(max_examples=50)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 1000))
def test_every_step_takes_its_tenth(height: int, width: int, seed: int) -> None:
    pixels = np.ones((3, height, width), np.float32)
    relevance = np.random.default_rng(seed).normal(size=(height, width))
    descending, ascending = orders(relevance)
    count = height * width
    for order, sign in ((descending, 1), (ascending, -1)):
        rows = perturbed(pixels, np.zeros_like(pixels), order)
        assert rows.shape == (9, 3, height, width)
        assert (rows == rows[:, :1]).all()  # all channels at once
        gone = rows[:, 0] == 0
        assert gone.sum(axis=(1, 2)).tolist() == [count * k // 10 for k in range(1, 10)]
        for step in gone:
            taken, left = sign * relevance[step], sign * relevance[~step]
            assert not len(taken) or taken.min() >= left.max()
    assert (pixels == 1).all()


def additive(weights: Array) -> Any:
    """Two classes: the second wins while the weighed pixels sum to more than 0."""

    def predict(rows: Array) -> Array:
        score = (rows[:, 0] * weights).sum(axis=(1, 2))
        return np.stack([np.zeros(len(rows)), score], axis=-1)

    return predict


@settings(max_examples=30)
@given(st.integers(0, 1000))
def test_the_true_weights_order_best(seed: int) -> None:
    generator = np.random.default_rng(seed)
    weights, other = generator.normal(size=(2, 6, 6))
    weights += max(0.1 - weights.mean(), 0)
    pixels, instead = np.ones((1, 6, 6)), np.zeros((1, 6, 6))
    best = perturb(pixels, instead, weights, 1, additive(weights))
    any_ = perturb(pixels, instead, other, 1, additive(weights))
    assert (best.positive <= any_.positive).all()
    assert (best.negative >= any_.negative).all()


@pytest.mark.parametrize("size", [(16, 16), (60, 80)])
def test_means_and_blurs_may_be_taken_behind_normalisation(size: tuple[int, int]) -> None:
    generator = np.random.default_rng(0)
    levels = generator.random((3, *size))
    mean, deviation = generator.random((2, 3, 1, 1)) + 0.5
    black = ((0 - mean) / deviation)[:, 0, 0]
    for baseline in BASELINES:
        before = replacement(levels, baseline, np.zeros(3))
        behind = replacement((levels - mean) / deviation, baseline, black)
        np.testing.assert_allclose(behind, (before - mean) / deviation, atol=1e-12)
    even = replacement(np.ones((3, *size)), "blur", black)
    np.testing.assert_allclose(even, 1)
    with pytest.raises(UsageError, match="white"):
        replacement(levels, "white", black)


def test_the_blur_is_gaussian() -> None:
    point = np.zeros((1, 101, 101))
    point[0, 50, 50] = 1
    row = replacement(point, "blur", np.zeros(1))[0].sum(axis=0)
    assert np.flatnonzero(row).tolist() == list(range(25, 76))
    np.testing.assert_allclose(row[40] / row[50], np.exp(-0.5 * (10 / 20) ** 2))
    np.testing.assert_allclose(row.sum(), 1)


def test_black_is_what_preprocessing_makes_of_it(tmp_path: Path) -> None:
    model = Model.open(DIGITS / "model.onnx")
    Image.new("RGB", (5, 7)).save(tmp_path / "black.png")
    sample = open_sample(
        tmp_path / "black.png", model_path=model.path, graph_inputs=model.inputs, tokenizer=None
    )
    pixels = sample.feeds["pixel_values"]
    np.testing.assert_array_equal(pixels[0, :, 0, 0], black_pixel(model, 3))
    assert np.ptp(pixels) == 0


def test_intervals() -> None:
    always, never = np.ones(9, bool), np.zeros(9, bool)
    found = summarise([Retention(always, never)] * 5)
    assert (found.positive.area, found.positive.low, found.positive.high) == pytest.approx(
        (0.8, 0.8, 0.8)
    )
    assert found.negative.high == 0
    mixed = [Retention(always, never), Retention(never, always)] * 200
    area = summarise(mixed).positive
    assert area.area == pytest.approx(0.4)
    assert area.high - area.low == pytest.approx(2 * 1.96 * 0.4 / 20, rel=0.15)
    assert summarise(mixed).positive == area
    with pytest.raises(InputError):
        summarise([])


def test_shares_of_patches_are_kept() -> None:
    numbers = np.arange(6.0)
    for size in ((4, 6), (5, 7)):  # patches of one size, and of several
        pixels = spread(numbers, (2, 3), size)
        assert pixels.shape == size
        assert pixels.sum() == pytest.approx(numbers.sum())
        assert len(np.unique(pixels[0])) == 3
    even = spread(numbers, (2, 3), (4, 6))
    assert (even[2:, 4:] == 5 / 4).all()


def test_pixel_maps_add_up_to_the_record() -> None:
    model = Model.open(DIGITS / "model.onnx")
    sample = open_sample(
        DIGITS / "sample.png", model_path=model.path, graph_inputs=model.inputs, tokenizer=None
    )
    explainers = {name: Explainer(model, method=name) for name in ("pa-lrp", "attnlrp", "pe-only")}
    for explainer in explainers.values():
        (explanation,) = explainer.explain(sample)
        patches = (
            pixel_map(explanation, explainer.method.ranking).reshape(8, 2, 8, 2).sum(axis=(1, 3))
        )
        score = np.array(explanation.record.relevance.score)
        np.testing.assert_allclose(patches.ravel(), score, atol=1e-5 * abs(score).max())
    maps, index = ComparedMaps(explainers).maps(sample, "pred")
    assert list(maps) == [*explainers, "random"]
    assert index == 3
    np.testing.assert_array_equal(np.sort(maps["random"].ravel()), np.sort(maps["pa-lrp"].ravel()))
    assert (maps["random"] != maps["pa-lrp"]).any()
    with pytest.raises(UsageError, match="no method"):
        ComparedMaps({})


def test_a_model_for_one_image_at_a_time(tmp_path: Path) -> None:
    proto = onnx.load(DIGITS / "model.onnx")
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save(proto, tmp_path / "model.onnx")
    config = "preprocessor_config.json"
    (tmp_path / config).write_bytes((DIGITS / config).read_bytes())
    found = []
    for path in (DIGITS / "model.onnx", tmp_path / "model.onnx"):
        model = Model.open(path)
        sample = open_sample(
            DIGITS / "sample.png", model_path=path, graph_inputs=model.inputs, tokenizer=None
        )
        compared = ComparedMaps({"attnlrp": Explainer(model, method="attnlrp")})
        found.append(evaluate_pixels(compared, [sample], baseline="mean"))
    assert found[0] == found[1]


def test_only_black_needs_the_preprocessing(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes((DIGITS / "model.onnx").read_bytes())
    np.savez(tmp_path / "noise.npz", pixel_values=np.random.default_rng(0).random((1, 3, 16, 16)))
    model = Model.open(tmp_path / "model.onnx")
    sample = open_sample(
        tmp_path / "noise.npz", model_path=model.path, graph_inputs=model.inputs, tokenizer=None
    )
    compared = ComparedMaps({"attnlrp": Explainer(model, method="attnlrp")})
    assert evaluate_pixels(compared, [sample], baseline="blur")["random"].samples == 1
    with pytest.raises(InputError, match="preprocessor_config"):
        evaluate_pixels(compared, [sample], baseline="black")
    with pytest.raises(UsageError, match="not known"):
        replacement(sample.feeds["pixel_values"][0], "black")
