"""A continued text as a picture and a page: every number is there, hostile text included."""

from __future__ import annotations

import io
import re
from typing import Any

import numpy as np
import pytest
from msgspec import UNSET, structs
from PIL import Image
from recorded import MODEL, RUN

from palrp_onnx.matrix import Matrix, TokenRows, json_schema
from palrp_onnx.record import InputFacts, TargetFacts, Units, Warning_
from palrp_onnx.render.grid import render_matrix_html, render_matrix_png, render_matrix_svg
from palrp_onnx.render.page import INNER, MARGIN, WIDTH
from palrp_onnx.render.palette import colour
from palrp_onnx.render.scale import number

pytestmark = pytest.mark.quick


def rows(lengths: list[int], seed: int = 0) -> TokenRows:
    draw = np.random.default_rng(seed)
    parts = {
        name: [draw.normal(size=length).tolist() for length in lengths]
        for name in ("content", "position", "total", "score")
    }
    return TokenRows(**parts)


def matrix(read: int, produced: list[str], start: list[str] | None, **changes: Any) -> Matrix:
    count, begun = len(produced), len(start or ())
    found = Matrix(
        id="s",
        model=MODEL,
        run=RUN,
        input=InputFacts(kind="text", text="t"),
        prompt=Units(kind="token", text=[f"u{k}" for k in range(read)]),
        produced=Units(kind="token", text=produced),
        targets=[
            TargetFacts(output="y", kind="token", index=k, value=1.5, probability=0.5)
            for k in range(count)
        ],
        relevance=rows([read] * count),
        earlier=rows([begun + k for k in range(count)], seed=1),
        ledgers=[{"target": 1.5, "residual_relative": 1e-7}] * count,
        warnings=[Warning_(code="w", message="<b>&")],
        start=UNSET if start is None else Units(kind="token", text=start),
    )
    return structs.replace(found, **changes)


def drawn(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data)).convert("RGB")


@pytest.mark.parametrize("start", [None, ["<s>", "de"]])
@pytest.mark.parametrize("read", [1, 5, 40, 700])
def test_every_size_is_drawn_alike_each_time(read: int, start: list[str] | None) -> None:
    found = matrix(read, ["a", " b", "c"], start)
    data = render_matrix_png(found)
    assert data == render_matrix_png(found)
    assert drawn(data).width == WIDTH
    assert render_matrix_html(found) == render_matrix_html(found)


def test_cells_have_the_colours_of_their_numbers() -> None:
    found = matrix(3, ["a", "b"], ["<s>"])
    colours = {
        tuple(int(v) for v in pixel)
        for pixel in np.unique(np.asarray(drawn(render_matrix_png(found))).reshape(-1, 3), axis=0)
    }
    parts = ("content", "position", "total")
    read = [row for name in parts for row in getattr(found.relevance, name)]
    earlier = [row for name in parts for row in getattr(found.earlier, name)]
    # What the decoder begins with does not set the scale of its tokens.
    limits = [max(abs(v) for row in rows for v in row) for rows in (read, [r[1:] for r in earlier])]
    for side, limit in zip((read, earlier), limits, strict=True):
        for value in (v for row in side for v in row):
            assert colour(value, limit) in colours


def test_the_page_has_every_number_and_no_markup_of_strangers() -> None:
    hostile = "<script>alert(1)</script>"
    found = matrix(2, [hostile, "b"], ["x"], id=hostile)
    text = render_matrix_html(found).decode()
    assert hostile not in text
    titles = re.findall(r'<td class="k\d+[^"]*" title="([^"]+)">', text)
    expected = [
        number(value)
        for name in ("total", "content", "position")
        for one, other in zip(
            getattr(found.relevance, name), getattr(found.earlier, name), strict=True
        )
        for value in [*one, *other]
    ]
    assert titles == expected


def test_many_tokens_have_a_picture_of_bounded_height() -> None:
    found = matrix(20, [f"t{k}" for k in range(300)], ["x"])
    image = drawn(render_matrix_png(found))
    assert image.height < 14_500
    shades = {shade for _, shade in image.getcolors(10**6) or []}
    assert colour(1.0, 1.0) in shades or colour(-1.0, 1.0) in shades
    assert render_matrix_svg(found).count(b"<image ") == 2 * 3 + 2


def test_patches_have_rows_and_columns() -> None:
    found = matrix(4, ["a"], ["x"], prompt=Units(kind="patch", grid=(2, 2)))
    assert "1,0" in render_matrix_html(found).decode()


def test_zeros_are_white() -> None:
    zero = TokenRows(content=[[0.0]], position=[[0.0]], total=[[0.0]], score=[[0.0]])
    nothing = TokenRows(content=[[]], position=[[]], total=[[]], score=[[]])
    data = render_matrix_png(matrix(1, ["a"], None, relevance=zero, earlier=nothing))
    assert drawn(data).size[0] == INNER + 2 * MARGIN


def test_the_schema_is_that_of_the_class() -> None:
    schema = json_schema()
    assert schema["title"] == "palrp-onnx/generation/2.0"
    assert "Matrix" in schema["$defs"]
