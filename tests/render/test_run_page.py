"""The page of a run: what it says as a whole, filters, mini-maps, several sources."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from recorded import MODEL, RUN

from palrp_onnx.record import (
    Attribution,
    InputFacts,
    Prediction,
    Relevance,
    TargetFacts,
    Units,
    Warning_,
)
from palrp_onnx.render.listing import render_run
from palrp_onnx.render.mini import mini_map
from palrp_onnx.render.run_facets import facets_of, meta_traits
from palrp_onnx.render.run_lines import ListedRecord, read_runs
from palrp_onnx.render.run_summary import RunSummary

pytestmark = pytest.mark.quick

LEDGER = {"target": 2.0, "content": 1.25, "position": 0.75, "segment": 0.0, "bias": 0.0,
          "norm": 0.0, "softmax": 0.0, "other": 0.0, "residual": 0.0,
          "residual_relative": 0.0}  # fmt: skip


def said(words: str, values: list[float], label: str, chance: float, **changes: Any) -> Attribution:
    """A text whose words are its tokens."""
    pieces = words.split()
    start = [words.index(piece) for piece in pieces]
    units = Units(
        kind="token", text=pieces, id=[0] * len(pieces), start=start,
        end=[at + len(piece) for at, piece in zip(start, pieces, strict=True)],
        special=[False] * len(pieces),
    )  # fmt: skip
    facts: dict[str, Any] = {
        "id": words, "model": MODEL, "run": RUN, "input": InputFacts(kind="text", text=words),
        "target": TargetFacts(output="logits", kind="class", index=0, value=2.0, label=label,
                              probability=chance),
        "units": units, "sites": [], "ledger": LEDGER, "warnings": [],
        "relevance": Relevance(content=values, position=[0.0] * len(values), total=values,
                                score=values),
    }  # fmt: skip
    return Attribution(**(facts | changes))


GOOD = said("A good film", [0.25, 2.0, -0.5], "POSITIVE", 0.95)
BAD = said("good but dull", [-1.0, 0.5, 3.0], "NEGATIVE", 1.0)
AGAIN = said("good Good", [1.0, 2.0], "POSITIVE", 0.55)


def test_counts_of_a_run() -> None:
    summary = RunSummary()
    for each in (GOOD, BAD, AGAIN):
        summary.add(each)
    ((name, bars, further),) = summary.classes  # nothing else was predicted
    assert (name, further) == ("target", 0)
    assert [(bar.name, bar.count, bar.share) for bar in bars] == [
        ("POSITIVE", 2, 1.0), ("NEGATIVE", 1, 0.5)
    ]  # fmt: skip
    assert [bar.count for bar in summary.probabilities] == [0, 0, 0, 0, 0, 1, 0, 0, 0, 2]
    assert summary.models.total() == 3
    positive, negative = summary.words
    assert positive.plus == [("good", 5.0, 3), ("a", 0.25, 1)]
    assert positive.minus == [("film", -0.5, 1)]
    assert negative.plus[0] == ("dull", 3.0, 1)
    assert negative.minus == [("good", -1.0, 1)]


def test_strongest_words_are_ordered_by_size() -> None:
    assert RunSummary().add(GOOD) == [("good", 2.0), ("film", -0.5), ("A", 0.25)]


def test_filters_are_what_tells_records_apart() -> None:
    rows = [
        [("run", "a"), ("target", "x"), *meta_traits({"year": 1999, "deep": {"no": 1}})],
        [("run", "a"), ("target", "y"), *meta_traits({"year": 2000})],
        [("run", "a"), ("target", "y"), *meta_traits(True)],
    ]
    facets, numbers = facets_of(rows)
    assert [facet.name for facet in facets] == ["target", "meta year"]
    (target, year) = facets
    assert [(value, count) for _, value, count in target.values] == [("y", 2), ("x", 1)]
    assert [(value, count) for _, value, count in year.values] == [("1999", 1), ("2000", 1)]
    assert numbers[2] == [target.values[0][0]]
    assert list(meta_traits(True)) == [("meta", "true")]


def test_a_field_of_many_values_is_no_filter() -> None:
    facets, numbers = facets_of([[("meta note", str(k))] for k in range(51)])
    assert facets == []
    assert numbers == [[]] * 51


def test_several_sources_are_joined(tmp_path: Path) -> None:
    paths = [tmp_path / "one" / "run.jsonl", tmp_path / "two" / "run.jsonl"]
    for path, record in zip(paths, (GOOD, BAD), strict=True):
        path.parent.mkdir()
        line = msgspec.to_builtins(record) | {"meta": {"year": 1999}}
        path.write_bytes(msgspec.json.encode(line) + b"\n" + b'{"id": "x", "error": "empty"}\n')
    entries = list(read_runs(paths))
    assert [entry.source for entry in entries] == [str(paths[0])] * 2 + [str(paths[1])] * 2
    assert entries[0].meta == {"year": 1999}
    assert entries[1].place == f"{paths[0]}, run.jsonl:2"
    page = render_run("both", entries)
    assert (page.records, page.failed) == (4, 2)
    html = page.html.decode()
    for shown in ('data-facet="run"', 'data-facet="target"', "failed (2)", "year 1999", "empty"):
        assert shown in html


def test_the_list_says_the_same_for_the_same_run() -> None:
    entries = [ListedRecord("a:1", GOOD, meta={"b": 1}), ListedRecord("a:2", BAD)]
    assert render_run("run", entries).html == render_run("run", entries).html


def test_warnings_are_a_filter() -> None:
    warned = msgspec.structs.replace(BAD, warnings=[Warning_(code="uncertain", message="m")])
    html = render_run("run", [ListedRecord("1", GOOD), ListedRecord("2", warned)]).html.decode()
    assert 'data-facet="warning"' in html
    assert "uncertain (1)" in html
    assert "none (1)" in html


def test_mini_maps() -> None:
    strip = mini_map(said(" ".join(f"w{k}x" for k in range(300)), [1.0] * 300, "A", 1.0))
    assert strip is not None
    assert (strip.rows, strip.columns) == (1, 100)
    patches = said("a b c d e f", [1.0, 0.0, 0.0, 0.0, 0.0, -1.0], "A", 1.0)
    grid = msgspec.structs.replace(patches, units=Units(kind="patch", grid=(2, 3)))
    tile = mini_map(grid)
    assert tile is not None
    assert (tile.rows, tile.columns) == (2, 3)
    assert not tile.strip
    empty = Relevance(content=[], position=[], total=[], score=[])
    assert (
        mini_map(msgspec.structs.replace(GOOD, units=Units(kind="token"), relevance=empty)) is None
    )


def test_predictions_are_counted_where_they_are_not_the_targets() -> None:
    other = Prediction(index=1, value=3.0, label="NEGATIVE", top=[])
    page = render_run("run", [
        ListedRecord("1", GOOD), ListedRecord("2", msgspec.structs.replace(GOOD, prediction=other)),
    ]).html.decode()  # fmt: skip
    assert "<h2>Predicted</h2>" in page
    assert 'data-facet="predicted"' in page
    assert 'data-facet="target"' not in page  # all have the same
    assert "Predicted" not in render_run("run", [ListedRecord("1", GOOD)]).html.decode()
