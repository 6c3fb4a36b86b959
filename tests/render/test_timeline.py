"""Pictures of sound, series, tables and videos: every cell is where its unit is."""

from __future__ import annotations

import io

import numpy as np
import pytest
from markupsafe import escape
from PIL import Image
from recorded import MODEL, RUN

from palrp_onnx.record import (
    Attribution,
    InputFacts,
    Relevance,
    Site,
    TargetFacts,
    Units,
)
from palrp_onnx.render.bars import Bars, strongest
from palrp_onnx.render.film import Film
from palrp_onnx.render.html import render_html
from palrp_onnx.render.page import INNER, MARGIN, WIDTH
from palrp_onnx.render.palette import WHITE, colour
from palrp_onnx.render.png import render_png
from palrp_onnx.render.raster import raster
from palrp_onnx.render.scene import Scene
from palrp_onnx.render.timeline import CELLS, Timeline, draw_signal, in_cells
from palrp_onnx.render.views import views

pytestmark = pytest.mark.quick

VALUES = [1.0, -0.5, 0.25, 0.0]
SHOWN = Relevance(content=VALUES, position=[0.0] * 4, total=VALUES[::-1], score=VALUES)


def record(units: Units, values: list[float]) -> Attribution:
    sums = dict.fromkeys(("bias", "norm", "softmax", "other", "segment", "position"), 0.0)
    return Attribution(
        id="x",
        model=MODEL,
        run=RUN,
        input=InputFacts(kind="tensors"),
        target=TargetFacts(output="y", kind="class", index=1, value=1.0),
        units=units,
        relevance=Relevance(content=values, position=values, total=values, score=values),
        sites=[Site(name="site/0/table", kind="learned", layer=0, part="table", relevance=values)],
        ledger={"target": 1.0, "content": 1.0, **sums, "residual": 0.0, "residual_relative": 0.0},
        warnings=[],
    )


def drawn(block: Timeline | Bars | Film) -> Image.Image:
    page = Scene()
    block.draw(page, 0)
    return raster(page, (WIDTH, block.height))


def test_units_in_time_are_from_left_to_right() -> None:
    units = Units(kind="frame", step=0.02)
    page = drawn(Timeline(views(SHOWN, 1.0), units, 1, None))
    room = INNER - 130
    for row, values in enumerate((SHOWN.total, SHOWN.content, SHOWN.position)):
        for k, value in enumerate(values):
            at = (MARGIN + 130 + round((k + 0.5) * room / 4), row * 36 + 15)
            assert page.getpixel(at) == colour(value, 1.0)


@pytest.mark.parametrize("step", [None, 0.25])
def test_more_units_than_cells_are_added_up(step: float | None) -> None:
    numbers = np.random.default_rng(0).normal(size=3 * CELLS - 7)
    whole = record(Units(kind="frame", step=step), numbers.tolist()).maps[0]
    cells, each = in_cells(whole)
    assert each == 3 and len(cells.relevance.total) <= CELLS
    assert sum(cells.relevance.total) == pytest.approx(numbers.sum())
    assert cells.relevance.content[1] == pytest.approx(numbers[3:6].sum())
    assert cells.sites[0].relevance == cells.relevance.total
    assert cells.units.name(2) == ("frames 6 to 8" if step is None else "1.50 s")
    assert in_cells(whole, len(numbers)) == (whole, 1)


def test_low_frequencies_are_at_the_bottom() -> None:
    series = np.zeros((30, 8))
    series[10:20, 0] = 1.0  # in the middle third, the lowest
    picture = np.asarray(draw_signal(series, "frame").convert("L"), np.float64)
    height, width = picture.shape
    dark = picture < 128
    assert dark[-height // 10 :, width * 4 // 9 : width * 5 // 9].all()
    assert not dark[: height // 2].any() and not dark[:, : width // 4].any()


@pytest.mark.parametrize("channels", [1, 3, 9])
def test_curves_of_every_number_of_channels(channels: int) -> None:
    series = np.random.default_rng(1).normal(size=(50, channels))
    assert len(np.unique(np.asarray(draw_signal(series, "step")).reshape(-1, 3), axis=0)) > 2


def test_bars_are_on_the_side_of_their_sign() -> None:
    units = Units(kind="column", text=["a", "b", "c", "d"])
    page = np.asarray(drawn(Bars(views(SHOWN, 1.0), units)), np.int64)
    room = (INNER - 210 - 48) // 4
    middle = MARGIN + 210 + (room - 76) // 2
    for row, value in enumerate(SHOWN.total):
        line = page[30 + row * 24 + 12]
        left, right = line[middle - 25], line[middle + 12]
        assert (left[2] > left[0] + 20) == (value < -0.4)
        assert (right[0] > right[2] + 20) == (value > 0.2)


def test_only_the_strongest_of_many_columns_have_bars() -> None:
    values = list(map(float, range(100)))
    many = Relevance(content=values, position=values, total=values, score=values)
    assert strongest(many.total) == list(range(60, 100))
    assert Bars(views(many, 1.0), Units(kind="column")).height == 30 + 41 * 24


def test_pictures_of_a_video_are_next_to_each_other() -> None:
    values = [1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -1.0]
    shown = Relevance(content=values, position=values, total=values, score=values)
    film = Film(views(shown, 1.0), (4, 2), 2)
    page = drawn(film)
    width = film._width
    first, second = MARGIN + 130, MARGIN + 130 + width + 8
    assert page.getpixel((first + 3, 3)) == colour(1.0, 1.0)
    assert page.getpixel((second + width - 3, film._height - 3)) == colour(-1.0, 1.0)
    assert page.getpixel((second + 3, 3)) == WHITE


NAMES = {
    Units(kind="frame", step=0.02).name(7): "0.14 s",
    Units(kind="frame", step=1 / 16000).name(8): "0.001 s",
    Units(kind="step").name(3): "step 3",
    Units(kind="column", text=["age"]).name(0): "age",
    Units(kind="node").name(2): "node 2",
    Units(kind="patch", grid=(4, 3)).name(5): "(1, 2)",
    Units(kind="patch", grid=(4, 3), pictures=2).name(7): "picture 1 (0, 1)",
}


@pytest.mark.parametrize("name", NAMES)
def test_names(name: str) -> None:
    assert name == NAMES[name]


@pytest.mark.parametrize(
    "units",
    [
        Units(kind="frame", step=0.02),
        Units(kind="step"),
        Units(kind="column", text=["<b>", "b", "c", "d"]),
        Units(kind="node"),
        Units(kind="patch", grid=(4, 1), pictures=2),
    ],
    ids=lambda units: units.kind,
)
def test_every_kind_has_a_picture_and_a_page(units: Units) -> None:
    each = record(units, VALUES)
    assert render_png(each) == render_png(each)
    assert Image.open(io.BytesIO(render_png(each))).width == WIDTH
    page = render_html(each).decode()
    for name in ("content", "position", "total"):
        assert page.count(f'class="cells" data-map="{name}"') == 1
    for unit in range(4):
        assert escape(units.name(unit)) in page


def test_many_frames_have_one_page() -> None:
    values = np.random.default_rng(2).normal(size=3 * CELLS).tolist()
    each = record(Units(kind="frame", step=0.01), values)
    image = draw_signal(np.random.default_rng(3).normal(size=(3 * CELLS, 1)), "frame")
    assert "a cell is the sum of 3 frames" in render_html(each, image=image).decode()
    assert render_png(each, image=image)
