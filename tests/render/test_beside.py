"""Pages of one, a few and many records."""

from __future__ import annotations

import msgspec
import pytest
from shown import explained

from palrp_onnx.render.beside import MOST, render_records
from palrp_onnx.render.html import render_html

pytestmark = pytest.mark.quick


def test_a_page_suits_its_records() -> None:
    one, other = (explained("reviews-rope", target)[0] for target in ("0", "1"))
    assert render_records("t", [one], [{}]) == render_html(one)
    both = render_records("t", [one, other], [{}, {}]).decode()
    assert both.count('<article class="record"') == 2
    assert 'class="list"' not in both
    assert "<title>t</title>" in both


def test_inputs_are_told_apart_by_text_or_by_what_the_model_said() -> None:
    one, other = (explained("reviews-rope", target)[0] for target in ("0", "1"))
    renamed = msgspec.structs.replace(other, id="another name")
    assert 'class="beside"' in render_records("t", [one, renamed], [{}, {}]).decode()
    first, second = (explained("digits-vit", target)[0] for target in ("0", "1"))
    renamed = msgspec.structs.replace(second, id="another name")
    assert 'class="beside"' in render_records("t", [first, renamed], [{}, {}]).decode()


def test_many_records_and_those_of_other_inputs_are_listed() -> None:
    one = explained("reviews-rope")[0]
    text = msgspec.structs.replace(one.input, text=f"{one.input.text} ")
    other = msgspec.structs.replace(one, input=text)
    for records in ([one, other], [one] * (MOST + 1)):
        html = render_records("t", records, [{}] * len(records)).decode()
        assert html.count('id="packed-') == len(records)
