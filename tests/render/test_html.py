"""Pages: they hold what the record holds, load nothing, and show hostile text as text."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import zlib
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from recorded import MODEL, RUN

from palrp_onnx.errors import InputError
from palrp_onnx.record import (
    Attribution,
    Candidate,
    Check,
    InputFacts,
    Map,
    Prediction,
    Relevance,
    Site,
    TargetFacts,
    Units,
    Warning_,
)
from palrp_onnx.render.account import account_of
from palrp_onnx.render.facts import answers, verdicts
from palrp_onnx.render.flow import paragraphs, visible, words
from palrp_onnx.render.html import render_html, shades
from palrp_onnx.render.layers import positions
from palrp_onnx.render.listing import render_run
from palrp_onnx.render.markup import digits
from palrp_onnx.render.palette import TABLE, colours
from palrp_onnx.render.run_lines import FailedRecord, ListedRecord, read_run
from palrp_onnx.types import Box

pytestmark = pytest.mark.quick

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(1)> \"'&\0\u202e\u2028\x1b"
VOID = {"meta", "img", "input", "br"}


def record(
    units: Units, values: list[float], text: str | None = None, **changes: Any
) -> Attribution:
    facts: dict[str, Any] = {
        "id": "x",
        "model": MODEL,
        "run": RUN,
        "input": InputFacts(kind="text", text=text),
        "target": TargetFacts(output="logits", kind="class", index=1, value=2.0, label="POSITIVE"),
        "units": units,
        "relevance": Relevance(
            content=values,
            position=[abs(v) / 3 for v in values],
            total=[v / 0.7 for v in values],
            score=[2 * abs(v) for v in values],
        ),
        "sites": [
            Site(name="site/0/cos", kind="rope", layer=0, part="cos", relevance=values),
            Site(name="site/1/cos", kind="rope", layer=1, part="cos", relevance=values[::-1]),
        ],
        "ledger": {"target": 2.0, "content": 1.25, "position": -0.5, "segment": 0.0, "bias": 0.0,
                   "norm": 0.0, "softmax": 0.0, "other": 0.0, "rounding": 1.25, "residual": 0.0,
                   "residual_relative": 1e-9},
        "warnings": [],
    }  # fmt: skip
    return Attribution(**(facts | changes))


def tokens(text: str, *pieces: str, special: tuple[int, ...] = ()) -> Units:
    """Pieces where they stand in the text; special ones stand nowhere."""
    start, end, done = [], [], 0
    for place, piece in enumerate(pieces):
        done = done if place in special else text.index(piece, done)
        start.append(0 if place in special else done)
        done += 0 if place in special else len(piece)
        end.append(0 if place in special else done)
    return Units(
        kind="token",
        text=list(pieces),
        id=[0] * len(pieces),
        start=start,
        end=end,
        special=[place in special for place in range(len(pieces))],
    )


TEXT = "A dull harbour,\nsaid one; don't go!"
PIECES = ("[CLS]", "A", "dull", "ha", "rb", "our", ",", "said", "one", ";", "don", "'", "t", "go",
          "!", "[SEP]")  # fmt: skip
UNITS = tokens(TEXT, *PIECES, special=(0, 15))
VALUES = [0.1, 1 / 3, -0.25, 0.7, -1e-9, 0.0, 1e3 / 7, 2.0, -3.0, 0.5, 0.1, 0.2, 0.3, -0.9, 1, 1e4]
PATCHES = Units(kind="patch", grid=(2, 3))


class Page(HTMLParser):
    """What a browser would see: tags with their attributes, text, and that tags close."""

    def __init__(self, data: bytes | str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(data.decode() if isinstance(data, bytes) else data)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] == "script":
            self.scripts[-1] += data
        elif not self._open or self._open[-1] != "style":
            self.text += data

    def having(self, name: str, value: str) -> list[dict[str, str | None]]:
        return [attrs for _, attrs in self.tags if value in (attrs.get(name) or "").split()]

    def data(self, number: int = 0) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.scripts[0])["maps"][number]
        return found


def unpacked(page: Page) -> list[Page]:
    packed = [text for text in page.scripts[:-1] if not text.startswith("{")]
    return [Page(zlib.decompress(base64.b64decode(text)).decode()) for text in packed]


def test_numbers_are_the_record_s() -> None:
    made = record(UNITS, VALUES, TEXT)
    page = Page(render_html(made))
    data = page.data()
    assert data["content"] == made.relevance.content
    assert data["position"] == made.relevance.position
    assert data["total"] == made.relevance.total
    assert data["sites"] == [site.relevance for site in made.sites]
    assert page.text.count("+142.857") == 1  # content in the table: 1e3 / 7
    assert "+204.082" in page.text
    assert "−0.357143" in page.text
    for shown in ("+1.25", "−0.5", "62.5 %", "rounding", "residual: 1.0e-09"):
        assert shown in page.text


def test_same_record_same_bytes() -> None:
    made = record(UNITS, VALUES, TEXT)
    assert render_html(made) == render_html(made)


def test_nothing_is_loaded_and_only_the_script_runs() -> None:
    image = Image.new("RGB", (30, 20), (9, 90, 200))
    for data in (
        render_html(record(UNITS, VALUES, TEXT)),
        render_html(record(PATCHES, VALUES[:6]), image=image),
        render_run("run", [ListedRecord("a:1", record(UNITS, VALUES, TEXT))]).html,
    ):
        page = Page(data)
        for _, attrs in page.tags:
            assert (attrs.get("src") or "data:image/png").startswith("data:image/png")
            assert (attrs.get("href") or "#").startswith("#")
            assert not any(name.startswith("on") for name in attrs)
        assert b"http:" not in data
        assert b"https:" not in data
        policy = next(a["content"] or "" for _, a in page.tags if "http-equiv" in a)
        digest = base64.b64encode(hashlib.sha256(page.scripts[-1].encode()).digest()).decode()
        assert "default-src 'none'" in policy
        assert "img-src data:;" in policy
        assert f"script-src 'sha256-{digest}'" in policy
        assert "connect-src" not in policy


def test_words_are_there_without_script() -> None:
    made = record(UNITS, VALUES, TEXT)
    page = Page(render_html(made))
    flow = words(paragraphs(UNITS, made.input))
    sums = [sum(made.relevance.total[piece.unit] for piece in word) for word in flow]
    limit = page.data()["word_limit"]
    assert limit == max(sums[:-1])  # the special token does not set the scale
    shown = page.having("class", "w")
    for attrs, shade in zip(shown, shades(sums, limit), strict=True):
        assert f"k{shade}" in (attrs["class"] or "").split()
    tokens = page.having("class", "u")
    assert [attrs["data-u"] for attrs in tokens] == [str(unit) for unit in range(len(VALUES))]
    assert len(page.having("class", "over")) == 1
    assert all("hidden" in attrs for attrs in page.having("class", "controls"))


def test_shades_are_the_palette_s() -> None:
    values = [-3.0, -1.0, -0.5, -1e-3, 0.0, 1e-3, 0.25, 1.0, 7.0]
    for limit in (0.0, 1.0):
        assert (TABLE[shades(values, limit)] == colours(values, limit)).all()


def test_words() -> None:
    flow = paragraphs(UNITS, InputFacts(kind="text", text=TEXT))
    joined = ["".join(piece.text for piece in word) for word in words(flow)]
    assert joined == ["[CLS]", "A", "dull", "harbour", ",", "said", "one", ";", "don't", "go", "!",
                      "[SEP]"]  # fmt: skip
    shown = "".join(
        item if isinstance(item, str) else "".join(p.text for p in item) for item in flow[0]
    )
    assert TEXT in shown
    limit = Page(render_html(record(UNITS, VALUES, TEXT))).data()["word_limit"]
    assert limit == pytest.approx(1e3 / 7 / 0.7)


@pytest.mark.parametrize("text", ["这部电影真是太精彩了", "とても良い", "ภาพยนตร์ดี"])
def test_scripts_without_blanks_are_not_one_word(text: str) -> None:
    pieces = [text[:2], text[2:3], text[3:]]
    flow = paragraphs(tokens(text, *pieces), InputFacts(kind="text", text=text))
    assert [len(word) for word in words(flow)] == [1, 1, 1]


def test_bytes_of_one_character_are_one_word() -> None:
    units = Units(
        kind="token", text=["a", "ð", "Ł"], id=[1, 2, 3], start=[0, 2, 2], end=[1, 3, 3],
        special=[False] * 3,
    )  # fmt: skip
    flow = paragraphs(units, InputFacts(kind="text", text="a 🙂!"))
    assert [[p.text for p in word] for word in words(flow)] == [["a"], ["🙂", "·"]]
    assert flow[0][-1] == "!"  # no unit covers it


def test_pair_stands_in_two_paragraphs() -> None:
    units = Units(
        kind="token", text=["[CLS]", "Who", "[SEP]", "Jane", "[SEP]"], id=[0] * 5,
        start=[0, 0, 0, 0, 0], end=[0, 3, 0, 4, 0], special=[True, False, True, False, True],
        sequence=[0, 0, 0, 1, 1],
    )  # fmt: skip
    flow = paragraphs(units, InputFacts(kind="text", text="Who?", text_pair="Jane!"))
    shown = [
        "".join(i if isinstance(i, str) else "".join(p.text for p in i) for i in paragraph)
        for paragraph in flow
    ]
    assert [text.split() for text in shown] == [
        ["[CLS]", "Who", "[SEP]", "?"],
        ["Jane", "[SEP]", "!"],
    ]


def test_special_tokens_do_not_set_the_direction() -> None:
    units = tokens("שלום", "[CLS]", "שלום", special=(0,))
    page = Page(render_html(record(units, [1.0, 2.0], "שלום")))
    assert [attrs["dir"] for _, attrs in page.tags if "dir" in attrs] == ["auto", "ltr"]


def test_hidden_characters_show() -> None:
    assert visible("a\0b\u202e\u2066\u200b\ufeff") == "a‹0000›b‹202E›‹2066›‹200B›‹FEFF›"
    assert visible("a\u200db") == "a‹200D›b"
    assert visible("می\u200cخواهم 👩\u200d👧") == "می\u200cخواهم 👩\u200d👧"


def hostile() -> Attribution:
    units = tokens(HOSTILE, HOSTILE[:9], HOSTILE[9:40], HOSTILE[40:])
    made = record(units, [1.0, -2.0, 3.0], HOSTILE, id=HOSTILE)
    return msgspec.structs.replace(
        made,
        target=TargetFacts(output=HOSTILE, kind="class", index=0, value=1.0, label=HOSTILE),
        model=msgspec.structs.replace(made.model, producer=HOSTILE),
        run=msgspec.structs.replace(made.run, params={HOSTILE: HOSTILE, "positions": HOSTILE}),
        sites=[msgspec.structs.replace(site, kind=HOSTILE, part=HOSTILE) for site in made.sites],
        ledger=made.ledger | {HOSTILE: 1.0},
        warnings=[Warning_(code=HOSTILE, message=HOSTILE)],
    )


def test_hostile_text_stays_text() -> None:
    plain = record(tokens("a b c", "a", "b", "c"), [1.0, -2.0, 3.0], "a b c")
    failed = FailedRecord(HOSTILE, HOSTILE)
    run = render_run(HOSTILE, [ListedRecord(HOSTILE, hostile()), ListedRecord(HOSTILE, failed)])
    for data in (render_html(hostile()), run.html):
        assert not any(character in data.decode() for character in "\0\u202e\u2028\x1b")
        page = Page(data)
        assert "alert(1)" in page.text
        assert not any("onerror" in attrs for _, attrs in page.tags)
        assert all("alert" not in script for script in page.scripts)
    named = Page(render_html(hostile())).tags
    assert {tag for tag, _ in named} <= {tag for tag, _ in Page(render_html(plain)).tags} | {
        "ul", "li", "strong", "button"
    }  # fmt: skip
    (detail,) = unpacked(Page(run.html))
    assert not any("onerror" in attrs for _, attrs in detail.tags)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.text(max_size=20), min_size=1, max_size=8), st.data())
def test_any_offsets_can_be_drawn(pieces: list[str], data: st.DataObject) -> None:
    text = "".join(pieces)
    place = st.lists(st.integers(0, len(text)), min_size=len(pieces), max_size=len(pieces))
    start, end = data.draw(place), data.draw(place)
    units = Units(
        kind="token", text=pieces, id=[0] * len(pieces), start=start, end=end,
        special=[False] * len(pieces),
    )  # fmt: skip
    page = Page(render_html(record(units, [1.0] * len(pieces), text)))
    assert len(page.having("class", "u")) == len(pieces)


def test_long_token() -> None:
    text = "ab" * 50_000
    data = render_html(record(tokens(text, text), [1.0], text))
    page = Page(data)
    assert text in page.text
    assert "(100000 characters)" in page.text
    assert len(data) < 200_000


def test_tokens_without_text_are_numbered() -> None:
    page = Page(render_html(record(Units(kind="token"), [1.0, -1.0, 0.0])))
    assert len(page.having("class", "u")) == 3


def test_picture_and_its_map() -> None:
    image = Image.new("RGB", (40, 20), (9, 90, 200))
    values = [0.0, 1.0, -2.0, 0.5, 0.0, 0.0]
    page = Page(render_html(record(PATCHES, values), image=image, box=Box(10, 0, 30, 20)))
    (ground,) = page.having("class", "ground")
    assert opened(ground).getpixel((3, 3)) == (9, 90, 200)
    (field,) = page.having("class", "field")
    assert "left:25.0000%;top:0.0000%;width:50.0000%;height:100.0000%" in str(field["style"])
    assert [attrs["data-map"] for _, attrs in page.tags if "data-map" in attrs] == [
        "total", "content", "position", "score"
    ]  # fmt: skip
    drawn = opened(next(attrs for _, attrs in page.tags if attrs.get("data-map") == "content"))
    assert (drawn.mode, drawn.size) == ("RGBA", (3, 2))
    alpha, limit = drawn.getchannel("A"), page.data()["limit"]
    nothing, half, full = (alpha.getpixel((column, 0)) for column in range(3))
    assert (nothing, half, full) == (0, round(255 / limit), round(510 / limit))
    assert page.data()["columns"] == 3
    assert "(1, 2)" in page.text


def test_map_without_picture() -> None:
    values = [0.0, 1.0, -2.0, 0.5, 0.0, 0.0]
    made = record(PATCHES, values)
    page = Page(render_html(made))
    assert "holds no pixels" in page.text
    assert page.having("class", "ground") == []
    drawn = opened(next(attrs for _, attrs in page.tags if attrs.get("data-map") == "total"))
    expected = colours(made.relevance.total, page.data()["limit"])
    assert np.asarray(drawn).reshape(-1, 3).tolist() == expected.tolist()


def test_every_input_has_its_map() -> None:
    patches = [0.0, 1.0, -2.0, 0.5, 0.0, 0.0]
    other = record(PATCHES, patches)
    second = Map(input="pixels", units=PATCHES, relevance=other.relevance, sites=other.sites)
    made = record(UNITS, VALUES, TEXT, input_name="words", others=[second])
    page = Page(render_html(made))
    assert page.data(0)["total"] == made.relevance.total
    assert page.data(1)["total"] == second.relevance.total
    assert page.data(1)["columns"] == 3
    assert [a["data-n"] for a in page.having("class", "map")] == ["0", "1"]
    assert [a["data-n"] for a in page.having("class", "panel")] == ["0", "1"]
    assert "Positions: pixels" in page.text
    assert "words" in page.text


def opened(attrs: dict[str, str | None]) -> Image.Image:
    _, _, data = str(attrs["src"]).partition("base64,")
    return Image.open(io.BytesIO(base64.b64decode(data)))


def test_run_lists_everything(tmp_path: Path) -> None:
    made = record(UNITS, VALUES, TEXT)
    lines = [
        msgspec.json.encode(made),
        b'{"id": "bad", "error": {"code": "input", "message": "not UTF-8"}}',
        b"",
        b'{"half": ',
        b'{"id": "worse", "error": "gone"}',
    ]
    (tmp_path / "part-1.jsonl").write_bytes(b"\n".join(lines))
    (tmp_path / "part-2.jsonl").write_bytes(
        msgspec.json.encode(msgspec.structs.replace(made, id="last")) + b"\n"
    )
    run = render_run("run", read_run(tmp_path))
    assert (run.records, run.failed, run.packed) == (5, 3, 2)
    page = Page(run.html)
    rows = [attrs for tag, attrs in page.tags if tag == "tr" and "data-n" in attrs]
    assert [attrs.get("class") for attrs in rows] == [None, "failed", "failed", "failed", None]
    for said in ("not UTF-8", "part-1.jsonl:4", "no record: ", "gone", "last"):
        assert said in page.text
    details = unpacked(page)
    assert [detail.data()["total"] for detail in details] == [made.relevance.total] * 2
    links = [attrs["href"] for tag, attrs in page.tags if tag == "a"]
    assert links[:2] == ["#record-1", "#record-5"]


def test_parts_are_read_in_order_and_any_line_is_listed(tmp_path: Path) -> None:
    for name in ("part-99999", "part-100000"):
        (tmp_path / f"{name}.jsonl").write_bytes(b'{"id": "%b", "error": "e"}\n' % name.encode())
    deep = b'{"schema":' + b"[" * 100_000
    (tmp_path / "part-99998.jsonl").write_bytes(b"\xff\xfe\n" + deep + b"\n[]\n")
    entries = list(read_run(tmp_path))
    assert [entry.record.id for entry in entries] == [
        "part-99998.jsonl:1", "part-99998.jsonl:2", "part-99998.jsonl:3", "part-99999",
        "part-100000",
    ]  # fmt: skip
    assert render_run("run", entries).failed == 5


def test_inconsistent_records_are_listed_as_failed(tmp_path: Path) -> None:
    good = json.loads(msgspec.json.encode(record(UNITS, VALUES, TEXT)))
    faults: list[tuple[tuple[str, ...], Any]] = [
        (("relevance", "content"), [1.0]),
        (("units", "special"), [True]),
        (("units", "text"), ["a"]),
        (("units", "grid"), [2, 2]),
        (("ledger",), {"target": 1.0}),
    ]
    lines = []
    for (*path, last), value in faults:
        changed = json.loads(json.dumps(good))
        inner = changed
        for name in path:
            inner = inner[name]
        inner[last] = value
        lines.append(json.dumps(changed))
    (tmp_path / "run.jsonl").write_text("\n".join([*lines, json.dumps(good)]))
    entries = list(read_run(tmp_path / "run.jsonl"))
    run = render_run("run", entries)
    assert (run.records, run.failed) == (6, 5)
    said = [entry.record.error for entry in entries if isinstance(entry.record, FailedRecord)]
    for text, word in zip(said, ("content", "special", "text", "2 × 2", "ledger"), strict=True):
        assert word in text


def test_full_page_says_what_it_leaves_out() -> None:
    made = record(UNITS, VALUES, TEXT)
    entries = [ListedRecord(f"run.jsonl:{n}", made) for n in range(1, 6)]
    run = render_run("run", entries, room=0)
    assert (run.records, run.packed) == (5, 0)
    page = Page(run.html)
    assert "Maps of 5 records are not in this page" in page.text
    assert "run.jsonl:5" in page.text


def test_json_files_and_nothing(tmp_path: Path) -> None:
    made = msgspec.json.encode(record(UNITS, VALUES, TEXT))
    (tmp_path / "one.json").write_bytes(made)
    (tmp_path / "two.json").write_bytes(b"[" + made + b"," + made + b"]")
    assert len(list(read_run(tmp_path / "one.json"))) == 1
    assert len(list(read_run(tmp_path / "two.json"))) == 2
    (tmp_path / "broken.json").write_bytes(b"{")
    for place in (tmp_path, tmp_path / "none.jsonl", tmp_path / "broken.json"):
        with pytest.raises(InputError):
            list(read_run(place))
    with pytest.raises(InputError):
        render_run("empty", [])


def test_strongest_are_listed_by_total() -> None:
    made = record(UNITS, VALUES, TEXT)
    page = Page(render_html(made))
    rows = [attrs["data-units"] for attrs in page.having("data-units", "13")]
    assert rows == ["13"]  # "go"
    listed = [attrs["data-units"] for _, attrs in page.tags if "data-units" in attrs]
    assert listed[:2] == ["15", "6"]  # the special token, then the comma
    assert listed[-3:] == ["8", "13", "2"]  # against: the most negative first


def test_the_bar_of_the_ledger_ends_at_the_target() -> None:
    made = record(UNITS, VALUES, TEXT)
    account = account_of(made)
    assert account is not None
    sizes = [part.width for part in account.parts]
    assert sum(sizes) == pytest.approx(100)
    # 1.25 and 1.25 (rounding) for the target of 2, 0.5 against it
    assert account.zero == pytest.approx(100 * 0.5 / 3)
    assert account.target == pytest.approx(100 * 2.5 / 3)
    assert [part.place for part in account.parts] == ["content", "position", "rest"]
    against = account.parts[1]
    assert (against.left, against.width) == (pytest.approx(0), pytest.approx(account.zero))
    empty = msgspec.structs.replace(made, ledger=dict.fromkeys(made.ledger, 0.0))
    assert account_of(empty) is None


def test_a_layer_is_the_sum_of_its_sites() -> None:
    made = record(UNITS, VALUES, TEXT)
    found = positions(made.maps[0])
    assert found is not None
    total = digits(sum(VALUES))
    assert [layer["value"] for layer in found["layers"]] == [total, total]
    assert [layer["label"] for layer in found["layers"]] == ["layer 0, rope", "layer 1, rope"]
    assert found["source"]
    tiles = positions(record(PATCHES, VALUES[:6]).maps[0])
    assert tiles is not None
    assert tiles["source"] is None
    assert all(site["tile"] for site in tiles["sites"])


def test_facts_that_are_not_there_are_not_shown() -> None:
    page = Page(render_html(record(UNITS, VALUES, TEXT)))
    assert "UNSET" not in page.text
    assert "files" not in page.text


def test_pictures_of_a_film_stand_next_to_each_other() -> None:
    units = Units(kind="patch", grid=(10, 2), pictures=5)
    page = Page(render_html(record(units, [float(k) for k in range(20)])))
    data = page.data()
    assert data["columns"] == 8  # four pictures of two columns
    rows = np.reshape(data["order"], (-1, 8)).tolist()
    assert rows == [
        [0, 1, 4, 5, 8, 9, 12, 13], [2, 3, 6, 7, 10, 11, 14, 15],
        [16, 17, -1, -1, -1, -1, -1, -1], [18, 19, -1, -1, -1, -1, -1, -1],
    ]  # fmt: skip
    drawn = opened(next(attrs for _, attrs in page.tags if attrs.get("data-map") == "total"))
    assert drawn.size == (8, 4)


def test_the_header_says_what_the_model_said_and_who_says_so() -> None:
    top = [
        Candidate(index=0, value=3.0, label="NEGATIVE", probability=0.75),
        Candidate(index=1, value=2.0, label="POSITIVE", probability=0.25),
    ]
    made = record(
        UNITS, VALUES, TEXT,
        prediction=Prediction(index=0, value=3.0, label="NEGATIVE", probability=0.75, top=top),
        checks=[Check(check="residual>1e-3", passed=True, found=1e-9),
                Check(check="probability<0.5", passed=False, found=0.25)],
        run=msgspec.structs.replace(RUN, runtime="1.2.3", date="2020-01-02T03:04:05Z"),
        model=msgspec.structs.replace(MODEL, name="reviews.onnx"),
    )  # fmt: skip
    first, second = answers(made)
    assert (first.name, first.value, first.share, first.explained) == (
        "NEGATIVE",
        "0.75",
        0.75,
        False,
    )
    assert second.explained
    text = Page(render_html(made)).text
    for shown in ("reviews.onnx 000000000000", "ONNX Runtime 1.2.3", "2020-01-02T03:04:05Z",
                  "explained here", "fails if residual>1e-3; it is 1e-09",
                  "fails if probability<0.5; it is 0.25"):  # fmt: skip
        assert shown in text
    assert verdicts(made) == [("fails if residual>1e-3; it is 1e-09", True),
                              ("fails if probability<0.5; it is 0.25", False)]  # fmt: skip
    assert answers(record(UNITS, VALUES, TEXT)) == []
