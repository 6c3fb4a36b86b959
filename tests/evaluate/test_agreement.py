"""Two runs held against each other: numbers known by hand, ids, units that differ."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from palrp_onnx.errors import InputError
from palrp_onnx.evaluate import pairing
from palrp_onnx.evaluate.agreement import agreement, compare
from palrp_onnx.evaluate.pairing import Pairs
from palrp_onnx.record import Attribution, decode

pytestmark = pytest.mark.quick

TEXT = "a good film"


def record(
    id: str,
    total: list[float],
    *,
    pieces: list[tuple[int, int]] | None = None,
    index: int = 1,
    label: str | None = None,
    text: str | None = TEXT,
    position: list[float] | None = None,
) -> dict[str, Any]:
    """A record over the words of a text, or over ``pieces`` of it."""
    spans = [(0, 1), (2, 6), (7, 11)] if pieces is None else pieces
    known = text is not None
    return {
        "schema": "palrp-onnx/attribution/2.0",
        "id": id,
        "model": {"sha256": "0" * 64, "opset": 18, "producer": "", "nodes": 3},
        "run": {
            "version": "1",
            "method": "pa-lrp",
            "params": {},
            "engine": "numpy",
            "device": "cpu",
            "dtype": "float32",
            "providers": [],
            "ms": {},
        },
        "input": {"kind": "text" if known else "tensors", **({"text": text} if known else {})},
        "target": {
            "output": "logits",
            "kind": "class",
            "index": index,
            "value": 1.0,
            **({"label": label} if label else {}),
        },
        "units": {
            "kind": "token",
            "text": [(text or "")[start:end] for start, end in spans],
            "id": list(range(len(spans))),
            "start": [start for start, _ in spans] if known else [],
            "end": [end for _, end in spans] if known else [],
            "special": [start == end for start, end in spans],
        },
        "relevance": {
            "content": total,
            "position": position or [0.0] * len(total),
            "total": total,
            "score": total,
        },
        "sites": [],
        "ledger": {
            "target": 1.0,
            "content": 1.0,
            "position": 0.0,
            "segment": 0.0,
            "bias": 0.0,
            "norm": 0.0,
            "softmax": 0.0,
            "other": 0.0,
            "residual": 0.0,
            "residual_relative": 0.0,
        },
        "warnings": [],
    }


def read(fields: dict[str, Any]) -> Attribution:
    return decode(json.dumps(fields).encode())


def write(path: Path, *records: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(each) + "\n" for each in records))
    return path


def failed(id: str) -> dict[str, Any]:
    return {"id": id, "error": {"code": "input", "message": "no", "place": "", "hint": ""}}


def test_equal_maps_agree() -> None:
    pair = compare(read(record("1", [1, 3, 2])), read(record("1", [1, 3, 2])))
    assert (pair.basis, pair.same_target) == ("units", True)
    assert (pair.correlation, pair.pearson, pair.overlap) == (1, 1, 1)


def test_numbers_known_by_hand() -> None:
    first, second = record("1", [1, 2, 3]), record("1", [1, 3, 2])
    second["relevance"]["position"] = [2.0, 0.0, 0.0]
    pair = compare(read(first), read(second), top=1)
    # 1 − 6 Σd² / (n (n² − 1)) = 1 − 6·2 / 24
    assert pair.correlation == pytest.approx(0.5)
    assert pair.pearson == pytest.approx(0.5)
    assert pair.overlap == 0
    assert pair.position_share == pytest.approx(2 / 8)


def test_all_common_inputs_count() -> None:
    def both(words: list[float], pixels: list[float], name: str = "x") -> Attribution:
        image = record("x", pixels, pieces=[(0, 0)] * len(pixels))
        shown = {key: image[key] for key in ("units", "relevance", "sites")}
        one = record("a", words) | {"input_name": "ids", "others": [{"input": name, **shown}]}
        return decode(json.dumps(one).encode())

    found = compare(both([1, 2, 3], [4, 5]), both([1, 2, 3], [5, 4]))
    assert found.basis == "units"
    assert found.correlation == pytest.approx(1 - 6 * 2 / (5 * 24))  # two ranks are exchanged
    other = compare(both([1, 2, 3], [4, 5]), both([1, 2, 3], [5, 4], "y"))
    assert other.correlation == pytest.approx(1)


def test_equal_values_share_a_rank() -> None:
    pair = compare(read(record("1", [1, 1, 2])), read(record("1", [1, 2, 3])))
    # Ranks 1.5, 1.5, 3 against 1, 2, 3.
    assert pair.correlation == pytest.approx(np.corrcoef([1.5, 1.5, 3], [1, 2, 3])[0, 1])


def test_a_constant_map_has_no_correlation() -> None:
    pair = compare(read(record("1", [2, 2, 2])), read(record("1", [1, 2, 3])))
    assert pair.correlation is None and pair.pearson is None


@given(
    values=st.lists(
        st.floats(-1e6, 1e6).map(lambda x: round(x, 3)), min_size=3, max_size=3, unique=True
    ),
    scale=st.floats(1e-3, 1e3),
)
def test_scaling_a_map_changes_nothing(values: list[float], scale: float) -> None:
    pair = compare(read(record("1", values)), read(record("1", [scale * each for each in values])))
    assert pair.correlation == pytest.approx(1)
    assert pair.pearson == pytest.approx(1)
    assert pair.overlap == 1


def test_other_tokens_are_compared_by_words() -> None:
    """[CLS] a go od film. against a good film: the pieces of a word add up."""
    pieces = [(0, 0), (0, 1), (1, 4), (4, 6), (6, 11)]
    first = read(record("1", [9, 1, 2, 3, 4], pieces=pieces))
    pair = compare(first, read(record("1", [1, 5, 4])))
    assert pair.basis == "words"
    assert pair.correlation == 1
    assert pair.pearson == pytest.approx(1)


def test_other_units_without_offsets_are_refused() -> None:
    first = read(record("1", [1, 2, 3], text=None))
    second = read(record("1", [1, 2], pieces=[(0, 1), (2, 6)], text=None))
    with pytest.raises(InputError, match="no offsets"):
        compare(first, second)


def test_other_texts_are_refused() -> None:
    with pytest.raises(InputError, match="texts differ"):
        compare(read(record("1", [1, 2, 3])), read(record("1", [1, 2, 3], text="a good hill")))


def test_offsets_outside_of_the_text_are_refused() -> None:
    broken = record("1", [1, 2], pieces=[(0, 1), (2, 6)])
    broken["units"]["sequence"] = [0, 7]
    with pytest.raises(InputError, match="offsets"):
        compare(read(broken), read(record("1", [1, 2, 3])))


def test_targets_are_the_same_by_label() -> None:
    """Another model may number its classes otherwise."""
    maps: list[float] = [1, 2, 3]
    first = read(record("1", maps, index=0, label="good"))
    assert compare(first, read(record("1", maps, index=1, label="good"))).same_target
    assert not compare(first, read(record("1", maps, index=0, label="bad"))).same_target
    assert not compare(first, read(record("1", maps, index=1))).same_target


def test_records_are_matched_by_id(tmp_path: Path) -> None:
    a = write(
        tmp_path / "a.jsonl",
        record("1", [1, 2, 3]),
        record("2", [1, 2, 3]),
        record("3", [1, 2, 3]),
        failed("4"),
        failed("5"),
    )
    b = write(
        tmp_path / "b.jsonl",
        record("5", [1, 2, 3]),
        failed("3"),
        record("2", [3, 2, 1], index=0),
        record("9", [1, 2, 3]),
        failed("8"),
        record("1", [1, 2, 3]),
    )
    found = agreement(Pairs(a, b))
    assert found.compared == 2
    assert (found.a.only, found.b.only) == (["4"], ["9", "8"])
    assert (found.a.failed, found.b.failed) == (["4", "5"], ["3", "8"])
    assert found.same_target == 0.5
    assert [pair.id for pair in found.worst] == ["2", "1"]
    assert found.correlation.mean == 0 and found.correlation.least == -1
    assert found.correlation.quartiles == (-0.5, 0, 0.5)


def test_the_worst_are_the_worst(tmp_path: Path) -> None:
    maps = {"a": [1, 2, 3], "b": [3, 2, 1], "c": [1, 3, 2], "d": [2, 2, 2]}
    a = write(tmp_path / "a.jsonl", *(record(id, [1, 2, 3]) for id in maps))
    b = write(tmp_path / "b.jsonl", *(record(id, total) for id, total in maps.items()))
    assert [pair.id for pair in agreement(Pairs(a, b), worst=3).worst] == ["d", "b", "c"]
    assert agreement(Pairs(a, b), worst=0).worst == []
    assert agreement(Pairs(a, b)).correlation.known == 3


def test_folders_of_parts_and_of_single_records(tmp_path: Path) -> None:
    parts, single = tmp_path / "parts", tmp_path / "single"
    parts.mkdir()
    single.mkdir()
    write(parts / "part-00000.jsonl", record("1", [1, 2, 3]))
    write(parts / "part-00001.jsonl", record("2", [1, 2, 3]))
    (parts / "manifest.json").write_text("{}")
    write(parts / "errors.jsonl", failed("2"))
    for id in "12":
        (single / f"{id}.json").write_text(json.dumps(record(id, [1, 2, 3]), indent=2))
    assert agreement(Pairs(parts, single)).compared == 2
    assert agreement(Pairs(single, parts)).compared == 2


def test_pairs_that_cannot_be_compared_are_named(tmp_path: Path) -> None:
    a = write(tmp_path / "a.jsonl", record("1", [1, 2, 3]), record("2", [1, 2, 3]))
    b = write(tmp_path / "b.jsonl", record("1", [1, 2, 3]), record("2", [1, 2, 3], text="no"))
    found = agreement(Pairs(a, b))
    assert found.compared == 1
    assert [(each.id, each.reason) for each in found.incomparable] == [("2", "the texts differ")]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("", "no records"),
        ("{", "no record"),
        ("[1]", "no record"),
        ('{"id": "1"}', "no record"),
        ("\xff", "no record"),
        ("[" * 100_000, "no record"),
        ('{"id": "1", "error": {}}\n{"id": "1", "error": {}}', "twice"),
        ('{"id": "9", "error": {}}', "nothing|in common"),
    ],
)
def test_runs_that_are_none(tmp_path: Path, lines: str, message: str) -> None:
    good = write(tmp_path / "good.jsonl", record("1", [1, 2, 3]))
    bad = tmp_path / "bad.jsonl"
    bad.write_text(lines, encoding="latin-1")
    for pairs in (Pairs(bad, good), Pairs(good, bad)):
        with pytest.raises(InputError, match=message):
            agreement(pairs)


def test_runs_that_are_not_there(tmp_path: Path) -> None:
    good = write(tmp_path / "good.jsonl", record("1", [1, 2, 3]))
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(InputError, match=r"no \.jsonl"):
        agreement(Pairs(good, empty))
    with pytest.raises(InputError, match="cannot be read"):
        agreement(Pairs(good, tmp_path / "none.jsonl"))


def test_a_record_has_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = write(tmp_path / "good.jsonl", record("1", [1, 2, 3]))
    monkeypatch.setattr(pairing, "RECORD_LIMIT", 100)
    with pytest.raises(InputError, match="longer than"):
        agreement(Pairs(good, good))
