"""Targets, and the places of their multipliers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from building import Array

from palrp_onnx.errors import TargetError
from palrp_onnx.relevance.target import Target, Vector, resolve
from palrp_onnx.relevance.target_parsing import parse_target

pytestmark = pytest.mark.quick

ROW = np.array([0.5, 2.0, -1.0])
TOKENS = np.array([[0.0, 1.0, 2.0, 3.0], [5.0, 1.0, 0.0, 2.0], [0.0, 9.0, 1.0, 1.0]])


@pytest.mark.parametrize(
    ("text", "where", "value", "kind"),
    [
        ("pred", (((1,), 1.0),), 2.0, "index"),
        ("2", (((2,), 1.0),), -1.0, "index"),
        ("-1", (((2,), 1.0),), -1.0, "index"),
        ("0-1", (((0,), 1.0), ((1,), -1.0)), -1.5, "contrast"),
    ],
)
def test_one_row_of_classes(
    text: str, where: tuple[tuple[tuple[int, ...], float], ...], value: float, kind: str
) -> None:
    found = resolve(parse_target(text), ROW, None)
    assert (found.where, found.value, found.kind) == (where, value, kind)
    assert found.predicted == (text == "pred")
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
        ("pred", [1, 2, 0], 1, 0),
        ("pred", [2, 1, 0], 1, 0),
        ("pred", [1, -1, 0], 1, 0),
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


def test_a_mask_of_real_numbers_or_truth_values() -> None:
    for mask in (np.array([0.5, 0.5, 0.0]), np.array([True, True, False])):
        assert resolve(Target("pred"), TOKENS, mask).place == (1,)


def test_an_element_of_many_axes() -> None:
    output = np.arange(8.0).reshape(2, 2, 2)
    found = resolve(parse_target("1,0,-1"), output, None)
    assert (found.kind, found.value, found.place) == ("element", 5.0, (1, 0))


@pytest.mark.parametrize("text", ["pred", "0", "-1"])
def test_an_output_of_one_number(text: str) -> None:
    found = resolve(parse_target(text), np.array(3.0), None)
    assert (found.kind, found.where, found.value) == ("element", (((), 1.0),), 3.0)
    assert found.seed(np.array(3.0)) == 1


def product(
    row: Array, *, cosine: bool = False, position: int | None = None, mask: Array | None = None
) -> Any:
    vector = Vector("v.npy", np.array([1.0, -2.0, 0.5, 4.0])[: row.shape[-1]], "0")
    target = Target("vector", position=position, file="v.npy", cosine=cosine, vector=vector)
    return resolve(target, row, mask), vector.numbers


def test_a_product_with_a_vector() -> None:
    found, v = product(ROW)
    assert (found.kind, found.where) == ("dot", ())
    assert found.value == pytest.approx(v @ ROW)
    assert found.seed(ROW) == pytest.approx(v)


def test_a_cosine_is_the_product_of_the_normalised() -> None:
    found, v = product(ROW, cosine=True)
    assert found.kind == "cosine"
    assert found.value == pytest.approx(v @ ROW / (np.linalg.norm(v) * np.linalg.norm(ROW)))
    assert float(found.seed(ROW) @ ROW) == pytest.approx(found.value)


def test_a_product_at_a_token() -> None:
    last, v = product(TOKENS, mask=np.array([1, 1, 0]))
    assert (last.place, last.value) == ((1,), pytest.approx(v @ TOKENS[1]))
    first, _ = product(TOKENS, position=0)
    seed = first.seed(TOKENS)
    assert seed[0] == pytest.approx(v)
    assert not seed[1:].any()


def test_a_vector_of_another_length() -> None:
    target = Target("vector", file="v.npy", vector=Vector("v.npy", np.ones(2), "0"))
    with pytest.raises(TargetError, match="2 numbers, but the last axis of the output 3"):
        resolve(target, ROW, None)


def test_zeros_have_no_cosine() -> None:
    with pytest.raises(TargetError, match="is zero"):
        product(np.zeros(3), cosine=True)


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
        ("1", np.zeros(())),
        ("pred", np.zeros((0,))),
    ],
)
def test_targets_that_are_not_there(text: str, row: Array) -> None:
    with pytest.raises(TargetError) as caught:
        resolve(parse_target(text), row, None)
    assert caught.value.exit_code == 4
