"""Places of points and marks in a plane."""

from __future__ import annotations

import pytest

from palrp_onnx.render.scatter import HEIGHT, WIDTH, scatter

pytestmark = pytest.mark.quick


def test_points_are_placed_in_proportion() -> None:
    made = scatter("t", ("x", "y"), [(0.0, 0.0, "a", False), (5.0, 1.0, "b", True),
                                     (10.0, 2.0, "c", False)])  # fmt: skip
    (first, middle, last) = made.dots
    assert (middle.x, middle.y) == (WIDTH / 2, HEIGHT / 2)
    assert 0 < first.x < last.x < WIDTH
    assert 0 < last.y < first.y < HEIGHT  # upwards
    assert middle.other
    assert all(0 <= at <= WIDTH for at, _ in made.x_marks)
    assert made.diagonal is None


def test_equal_axes_have_a_diagonal() -> None:
    made = scatter("t", ("x", "y"), [(1.0, -1.0, "a", False)], same_axes=True)
    assert made.diagonal == (0.0, HEIGHT, WIDTH, 0.0)


@pytest.mark.parametrize("value", [0.0, 3.0, -2.0])
def test_one_number_is_in_the_middle(value: float) -> None:
    (dot,) = scatter("t", ("x", "y"), [(value, value, "a", False)]).dots
    assert (dot.x, dot.y) == (WIDTH / 2, HEIGHT / 2)
