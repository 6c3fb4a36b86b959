"""Segmentation, against the numbers of the reference code, scikit-learn, and by its own laws."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from committed import GOLDEN
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from sklearn.metrics import average_precision_score

from palrp_onnx.errors import InputError
from palrp_onnx.evaluate.masks import align, read_mask
from palrp_onnx.evaluate.segmentation import average_precision, judge, summarise
from palrp_onnx.inputs import ImageGeometry
from palrp_onnx.types import Box

pytestmark = pytest.mark.quick

REFERENCE = GOLDEN / "palrp_vision_eval"
Array = NDArray[Any]


@pytest.mark.parametrize("method", ["pe_only", "ours"])
def test_the_reference_code(method: str) -> None:
    """Maps are float32, as there: 1 − map makes ties that float64 has not."""
    stored = np.load(REFERENCE / "segmentation.npz")
    maps = stored[method]
    assert maps.dtype == np.float32
    judged = [judge(*pair) for pair in zip(maps, stored["masks"].astype(int), strict=False)]
    for k, found in enumerate(judged):
        counts = stored[f"{method}_pixel_correct_labeled"][k].tolist()
        assert [found.correct, found.labelled] == counts
        inter_union = [found.intersection, found.union]
        np.testing.assert_array_equal(inter_union, stored[f"{method}_inter_union"][k])
        assert found.precision == pytest.approx(stored[f"{method}_ap"][k], abs=1e-12)


def test_the_reference_codes_figures() -> None:
    stored = np.load(REFERENCE / "segmentation.npz")
    masks = stored["masks"].astype(int)
    found = summarise([judge(*pair) for pair in zip(stored["pe_only"], masks, strict=True)])
    printed = json.loads((REFERENCE / "results.json").read_text())["segmentation"]["pe_only"]
    assert found.samples == 4
    for figure, name, factor in (
        (found.pixel_accuracy, "Pixel Accuracy", 100),
        (found.mean_iou, "mIoU", 1),
        (found.mean_ap, "mAP", 1),
    ):
        assert f"{factor * figure.value:.4f}" == printed[name]
        assert figure.low < figure.value < figure.high


@given(
    st.lists(
        st.tuples(st.booleans(), st.sampled_from([0.0, 0.1, 0.25, 0.5, 1.0]) | st.floats(-3, 3)),
        min_size=1,
        max_size=60,
    ).filter(lambda pairs: any(truth for truth, _ in pairs))
)
def test_average_precision(pairs: list[tuple[bool, float]]) -> None:
    truth, scores = np.array([t for t, _ in pairs]), np.array([s for _, s in pairs])
    expected = average_precision_score(truth, scores)
    assert average_precision(truth, scores) == pytest.approx(expected, abs=1e-12)


def test_right_and_wrong_maps() -> None:
    labels = np.zeros((6, 8), int)
    labels[2:4, 3:6] = 1
    right = summarise([judge(labels * 5.0, labels)])
    assert (right.pixel_accuracy.value, right.mean_iou.value, right.mean_ap.value) == (1, 1, 1)
    wrong = summarise([judge(-labels * 5.0, labels)])
    assert (wrong.pixel_accuracy.value, wrong.mean_iou.value) == (0, 0)
    flat = judge(np.ones((6, 8)), labels)  # no contrast: all is background
    assert (flat.correct, flat.union.tolist()) == (42, [48, 6])


def test_ignored_pixels_are_not_judged() -> None:
    generator = np.random.default_rng(0)
    relevance, labels = generator.random((6, 8)), generator.integers(0, 2, (6, 8))
    labels[:, :3] = -1
    relevance[:, :3] += 0.7
    found = judge(relevance, labels)
    assert found.labelled == 30
    guess = relevance[:, 3:] > relevance.mean()  # the threshold is of the whole map
    assert found.correct == (guess == labels[:, 3:]).sum()
    assert found.union.tolist() == [
        (~guess | (labels[:, 3:] == 0)).sum(),
        (guess | (labels[:, 3:] == 1)).sum(),
    ]
    with pytest.raises(InputError, match="ignored"):
        judge(relevance, np.full((6, 8), -1))
    with pytest.raises(InputError, match="finite"):
        judge(np.full((6, 8), np.nan), labels)


def test_counts_are_pooled() -> None:
    """A large image counts for more than a small one, except for the mean of precisions."""
    large, small = np.zeros((10, 10), int), np.zeros((1, 2), int)
    large[:5], small[0, 0] = 1, 1
    judged = [judge(large.astype(float), large), judge(1.0 - small, small)]
    found = summarise(judged)
    assert found.pixel_accuracy.value == pytest.approx(100 / 102)
    assert found.mean_iou.value == pytest.approx(50 / 52)
    assert found.mean_ap.value == pytest.approx(np.mean([j.precision for j in judged]))
    assert summarise(judged) == found
    with pytest.raises(InputError):
        summarise([])


def test_maps_are_stretched_over_the_whole_mask() -> None:
    relevance = np.arange(4.0)[None] + np.zeros((2, 1))
    mask = np.zeros((4, 8), int)
    larger, same = align(relevance, mask, None)
    np.testing.assert_allclose(larger[0], [0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3])
    assert same.shape == (4, 8)
    untouched, _ = align(relevance, np.zeros((2, 4), int), None)
    np.testing.assert_array_equal(untouched, relevance)


def test_what_a_crop_took_away_is_not_judged() -> None:
    relevance = np.arange(16.0).reshape(4, 4)
    mask = np.arange(32).reshape(4, 8)
    seen, part = align(relevance, mask, ImageGeometry(size=(8, 4), box=Box(2, 0, 6, 4)))
    np.testing.assert_array_equal(seen, relevance)
    np.testing.assert_array_equal(part, mask[:, 2:6])
    # The crop was padded: the map reaches beyond the picture.
    seen, part = align(relevance, mask, ImageGeometry(size=(8, 4), box=Box(0, -2, 8, 6)))
    np.testing.assert_array_equal(part, mask)
    np.testing.assert_allclose(seen[:, 0] // 4 * 4, [4, 4, 8, 8][: len(seen)], atol=4)
    with pytest.raises(InputError, match="whole picture"):
        align(relevance, mask, ImageGeometry(size=(8, 8), box=Box(0, 0, 8, 8)))


def test_masks_from_files(tmp_path: Path) -> None:
    levels = np.array([[0, 1], [7, 255]], np.uint8)
    grey, palette = Image.fromarray(levels), Image.fromarray(levels, mode="P")
    palette.putpalette([200, 0, 0] * 256)
    for name, image in (("grey", grey), ("palette", palette)):
        image.save(tmp_path / f"{name}.png")
        assert read_mask(tmp_path / f"{name}.png").tolist() == [[0, 1], [1, 1]]
        ignoring = read_mask(tmp_path / f"{name}.png", ignored=255)
        assert ignoring.tolist() == [[0, 1], [1, -1]]
    grey.point(lambda level: level > 5 and 255).convert("1").save(tmp_path / "bits.png")
    assert read_mask(tmp_path / "bits.png").tolist() == [[0, 0], [1, 1]]
    grey.convert("RGB").save(tmp_path / "colour.png")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    for name, message in (("colour", "mode RGB"), ("broken", "readable"), ("none", "be read")):
        with pytest.raises(InputError, match=message):
            read_mask(tmp_path / f"{name}.png")
