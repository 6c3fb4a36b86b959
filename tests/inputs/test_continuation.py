from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tokenizing import byte_level, graph, wordpiece

from palrp_onnx.errors import InputError
from palrp_onnx.inputs import Continuation, GraphInput, TextReader

pytestmark = pytest.mark.quick

ALL = graph("input_ids", "attention_mask", "token_type_ids", "position_ids")


def save(folder: Path, tokenizer: object) -> Path:
    path = folder / "tokenizer.json"
    tokenizer.save(str(path))  # type: ignore[attr-defined]
    return path


def test_one_entry_more_in_every_input(tmp_path: Path) -> None:
    path = save(tmp_path, byte_level())
    sample = TextReader(path, ALL).read("hello", id="x")
    token = byte_level().token_to_id("he")
    grown = Continuation(path, ALL).extend(sample, token)
    before = sample.feeds["input_ids"][0].tolist()
    assert grown.feeds["input_ids"].tolist() == [[*before, token]]
    assert grown.feeds["attention_mask"].tolist() == [[1] * (len(before) + 1)]
    assert grown.feeds["token_type_ids"].tolist() == [[0] * (len(before) + 1)]
    assert grown.feeds["position_ids"].tolist() == [list(range(len(before) + 1))]
    assert all(array.dtype == np.int64 for array in grown.feeds.values())
    assert grown.facts.text == "hellohe"
    assert grown.units is not None
    assert grown.units.text[-1] == "he"
    assert (grown.units.start[-1], grown.units.end[-1]) == (5, 7)
    assert sample.facts.text == "hello"


def test_bytes_of_one_character(tmp_path: Path) -> None:
    path = save(tmp_path, byte_level())
    reader, text = TextReader(path, graph()), Continuation(path, graph())
    sample = reader.read("hello", id="x")
    for token in byte_level().encode("é").ids:
        sample = text.extend(sample, token)
    assert sample.units is not None
    assert len(sample.units.id) == len(sample.feeds["input_ids"][0])
    assert all(text for text in sample.units.text)


def test_a_special_token_adds_no_text(tmp_path: Path) -> None:
    path = save(tmp_path, wordpiece())
    sample = TextReader(path, graph()).read("hello", id="x")
    grown = Continuation(path, graph()).extend(sample, 3)
    assert grown.facts.text == "hello"
    assert grown.units is not None
    assert (grown.units.text[-1], grown.units.special[-1]) == ("[SEP]", True)


@pytest.mark.parametrize(("known", "ends"), [(3, {3}), ([3, 5], {3, 5}), (None, set())])
def test_what_ends_a_text(tmp_path: Path, known: object, ends: set[int]) -> None:
    path = save(tmp_path, wordpiece())
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": known}))
    assert Continuation(path, graph()).settings.ends == ends


def test_what_cannot_grow(tmp_path: Path) -> None:
    path = save(tmp_path, wordpiece())
    fixed = [GraphInput("input_ids", np.dtype(np.int64), ("batch", 8))]
    with pytest.raises(InputError, match="fixed length"):
        Continuation(path, fixed)
    (tmp_path / "config.json").write_text('{"eos_token_id": "end"}')
    with pytest.raises(InputError, match="eos_token_id"):
        Continuation(path, graph())
