"""The targets that texts name, and which texts are ambiguous."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palrp_onnx.errors import TargetError
from palrp_onnx.relevance.target import Target
from palrp_onnx.relevance.target_parsing import parse_target, parse_targets

pytestmark = pytest.mark.quick

LABELS = {0: "NEGATIVE", 1: "very-good", 2: "good", 3: "very", 4: "3", 5: "B-PER", 6: "I-PER"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("pred", Target("pred")),
        ("1", Target("index", 1)),
        ("-1", Target("index", -1)),
        ("0-2", Target("contrast", 0, 2)),
        ("-1-0", Target("contrast", -1, 0)),
        ("1--2", Target("contrast", 1, -2)),
        ("-1--2", Target("contrast", -1, -2)),
        ("token:3", Target("token", None, position=3)),
        ("token:-1", Target("token", None, position=-1)),
        ("token:3:77", Target("token", 77, position=3)),
        ("1,2", Target("element", element=(1, 2))),
        ("0,-1,5", Target("element", element=(0, -1, 5))),
        ("negative", Target("index", 0)),
        ("NEGATIVE", Target("index", 0)),
        ("label:very-good", Target("index", 1)),
        ("very-good-good", Target("contrast", 1, 2)),
        ("good-very-good", Target("contrast", 2, 1)),
        ("very-very-good", Target("contrast", 3, 1)),
        ("B-PER-I-PER", Target("contrast", 5, 6)),
        ("good-0", Target("contrast", 2, 0)),
        ("good - negative", Target("contrast", 2, 0)),
        ("index:3", Target("index", 3)),
        ("index:-1", Target("index", -1)),
        ("label:3", Target("index", 4)),
        ("label:Very-Good", Target("index", 1)),
        ("label:very-index:3", Target("contrast", 3, 3)),
        ("index:0--1", Target("contrast", 0, -1)),
        ("index:pred", Target("pred")),
        ("element:1,2", Target("element", element=(1, 2))),
        ("element:1", Target("element", element=(1,))),
        ("answer", Target("answer")),
        ("answer:start", Target("answer", end="start")),
        ("answer:end", Target("answer", end="end")),
        ('answer:"10 \\"m\\", start"', Target("answer", at='10 "m", start')),
        ("dot:a.npy", Target("vector", file="a.npy")),
        ("cos:/b c/a-b.npy", Target("vector", file="/b c/a-b.npy", cosine=True)),
        ("dot:C:a.npy:-2", Target("vector", position=-2, file="C:a.npy")),
    ],
)
def test_every_form(text: str, expected: Target) -> None:
    assert parse_target(text, LABELS) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nobody",
        "token:",
        "1,",
        ",",
        "a-b",
        "1.5",
        "-",
        "index:",
        "index:x",
        "label:nobody",
        "dot:",
        "good,",
        "good,,very",
        "good,nobody",
        "--" * 1000,
        "," * 1000,
        "9" * 19,
        f"index:{'9' * 30}",
        f"token:{'9' * 30}",
        f"token:0:{'9' * 30}",
        f"element:0,{'9' * 30}",
        f"0,{'9' * 30}",
        f"dot:a.npy:{'9' * 30}",
        "²",
        "index:٣",
        "0,٣",
    ],
)
def test_what_is_no_target(text: str) -> None:
    with pytest.raises(TargetError, match="There is no target") as caught:
        parse_target(text, LABELS)
    assert caught.value.exit_code == 4
    assert "very-good" in caught.value.hint


def test_a_target_that_is_too_long() -> None:
    with pytest.raises(TargetError, match="at most"):
        parse_targets("good," * 10_000, LABELS)


def test_labels_need_a_model_that_has_them() -> None:
    with pytest.raises(TargetError, match="no labels"):
        parse_target("good")


STARS = {0: "1", 1: "2", 2: "3"}
TOXIC = {0: "non-toxic", 1: "toxic", 2: "toxic-non-toxic"}
TWICE = {0: "A", 1: "A", 2: "B"}
SIGNS = {0: "-1", 1: "0", 2: "1"}
KEYWORDS = {0: "pred", 1: "all", 2: "1,2"}


@pytest.mark.parametrize(
    ("labels", "text", "forms"),
    [
        (LABELS, "very-good", ["label:very-good", "label:very-label:good"]),
        (STARS, "1", ["index:1", "label:1"]),
        (STARS, "2", ["index:2", "label:2"]),
        (STARS, "2-3", ["index:2-label:3", "label:2-label:3"]),
        (SIGNS, "-1", ["index:-1", "label:-1"]),
        (TOXIC, "toxic-non-toxic", ["label:toxic-non-toxic", "label:toxic-label:non-toxic"]),
        (TWICE, "A", ["index:0", "index:1"]),
        (TWICE, "label:a", ["index:0", "index:1"]),
        (TWICE, "A-B", ["index:0-label:B", "index:1-label:B"]),
        (KEYWORDS, "pred", ["label:pred", "index:pred"]),
        (KEYWORDS, "all", ["label:all", "index:all"]),
        (KEYWORDS, "1,2", ["label:1,2", "element:1,2"]),
        ({0: "a", 1: "b", 2: "a,b"}, "a,b", ["label:a,b", "label:a,label:b"]),
        ({0: "a,b", 1: "c", 2: "a", 3: "b,c"}, "a,b,c", ["label:a,label:b,c"]),
        ({0: "a", 1: "b-c", 2: "a-b", 3: "c"}, "a-b-c", ["label:a-label:b-c", "label:a-b-label:c"]),
    ],
)
def test_what_can_be_read_in_several_ways(
    labels: dict[int, str], text: str, forms: list[str]
) -> None:
    """Both readings are named, and the forms offered can be read in one way, the one meant."""
    with pytest.raises(TargetError, match="is ambiguous") as caught:
        parse_targets(text, labels)
    offered = caught.value.hint.removeprefix("Use ").removesuffix(".").split(" or ")
    assert set(forms) <= set(offered)
    meant = [parse_targets(form, labels) for form in offered]
    assert len(set(meant)) == len(meant)


@pytest.mark.parametrize(
    ("labels", "text", "expected"),
    [
        ({0: "2", 1: "1", 2: "0"}, "1", Target("index", 1)),
        ({0: "a", 1: "-1"}, "-1", Target("index", -1)),
        (STARS, "0", Target("index", 0)),
        (STARS, "index:1", Target("index", 1)),
        (STARS, "label:1", Target("index", 0)),
        (STARS, "index:1-index:2", Target("contrast", 1, 2)),
        (STARS, "label:1-label:2", Target("contrast", 0, 1)),
        (TWICE, "A-A", None),
        (TWICE, "index:0-B", Target("contrast", 0, 2)),
        (TOXIC, "non-toxic-toxic", Target("contrast", 0, 1)),
        ({0: "Cat", 1: "cat"}, "cat", Target("index", 1)),
        ({0: "Cat", 1: "cat"}, "CAT", None),
        ({0: "index:1", 1: "b"}, "index:1", Target("index", 1)),
        ({0: "index:1", 1: "b"}, "label:index:1", Target("index", 0)),
    ],
)
def test_one_meaning_or_none(labels: dict[int, str], text: str, expected: Target | None) -> None:
    if expected is not None:
        assert parse_target(text, labels) == expected
        return
    with pytest.raises(TargetError, match="ambiguous"):
        parse_target(text, labels)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("negative,good", [Target("index", 0), Target("index", 2)]),
        ("good , 0", [Target("index", 2), Target("index", 0)]),
        ("pred,good-very", [Target("pred"), Target("contrast", 2, 3)]),
        ("index:0,index:1", [Target("index", 0), Target("index", 1)]),
        ("index:0,1", [Target("index", 0), Target("index", 1)]),
        (
            "dot:a.npy,cos:b.npy:0",
            [
                Target("vector", file="a.npy"),
                Target("vector", position=0, file="b.npy", cosine=True),
            ],
        ),
        ("all", [Target("all")]),
        ("index:all", [Target("all")]),
        ("good", [Target("index", 2)]),
    ],
)
def test_several_targets(text: str, expected: list[Target]) -> None:
    assert list(parse_targets(text, LABELS)) == expected


def test_labels_with_commas() -> None:
    labels = {0: "tench, Tinca tinca", 1: "goldfish, Carassius auratus", 2: "hen"}
    assert parse_targets("tench, Tinca tinca", labels) == (Target("index", 0),)
    assert parse_targets("hen,goldfish, Carassius auratus", labels) == (
        Target("index", 2),
        Target("index", 1),
    )
    contrast = "tench, Tinca tinca-goldfish, Carassius auratus"
    assert parse_targets(contrast, labels) == (Target("contrast", 0, 1),)
    assert parse_targets(f"hen,{contrast}", labels)[1] == Target("contrast", 0, 1)


@pytest.mark.parametrize("text", ["all", "good,very", "index:0,index:1"])
def test_where_one_target_is_expected(text: str) -> None:
    with pytest.raises(TargetError, match="several targets where one is expected"):
        parse_target(text, LABELS)


def test_a_member_of_a_list_may_be_ambiguous() -> None:
    with pytest.raises(TargetError, match="'1' is ambiguous"):
        parse_targets("label:2,1", STARS)


LETTERS = st.text(alphabet="ab1-,: ", max_size=6)


@given(st.lists(LETTERS, min_size=1, max_size=5), LETTERS)
def test_whatever_the_labels_are(names: list[str], text: str) -> None:
    """Numbers and unique labels always have a form; every form offered has one meaning."""
    labels = dict(enumerate(names))
    for index, name in labels.items():
        assert parse_target(f"index:{index}", labels) == Target("index", index)
        if [n.strip() for n in names].count(name.strip()) == 1:
            assert parse_target(f"label:{name}", labels) == Target("index", index)
    for asked in (text, *names):
        try:
            parse_targets(asked, labels)
        except TargetError as error:
            if "ambiguous" not in error.message:
                continue
            offered = error.hint.removeprefix("Use ").removesuffix(".").split(" or ")
            meant = [parse_targets(form, labels) for form in offered]
            assert len(set(meant)) == len(meant) > 1
