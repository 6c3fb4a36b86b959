"""What an explanation says of itself, its words, and its files."""

from __future__ import annotations

import json
import pickle  # noqa: TID251 - other processes pickle explanations; nothing here reads a file
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from committed import MODELS
from loaded import TEXT, loaded
from PIL import Image

import palrp_onnx as px
from palrp_onnx.errors import ResourceError, UsageError

TEXTS = (
    TEXT,
    "Un-be-liev-able! It's   spaced\n\nout, isn't it?",
    "这个电影很好 🎬 naïve café <b>&amp;</b>",
    "...",
)


def explained(text: str = TEXT, name: str = "reviews-rope") -> px.Explanation:
    found = loaded(name).explain(text)
    assert isinstance(found, px.Explanation)
    return found


@pytest.mark.quick
@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("name", ["reviews-rope", "reviews-bert"])
def test_words_are_sums_of_tokens(text: str, name: str) -> None:
    found = explained(text, name)
    units = [unit for word in found.words for unit in word.units]
    assert sorted(units) == list(range(len(found.tokens)))
    for part in ("content", "position", "total", "score"):
        tokens = getattr(found.tokens, part)
        sums = [tokens[list(word.units)].sum() for word in found.words]
        np.testing.assert_allclose(getattr(found.words, part), sums, atol=1e-12)
    for word in found.words:
        if word.start is not None:
            assert text[word.start : word.end].strip() == word.text


def test_arrays_are_those_of_the_record() -> None:
    found = explained()
    for part in ("content", "position", "total"):
        numbers = getattr(found, part)
        assert numbers.tolist() == getattr(found.record.relevance, part)
        assert np.array_equal(getattr(found.units, part), numbers)
    assert found.score.shape == found.total.shape
    assert dict(found.ledger) == found.record.ledger


def test_what_the_model_said() -> None:
    usual = explained()
    assert usual.predicted == usual.target.label == "NEGATIVE"
    assert list(usual.probabilities) == ["NEGATIVE", "POSITIVE"]
    assert sum(usual.probabilities.values()) == pytest.approx(1.0)
    other = loaded("reviews-rope").explain(TEXT, "POSITIVE")
    assert other.predicted == "NEGATIVE" and other.target.label == "POSITIVE"
    assert "the model predicts NEGATIVE" in other._repr_html_()
    assert "the model predicts" not in usual._repr_html_()
    windows = loaded("reviews-rope").explain(" ".join([TEXT] * 40), windows=True)
    assert windows.predicted == windows.target.label


def test_a_notebook_says_what_the_map_covers() -> None:
    assert "of +" in explained()._repr_html_() and "stays in softmax" in explained()._repr_html_()


def test_entries_are_a_sequence() -> None:
    words = explained().words
    assert words[0].special and words[0].text == "[CLS]"
    part = words[2:5]
    assert isinstance(part, px.Entries) and len(part) == 3 and part[0] == words[2]
    assert part == words[2:5] and hash(part) == hash(words[2:5]) and part != list(part)
    assert [each.text for each in words.top(2)] == [
        each.text for each in sorted(words, key=lambda e: -abs(e.total))[:2]
    ]
    strongest, weakest = words.for_(3), words.against(3)
    assert all(each.total > 0 for each in strongest) and strongest[0].total == words.total.max()
    assert all(each.total < 0 for each in weakest) and weakest[0].total == words.total.min()
    assert repr(words[:2]) == f"[{words[0]!r}, {words[1]!r}]"
    assert repr(words).endswith("more]")
    assert "<table" in words._repr_html_()
    assert explained()[1] == explained().units[1] and len(explained()[1:3]) == 2
    assert [each.text for each in explained()] == [each.text for each in explained().units]


def test_units_of_an_image() -> None:
    found = loaded("digits-vit").explain(MODELS / "digits-vit" / "sample.png")
    assert found.grid == (8, 8) and found.total.reshape(found.grid).shape == (8, 8)
    assert found.units.kind == "patch" and found.units.grid == (8, 8)
    assert found.units[9].text == "(1, 1)" and found.units[9].start is None
    with pytest.raises(UsageError, match="a unit is a patch"):
        _ = found.words


def test_text_of_an_explanation_is_one_line() -> None:
    found = explained()
    assert repr(found).count("·") == 2 and "\n" not in repr(found)
    assert repr(found).startswith(f"{found.target.label} {found.target.probability:.3g} · ")
    contrast = loaded("reviews-rope").explain(TEXT, "POSITIVE-NEGATIVE")
    assert repr(contrast).startswith("POSITIVE rather than NEGATIVE ")


