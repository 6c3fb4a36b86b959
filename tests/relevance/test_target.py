"""What can be asked for, and where its multiplier is."""

from __future__ import annotations

import numpy as np
import pytest
from building import Array

from palrp_onnx.errors import TargetError
from palrp_onnx.relevance.target import Target, parse_target, resolve

LABELS = {0: "NEGATIVE", 1: "very-good", 2: "good", 3: "very", 4: "3", 5: "B-PER", 6: "I-PER"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("pred", Target("pred")),
        ("1", Target("index", 1)),
        ("-1", Target("index", -1)),
        ("0-2", Target("contrast", 0, 2)),
        ("-1-0", Target("contrast", -1, 0)),
        ("1--2", Target("contrast", 1, -2)),
        ("-1--2", Target("contrast", -1, -2)),
        ("token:3", Target("token", None, position=3)),
        ("token:-1", Target("token", None, position=-1)),
        ("token:3:77", Target("token", 77, position=3)),
        ("1,2", Target("element", element=(1, 2))),
        ("0,-1,5", Target("element", element=(0, -1, 5))),
        ("negative", Target("index", 0)),
        ("NEGATIVE", Target("index", 0)),
        ("very-good", Target("index", 1)),
        ("very-good-good", Target("contrast", 1, 2)),
        ("good-very-good", Target("contrast", 2, 1)),
        ("very-very-good", Target("contrast", 3, 1)),
        ("B-PER-I-PER", Target("contrast", 5, 6)),
        ("good-0", Target("contrast", 2, 0)),
        ("good - negative", Target("contrast", 2, 0)),
        ("3", Target("index", 4)),
    ],
)
def test_every_form(text: str, expected: Target) -> None:
    assert parse_target(text, LABELS) == expected


@pytest.mark.parametrize("text", ["", "nobody", "token:", "token:x", "1,", ",", "a-b", "1.5", "-"])
def test_what_is_no_target(text: str) -> None:
    with pytest.raises(TargetError, match="There is no target") as caught:
        parse_target(text, LABELS)
    assert caught.value.exit_code == 4
    assert "very-good" in caught.value.hint


def test_labels_need_a_model_that_has_them() -> None:
    with pytest.raises(TargetError, match="no labels"):
        parse_target("good")


def softmax(logits: Array, index: int) -> float:
    return float(np.exp(logits[index]) / np.exp(logits).sum())


ROW = np.array([0.5, 2.0, -1.0])
TOKENS = np.array([[0.0, 1.0, 2.0, 3.0], [5.0, 1.0, 0.0, 2.0], [0.0, 9.0, 1.0, 1.0]])


@pytest.mark.parametrize(
    ("text", "where", "value", "kind"),
    [
        ("pred", (((1,), 1.0),), 2.0, "class"),
        ("2", (((2,), 1.0),), -1.0, "class"),
        ("-1", (((2,), 1.0),), -1.0, "class"),
        ("0-1", (((0,), 1.0), ((1,), -1.0)), -1.5, "contrast"),
    ],
)
def test_one_row_of_classes(
    text: str, where: tuple[tuple[tuple[int, ...], float], ...], value: float, kind: str
) -> None:
    found = resolve(parse_target(text), ROW, None)
    assert (found.where, found.value, found.kind) == (where, value, kind)
    assert found.probability == pytest.approx(softmax(ROW, where[0][0][0]))
    seed = found.seed(ROW)
    assert float((seed * ROW).sum()) == pytest.approx(value)


@pytest.mark.parametrize(
    ("text", "mask", "place", "index"),
    [
        ("pred", None, 2, 1),
        ("pred", [1, 1, 0], 1, 0),
        ("pred", [0, 1, 0], 1, 0),
        ("pred", [0, 0, 0], 2, 1),
        ("pred", [1, 0, 1, 1], 2, 1),
        ("3", [1, 1, 0], 1, 3),
        ("token:0", [1, 1, 0], 0, 3),
        ("token:-1", None, 2, 1),
        ("token:0:2", None, 0, 2),
        ("0,3", None, 0, 3),
        ("-2,-1", None, 1, 3),
    ],
)
def test_one_row_of_tokens(text: str, mask: list[int] | None, place: int, index: int) -> None:
    """The position named, else the last unmasked one; a mask of another length says nothing."""
    found = resolve(parse_target(text), TOKENS, None if mask is None else np.array(mask))
    assert found.where == (((place, index), 1.0),)
    assert found.value == TOKENS[place, index]


def test_a_contrast_of_tokens_is_at_one_position() -> None:
    found = resolve(parse_target("3-0"), TOKENS, None)
    assert found.where == (((2, 3), 1.0), ((2, 0), -1.0))
    assert found.seed(TOKENS).sum() == 0


def test_a_class_against_itself_is_nothing() -> None:
    assert not resolve(parse_target("1-1"), ROW, None).seed(ROW).any()


def test_elements_have_no_probability() -> None:
    output = np.arange(8.0).reshape(2, 2, 2)
    found = resolve(parse_target("1,0,-1"), output, None)
    assert (found.kind, found.value, found.probability) == ("element", 5.0, None)


@pytest.mark.parametrize(
    ("text", "row"),
    [
        ("3", ROW),
        ("-4", ROW),
        ("0-3", ROW),
        ("token:0", ROW),
        ("token:3", TOKENS),
        ("token:0:4", TOKENS),
        ("0,0", ROW),
        ("3,0", TOKENS),
        ("0,0,0", TOKENS),
        ("pred", np.zeros((2, 2, 2))),
        ("1", np.zeros((2, 2, 2))),
        ("pred", np.zeros(())),
        ("pred", np.zeros((0,))),
    ],
)
def test_targets_that_are_not_there(text: str, row: Array) -> None:
    with pytest.raises(TargetError) as caught:
        resolve(parse_target(text), row, None)
    assert caught.value.exit_code == 4


def test_probability_is_the_value_of_a_distribution() -> None:
    row = np.array([0.2, 0.7, 0.1], np.float32)
    assert resolve(parse_target("pred"), row, None).probability == pytest.approx(0.7)


def test_probability_of_one_logit_is_unknown() -> None:
    assert resolve(parse_target("pred"), np.array([3.0]), None).probability is None


def test_probability_of_large_logits_is_finite() -> None:
    row = np.array([1e4, -1e4, 0.0], np.float32)
    assert resolve(parse_target("pred"), row, None).probability == 1.0
