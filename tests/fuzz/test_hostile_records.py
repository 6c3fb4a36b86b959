"""Hostile records: lines that ``batch`` reads, and runs that ``compare`` reads."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest
from boxed import Box, hold
from budget import budget
from hypothesis import given
from hypothesis import strategies as st
from specimens import write_text_model

LINES = {
    "100 MB": b'{"id": "1", "text": "%s"}' % (b"a" * (100 << 20)),
    "100 MB of nothing": b"\0" * (100 << 20),
    "nested": b"[" * 10**6,
    "not UTF-8": b'{"id": "1", "text": "\xff"}',
    "half an emoji": b'{"id": "\\ud800", "text": "a"}',
    "a file that is no picture": b'{"id": "1", "image": "/etc/passwd"}',
    "a number that is too large": b'{"id": "1", "input_ids": [99999999999999999999]}',
    "no number": b'{"id": "1", "input_ids": [1e400, NaN]}',
}


@pytest.mark.parametrize("name", LINES)
def test_a_hostile_line_fails_alone(box: Box, tmp_path: Path, name: str) -> None:
    model = write_text_model(tmp_path) / "model.onnx"
    lines = tmp_path / "in.jsonl"
    lines.write_bytes(LINES[name] + b'\n{"id": "2", "text": "a good film"}\n')
    outcome = hold(box, "cli", "batch", model, "--input", lines, "-o", tmp_path / "out")
    assert outcome.exit == 6, outcome.text
    parts = sorted((tmp_path / "out").glob("part-*.jsonl"))
    found = [json.loads(line) for part in parts for line in part.read_bytes().splitlines()]
    assert ["error" in each for each in found] == [True, False]


@budget(60)
@given(at=st.integers(0, 10**6), byte=st.integers(0, 255), cut=st.booleans())
def test_damaged_runs_are_refused_or_compared(
    box: Box, folder: Path, at: int, byte: int, cut: bool
) -> None:
    good = folder / "good.jsonl"
    if not good.exists():
        model = write_text_model(folder) / "model.onnx"
        place = folder / "in.json"
        hold(box, "cli", "explain", model, "--input", folder / "in.txt", "-o", place)
        good.write_bytes(json.dumps(json.loads(place.read_bytes())).encode() + b"\n")
    data = bytearray(good.read_bytes())
    if cut:
        del data[at % len(data) :]
    else:
        data[at % len(data)] = byte
    with tempfile.TemporaryDirectory(dir=folder) as place_of_bad:
        bad = Path(place_of_bad) / "bad.jsonl"
        bad.write_bytes(data)
        hold(box, "cli", "compare", good, bad)