@pytest.mark.parametrize("suffix", ["html", "png", "svg", "json", "npz"])
def test_saved_as_the_suffix_says(tmp_path: Path, suffix: str) -> None:
    found = explained()
    place = found.save(str(tmp_path / f"map.{suffix}"))
    assert place == tmp_path / f"map.{suffix}"
    match suffix:
        case "json":
            assert json.loads(place.read_bytes()) == json.loads(json.dumps(found.to_dict()))
        case "npz":
            with np.load(place) as arrays:
                assert sorted(arrays) == sorted(found.tensors)
        case "png":
            assert Image.open(place).format == "PNG"
        case "html" | "svg":
            assert b"gripping" in place.read_bytes()


def test_refused_places(tmp_path: Path) -> None:
    found = explained()
    with pytest.raises(UsageError, match=r"Cannot be written as \.gif"):
        found.save(tmp_path / "map.gif")
    with pytest.raises(px.PalrpError, match="Cannot write"):
        found.save("/dev/null/map.json")
    with pytest.raises(UsageError, match="no raw relevance"):
        px.load_record(found.save(tmp_path / "a.json")).save(tmp_path / "a.npz")
    with pytest.raises(UsageError, match=r"Cannot be written as \.png"):
        px.Explanations([found, found]).save(tmp_path / "a.png")


def test_picture_is_drawn_over_the_image(tmp_path: Path) -> None:
    found = loaded("digits-vit").explain(MODELS / "digits-vit" / "sample.png")
    alone = px.load_record(found.save(tmp_path / "digit.json"))
    sizes = [Image.open(each.save(tmp_path / "digit.png")).size for each in (found, alone)]
    assert sizes[0] != sizes[1] or found.save(tmp_path / "1.png").read_bytes() != (
        alone.save(tmp_path / "2.png").read_bytes()
    )
    assert found._repr_html_().count("<img") == 2 and alone._repr_html_().count("<img") == 1


def test_read_again(tmp_path: Path) -> None:
    found = explained()
    one = px.load_record(found.save(tmp_path / "one.json"))
    assert one.record == found.record and repr(one) == repr(found) and one.words == found.words
    several = px.Explanations([found, found.named("other")])
    both = px.load_record(several.save(tmp_path / "both.json"))
    assert isinstance(both, px.Explanations) and [each.id for each in both] == ["text", "other"]
    lines = b"\n".join(json.dumps(each.to_dict()).encode() for each in several)
    (tmp_path / "run.jsonl").write_bytes(lines)
    assert [each.record for each in px.load_record(tmp_path / "run.jsonl")] == [
        each.record for each in several
    ]
    for name, data in (("none.json", None), ("bad.json", b"{}"), ("worse.json", b"\xff")):
        if data is not None:
            (tmp_path / name).write_bytes(data)
        with pytest.raises(px.PalrpError):
            px.load_record(tmp_path / name)


def test_pickled() -> None:
    for found in (explained(), loaded("digits-vit").explain(MODELS / "digits-vit" / "sample.png")):
        again = pickle.loads(pickle.dumps(found))
        assert again.record == found.record and again.units == found.units
        assert again._repr_html_() == found._repr_html_()
    several = px.Explanations([explained()])
    assert [each.record for each in pickle.loads(pickle.dumps(several))] == [several[0].record]


def test_several() -> None:
    found = explained()
    several = px.Explanations([found] * 12, id="many")
    assert several.id == "many" and len(several[2:5]) == 3 and several[2:5].id == "many"
    assert several._repr_html_().count("<hr>") == 10 and "2 more" in several._repr_html_()
    assert repr(several).count("residual") == 12
    assert len(several.to_dict()) == 12
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = several.nothing


def test_frames() -> None:
    pandas = pytest.importorskip("pandas")
    found = explained()
    frame = found.to_frame()
    assert isinstance(frame, pandas.DataFrame)
    assert frame["total"].tolist() == found.total.tolist()
    assert found.words.to_frame()["text"].tolist() == [each.text for each in found.words]
    both = px.Explanations([found, found]).to_frame()
    assert len(both) == 2 * len(found) and set(both["target"]) == {found.target.label}


def test_frames_need_pandas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ResourceError, match="pandas"):
        explained().to_frame()
    rows: list[dict[str, Any]] = explained().words.to_dicts()
    assert rows[0]["text"] == "[CLS]"
