"""The rule that chooses a method, on numbers whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from palrp_onnx.errors import InputError, UsageError
from palrp_onnx.evaluate.choice import FEW, choose

HIGHER = {"area": True, "error": False}


def values(shift: float, spread: float, count: int = 60) -> dict[str, np.ndarray]:
    """Three methods; the second has more area and less error than the first by ``shift``."""
    generator = np.random.default_rng(0)
    base = generator.normal(size=(count, 2))

    def noisy() -> np.ndarray:
        return base + spread * generator.normal(size=base.shape)

    return {
        "a": noisy(),
        "b": noisy() + shift * np.array([1, -1]),
        "c": noisy() + np.array([-3, 3]),
    }


def test_what_is_ahead_input_by_input_is_chosen_clearly() -> None:
    """Differences far smaller than the spread over inputs are seen, because they are paired."""
    found = choose(values(0.05, 0.01), HIGHER)
    assert (found.best, found.certainty, found.sure) == ("b", "clear", 1.0)
    assert (found.level, found.ahead, found.samples) == ([], {}, 60)
    assert list(found.methods) == ["b", "a", "c"]
    assert [each.rank for each in found.methods.values()] == [1.0, 2.0, 3.0]
    difference = found.methods["a"].behind["error"]
    assert difference.low < difference.value < difference.high < 0
    assert difference.value == pytest.approx(-0.05, abs=0.01)
    assert sum(each.chosen for each in found.methods.values()) == pytest.approx(1)


def test_equal_methods_are_level_and_the_first_is_chosen() -> None:
    same = values(0.0, 0.0)
    found = choose(same, HIGHER)
    assert (found.best, found.level) == ("a", ["b"])
    assert found.methods["a"].rank == found.methods["b"].rank == 1.5
    assert choose(values(0.0, 1.0), HIGHER).certainty != "clear"


def test_a_method_may_be_chosen_and_behind_in_a_measure() -> None:
    given = {name: np.column_stack([own, own[:, 0]]) for name, own in values(0.5, 0.01).items()}
    found = choose(given, {**HIGHER, "other": False})
    assert found.best == "b"
    assert found.ahead == {"other": ["a", "c"]}


def test_few_inputs_are_never_clear() -> None:
    assert choose(values(5.0, 0.01, FEW - 1), HIGHER).certainty == "likely"
    assert choose(values(5.0, 0.01, FEW), HIGHER).certainty == "clear"


def test_too_little_to_choose_from() -> None:
    with pytest.raises(UsageError):
        choose({"a": np.zeros((3, 2))}, HIGHER)
    for count in (0, 1):
        with pytest.raises(InputError, match=f"there are {count}"):
            choose({"a": np.zeros((count, 2)), "b": np.ones((count, 2))}, HIGHER)
