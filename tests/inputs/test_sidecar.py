"""What the files beside a model say of its output."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models

from palrp_onnx.errors import InputError
from palrp_onnx.inputs.sidecar import Declared, read_declared

pytestmark = pytest.mark.quick


def said(folder: Path, config: Any) -> Declared:
    (folder / "config.json").write_text(json.dumps(config))
    return read_declared(folder / "model.onnx")


@pytest.mark.parametrize(
    ("config", "classes", "problem", "vocabulary"),
    [
        ({}, None, None, None),
        ({"model_type": "bert"}, 2, None, None),
        ({"model_type": "bert", "id2label": {}}, None, None, None),
        ({"id2label": {"0": "a", "1": "b", "2": "c"}}, 3, None, None),
        ({"problem_type": "regression", "vocab_size": 7}, None, "regression", 7),
        ({"problem_type": None, "vocab_size": "many"}, None, None, None),
    ],
)
def test_config(
    tmp_path: Path,
    config: Any,
    classes: int | None,
    problem: str | None,
    vocabulary: int | None,
) -> None:
    found = said(tmp_path, config)
    assert (found.classes, found.problem, found.vocabulary) == (classes, problem, vocabulary)
    assert found.tokens is None


def test_nothing_there(tmp_path: Path) -> None:
    found = read_declared(tmp_path / "model.onnx")
    assert (found.classes, found.problem, found.vocabulary) == (None, None, None)
    assert not found.is_vocabulary(5)


def test_the_tokenizer_counts_its_tokens(tmp_path: Path) -> None:
    words = {word: number for number, word in enumerate(("[UNK]", "a", "b", "c", "d"))}
    Tokenizer(models.WordLevel(words, unk_token="[UNK]")).save(str(tmp_path / "tokenizer.json"))
    found = said(tmp_path, {"vocab_size": 8})
    assert found.is_vocabulary(5)
    assert found.is_vocabulary(8)
    assert not found.is_vocabulary(6)


def test_a_tokenizer_that_cannot_be_read_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{")
    assert not said(tmp_path, {}).is_vocabulary(5)


def test_a_damaged_config(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        said(tmp_path, [1])
