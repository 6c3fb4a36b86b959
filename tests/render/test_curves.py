"""Curves: the same bytes each time, a line of its own for every method, where its numbers say."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from palrp_onnx.render.curves import COLOURS, Chart, pieces, render_curves, style, ticks
from palrp_onnx.render.page import WIDTH
from palrp_onnx.render.palette import WHITE, contrast

pytestmark = pytest.mark.quick

SHARES = np.linspace(0, 1, 11).tolist()


def charts(methods: int = 3) -> list[Chart]:
    lines = {f"method {k}": [0.1 * k + 0.5 * x for x in SHARES] for k in range(methods)}
    return [Chart("generation", "tokens put in", lines), Chart("pruning", "taken out", lines)]


def drawn(given: list[Chart]) -> Image.Image:
    data = render_curves("Perturbation", "8 texts", SHARES, given, "mean evidence")
    assert data == render_curves("Perturbation", "8 texts", SHARES, given, "mean evidence")
    return Image.open(io.BytesIO(data))


def rows(page: Image.Image, colour: tuple[int, int, int], column: int) -> list[int]:
    """Rows of a column that have a colour, above the legend."""
    found = np.all(np.asarray(page)[:-60, column] == colour, axis=-1)
    return np.flatnonzero(found).tolist()


def test_lines_are_where_their_numbers_say() -> None:
    page = drawn(charts())
    assert (page.format, page.width) == ("PNG", WIDTH)
    for column in (200, 800):  # of the left chart and of the right
        heights = [np.mean(rows(page, COLOURS[k], column)) for k in range(3)]
        assert heights[0] > heights[1] > heights[2]  # a larger number is higher up
        assert heights[0] - heights[1] == pytest.approx(heights[1] - heights[2], abs=1.5)
    assert np.mean(rows(page, COLOURS[0], 150)) > np.mean(rows(page, COLOURS[0], 500))  # it rises


def test_both_charts_have_one_scale() -> None:
    left, right = charts(1)
    other = Chart(right.title, right.label, {"method 0": [1.0 + x for x in SHARES]})
    page = drawn([left, other])
    assert min(rows(page, COLOURS[0], 500)) > max(rows(page, COLOURS[0], 700))


def test_flat_lines_and_many_methods() -> None:
    flat = Chart("flat", "nothing", {f"m{k}": [0.0] * 11 for k in range(20)})
    one_row = Chart("flat", "nothing", {"m0": [0.0] * 11})
    assert drawn([flat]).height > drawn([one_row]).height  # the legend takes several rows


def test_styles_differ_and_show_on_white() -> None:
    styles = [style(k) for k in range(4 * len(COLOURS))]
    assert len(set(styles)) == len(styles)
    assert min(contrast(colour, WHITE) for colour in COLOURS) > 2
    distances = [abs(np.subtract(a, b)).sum() for a in COLOURS for b in COLOURS if a != b]
    assert min(distances) > 80


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.5, 0.97, [0.5, 0.6, 0.7, 0.8, 0.9, 1.0]),
        (0.0, 1.0, [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (-3.0, 12.0, [-5.0, 0.0, 5.0, 10.0, 15.0]),
        (0.0, 0.0, [0.0, 0.2]),
    ],
)
def test_ticks(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high) == pytest.approx(expected)


def test_dashes_go_on_around_corners() -> None:
    corner = [(0.0, 0.0), (10.0, 0.0), (10.0, 10.0)]
    assert list(pieces(corner, (1, 0))) == [corner]
    cut = list(pieces(corner, (6, 2)))
    assert cut[:3] == [[(0, 0), (6, 0)], [(8, 0), (10, 0)], [(10, 0), (10, 4)]]
    lengths = [abs(a - x) + abs(b - y) for (x, y), (a, b) in cut]
    assert sum(lengths) == 6 + 6 + 4
