"""What notebooks show: whole, safe, and readable on light and on dark pages."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest
from loaded import loaded

from palrp_onnx.render.inline import inline
from palrp_onnx.render.palette import contrast

#: A text that would be markup, and characters that would reorder or hide others.
HOSTILE = "A <script>alert(1)</script> film & \"so\" 'good' \u202egniparg\u202c </div><img src=x>"
#: Backgrounds and letters of notebooks: Jupyter's two, and those of VS Code.
PAGES = {
    (255, 255, 255): (0, 0, 0),
    (17, 17, 17): (255, 255, 255),
    (30, 30, 30): (204, 204, 204),
    (31, 31, 31): (204, 204, 204),
}


class Tags(HTMLParser):
    """Collects tags, and texts outside of them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        self.attributes += attrs
        if tag not in ("img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.quick
def test_markup_of_a_text_is_text() -> None:
    tags = Tags(inline(loaded("reviews-rope").explain(HOSTILE).record))
    assert not tags.open
    assert tags.seen <= {"div", "b", "span", "br"}
    assert {name for name, _ in tags.attributes} <= {"style", "title"}
    assert "<script>alert(1)</script> film & \"so\" 'good'" in tags.text
    assert "\u202e" not in tags.text and "‹202E›" in tags.text


def test_nothing_is_loaded() -> None:
    digits = loaded("digits-vit")
    found = digits.explain(str(digits.path.with_name("sample.png")))
    for page in (found._repr_html_(), loaded("reviews-rope").explain("Good.")._repr_html_()):
        assert not re.search(r"https?:|<script|<style|<link|url\(", page)
        assert all(source.startswith("data:") for source in re.findall(r'src="([^"]*)"', page))


def test_every_colour_leaves_letters_readable() -> None:
    page = inline(loaded("reviews-rope").explain("A gripping film, but dull and wooden.").record)
    found = re.findall(r"rgba\((\d+),(\d+),(\d+),([\d.]+)\)", page)
    assert max(float(each[3]) for each in found) == pytest.approx(0.75)
    for red, green, blue, strength in found:
        alpha = float(strength)
        for ground, letters in PAGES.items():
            over = (int(red), int(green), int(blue))
            mixed = [round(alpha * c + (1 - alpha) * g) for c, g in zip(over, ground, strict=True)]
            assert contrast((mixed[0], mixed[1], mixed[2]), letters) >= 4.5, (over, alpha, ground)


def test_warnings_are_shown() -> None:
    record = loaded("reviews-rope").explain("good " * 400).record
    page = inline(record)
    assert "⚠" in page and record.warnings[0].message in Tags(page).text
