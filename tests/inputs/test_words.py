"""Texts as tokens of a vocabulary, and tokens as texts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models  # type: ignore[import-untyped]
from tokenizing import byte_level, unigram, wordpiece

from palrp_onnx.errors import InputError, TargetError
from palrp_onnx.inputs.words import Vocabulary, usable_vocabulary

pytestmark = pytest.mark.quick


def test_a_text_is_one_token_and_back(tmp_path: Path) -> None:
    """A space at the start of a text belongs to the token."""
    for made, texts in (
        (wordpiece(), ("hello", "##s", "[CLS]")),
        (byte_level(), ("hello", "he", " ")),
        (unigram(), (" a", "b")),
    ):
        made.save(str(tmp_path / "tokenizer.json"))
        vocabulary = Vocabulary(tmp_path)
        for text in texts:
            assert vocabulary.text(vocabulary.token(text)) == text
        assert vocabulary.text(10**6) is None


def test_what_is_not_one_token(tmp_path: Path) -> None:
    wordpiece().save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(TargetError, match="it is 2 tokens") as caught:
        Vocabulary(tmp_path).token("hello world")
    assert "'hello' (id 4), 'world' (id 5)" in caught.value.hint
    unigram().save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(TargetError, match="can be the token") as caught:
        Vocabulary(tmp_path).token("a")
    assert '" a"' in caught.value.hint


def test_an_unknown_word_is_not_the_token_of_unknown_words(tmp_path: Path) -> None:
    bare = Tokenizer(models.Unigram([("<unk>", 0.0), ("a", -1.0)], unk_id=0))
    for made, texts in ((wordpiece(), ("zebra", " zebra")), (bare, ("z", " z"))):
        made.save(str(tmp_path / "tokenizer.json"))
        for text in texts:
            with pytest.raises(TargetError, match="is unknown to the tokenizer"):
                Vocabulary(tmp_path).token(text)
    wordpiece().save(str(tmp_path / "tokenizer.json"))
    assert Vocabulary(tmp_path).token("[UNK]") == 1


def test_the_mask_token_and_special_tokens(tmp_path: Path) -> None:
    wordpiece().save(str(tmp_path / "tokenizer.json"))
    assert Vocabulary(tmp_path).mask is None
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"mask_token": "[UNK]"}))
    vocabulary = Vocabulary(tmp_path)
    assert (vocabulary.mask, sorted(vocabulary.special)) == (1, [0, 1, 2, 3])


def test_no_tokenizer_is_no_vocabulary_and_a_damaged_one_an_error(tmp_path: Path) -> None:
    assert usable_vocabulary(tmp_path) is None
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(InputError):
        usable_vocabulary(tmp_path)
