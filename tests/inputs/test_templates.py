"""``add_bos_token`` and ``add_eos_token`` come before the template of ``tokenizer.json``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import (  # type: ignore[import-untyped]
    Tokenizer,
    models,
    pre_tokenizers,
    processors,
)
from tokenizing import graph

from palrp_onnx.errors import InputError
from palrp_onnx.inputs import TextReader
from palrp_onnx.inputs.tokens import load_tokenizer

pytestmark = pytest.mark.quick

WORDS = ["<unk>", "<s>", "</s>", "[CLS]", "hello", "a", "world"]


def save(folder: Path, template: str | None, **config: Any) -> Path:
    tokenizer = Tokenizer(models.WordLevel({w: k for k, w in enumerate(WORDS)}, "<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens(WORDS[:4])
    if template is not None:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=template,
            pair=f"{template} $B:1",
            special_tokens=[(word, WORDS.index(word)) for word in WORDS[1:4]],
        )
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder / "tokenizer.json"


ENDS = {"bos_token": "<s>", "eos_token": {"content": "</s>", "__type": "AddedToken"}}
LLAMA = {"tokenizer_class": "LlamaTokenizerFast", **ENDS}


@pytest.mark.parametrize(
    ("template", "config", "tokens"),
    [
        ("<s> $A", {}, "<s> hello"),
        (None, {}, "hello"),
        (None, {**ENDS, "add_bos_token": True}, "<s> hello"),
        (None, {**ENDS, "add_bos_token": True, "add_eos_token": True}, "<s> hello </s>"),
        ("<s> $A", {**ENDS, "add_bos_token": False}, "hello"),
        ("<s> $A </s>", {**ENDS, "add_bos_token": False}, "hello </s>"),
        ("<s> $A", {**ENDS, "add_eos_token": True}, "<s> hello </s>"),
        ("<s> $A", {**ENDS, "add_bos_token": True}, "<s> hello"),
        (None, LLAMA, "<s> hello"),
        (
            "<s> $A",
            {**ENDS, "tokenizer_class": "DebertaTokenizer", "add_bos_token": False},
            "<s> hello",
        ),
        ("<s> $A", {**LLAMA, "add_bos_token": False}, "hello"),
    ],
)
def test_flags(tmp_path: Path, template: str | None, config: Any, tokens: str) -> None:
    path = save(tmp_path, template, **config)
    assert " ".join(load_tokenizer(path).encode("hello").tokens) == tokens


@pytest.mark.parametrize("flags", [{}, {"add_bos_token": False}, {"add_eos_token": True}])
def test_llama_is_that_of_transformers(tmp_path: Path, flags: Any) -> None:
    transformers = pytest.importorskip("transformers")
    path = save(tmp_path, "<s> $A", **LLAMA, **flags)
    theirs = transformers.LlamaTokenizerFast.from_pretrained(tmp_path)
    for pair in (None, "a world"):
        found = load_tokenizer(path).encode("hello world", pair)
        assert found.ids == theirs("hello world", pair)["input_ids"]


def test_flags_that_contradict(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has other tokens"):
        load_tokenizer(save(tmp_path, "[CLS] $A", **ENDS, add_bos_token=True))
    with pytest.raises(InputError, match="bos_token is None"):
        load_tokenizer(save(tmp_path, None, add_bos_token=True))


# --- a text that has them itself ----------------------------------------------------------------


def test_no_second_start(tmp_path: Path) -> None:
    reader = TextReader(save(tmp_path, "<s> $A"), graph("input_ids", "attention_mask"))
    sample = reader.read("<s> hello <s> world", id="x")
    assert sample.units is not None
    assert sample.units.text == ["<s>", "hello", "<s>", "world"]
    assert sample.units.start == [0, 4, 10, 14]
    assert sample.feeds["input_ids"].tolist() == [[1, 4, 1, 6]]
    assert sample.feeds["attention_mask"].tolist() == [[1, 1, 1, 1]]
    assert [w.code for w in sample.warnings] == ["own-start"]
    assert reader.read("hello", id="x").warnings == ()
    two = reader.read("<s> hello", pair="world", id="x")
    assert two.feeds["input_ids"].tolist() == [[1, 4, 6]]


@pytest.mark.parametrize(("side", "kept"), [("right", [1, 4, 5]), ("left", [1, 5, 6])])
def test_no_second_start_of_a_long_text(tmp_path: Path, side: str, kept: list[int]) -> None:
    path = save(tmp_path, "<s> $A", model_max_length=3, truncation_side=side)
    sample = TextReader(path, graph()).read("<s> hello a world", id="x")
    assert sample.feeds["input_ids"].tolist() == [kept]
    assert sample.warnings[0].message.startswith("3 of 4 tokens")
    whole = TextReader(path, graph()).read("<s> hello a", id="x")
    assert whole.feeds["input_ids"].tolist() == [[1, 4, 5]]
    assert not whole.facts.truncated
