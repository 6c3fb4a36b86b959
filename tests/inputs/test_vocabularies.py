"""Tokenizers from vocabulary files give the ids of Transformers, or are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import pre_tokenizers  # type: ignore[import-untyped]
from tokenizing import graph

from palrp_onnx.errors import InputError
from palrp_onnx.inputs import TextReader, default_tokenizer
from palrp_onnx.inputs.tokens import load_tokenizer, usable_tokenizer

pytestmark = pytest.mark.quick

TEXTS = (
    "Hello  hotel, it's the É best\tworld!",
    "hello hotel[MASK]? <mask>world </s> [SEP] 好a\n",
    "résumé <|endoftext|> <s>hello",
)
BRACKETS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
ANGLES = ["<s>", "<pad>", "</s>", "<unk>"]


def words(special: list[str], *, cased: bool = False) -> list[str]:
    letters = [chr(code) for code in range(33, 127) if cased or not chr(code).isupper()]
    found = [
        *special,
        *letters,
        *("##" + letter for letter in letters),
        "hello",
        "##tel",
        "é",
        "好",
    ]
    return list(dict.fromkeys(found))


def write(folder: Path, **files: Any) -> Path:
    """Files by name, with ``_`` for the dot; objects as JSON."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        stem, _, suffix = name.rpartition("_")
        text = content if isinstance(content, str) else json.dumps(content)
        (folder / f"{stem}.{suffix}").write_text(text, encoding="utf-8")
    return folder


def word_files(folder: Path, special: list[str] = BRACKETS, **files: Any) -> Path:
    cased = files.pop("cased", False)
    return write(folder, vocab_txt="\n".join(words(special, cased=cased)) + "\n", **files)


def byte_files(folder: Path, special: list[str], **files: Any) -> Path:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = [*special, *alphabet, "he", "ll", "hell", "hello", "Ġh", "Ġhe", "Ġhell", "Ġhello"]
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    if special[0] != "<|endoftext|>":
        vocabulary["<mask>" if special[0] == "<s>" else "[MASK]"] = len(vocabulary)
    merges = ["h e", "l l", "he ll", "hell o", "Ġ h", "Ġh e", "Ġhe ll", "Ġhell o"]
    text = "\n".join(["#version: 0.2", *merges]) + "\n"
    return write(folder, vocab_json=vocabulary, merges_txt=text, **files)


def ids(folder: Path, text: str, pair: str | None) -> tuple[list[int], list[int]]:
    found = load_tokenizer(folder).encode(text, pair)
    return found.ids, found.type_ids


WORD_CASES: list[tuple[str, dict[str, Any]]] = [
    ("BertTokenizer", {"tokenizer_config_json": {"tokenizer_class": "BertTokenizer"}}),
    ("BertTokenizer", {"config_json": {"model_type": "bert"}}),
    ("BertTokenizer", {}),
    ("BertTokenizer", {"cased": True, "tokenizer_config_json": {"do_lower_case": False}}),
    ("BertTokenizer", {"tokenizer_config_json": {"strip_accents": False}}),
    ("BertTokenizer", {"tokenizer_config_json": {"tokenize_chinese_chars": False}}),
    ("DistilBertTokenizer", {"config_json": {"model_type": "distilbert"}}),
    ("ElectraTokenizer", {"tokenizer_config_json": {"tokenizer_class": "ElectraTokenizerFast"}}),
    ("BertTokenizer", {"added_tokens_json": {"[NEW]": 999}}),
]


@pytest.mark.parametrize(("kind", "files"), WORD_CASES)
def test_word_pieces_are_those_of_transformers(
    tmp_path: Path, kind: str, files: dict[str, Any]
) -> None:
    transformers = pytest.importorskip("transformers")
    if "added_tokens_json" in files:
        files = {"added_tokens_json": {"[NEW]": len(words(BRACKETS))}}
    folder = word_files(tmp_path, **files)
    theirs = getattr(transformers, kind).from_pretrained(folder)
    for text in (*TEXTS, "hello [NEW] world"):
        for pair in (None, "world"):
            expected = theirs(text, pair)
            assert ids(folder, text, pair)[0] == expected["input_ids"]
            if "token_type_ids" in expected:
                assert ids(folder, text, pair)[1] == expected["token_type_ids"]


def test_mpnet(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    special = ["<s>", "<pad>", "</s>", "[UNK]", "<mask>"]
    folder = word_files(tmp_path, special, config_json={"model_type": "mpnet"})
    theirs = transformers.MPNetTokenizerFast.from_pretrained(folder)
    for text in TEXTS:
        for pair in (None, "world"):
            assert ids(folder, text, pair)[0] == theirs(text, pair)["input_ids"]


BYTE_CASES: list[tuple[str, list[str], dict[str, Any]]] = [
    ("GPT2", ["<|endoftext|>"], {"config_json": {"model_type": "gpt2"}}),
    ("GPT2", ["<|endoftext|>"], {"tokenizer_config_json": {"tokenizer_class": "GPT2Tokenizer"}}),
    (
        "GPT2",
        ANGLES,
        {
            "config_json": {"model_type": "opt"},
            "tokenizer_config_json": {
                "tokenizer_class": "GPT2Tokenizer",
                "add_bos_token": True,
                "bos_token": "</s>",
                "eos_token": "</s>",
                "unk_token": "</s>",
                "pad_token": "<pad>",
            },
        },
    ),
    ("Roberta", ANGLES, {"config_json": {"model_type": "roberta"}}),
    (
        "Roberta",
        ANGLES,
        {
            "tokenizer_config_json": {
                "tokenizer_class": "RobertaTokenizer",
                "add_prefix_space": True,
                "mask_token": {"content": "<mask>", "lstrip": True, "__type": "AddedToken"},
            },
            "special_tokens_map_json": {"cls_token": "<s>"},
        },
    ),
    ("Bart", ANGLES, {"tokenizer_config_json": {"tokenizer_class": "BartTokenizer"}}),
    ("Deberta", BRACKETS[:4], {"config_json": {"model_type": "deberta"}}),
]


@pytest.mark.parametrize(("kind", "special", "files"), BYTE_CASES)
def test_byte_pieces_are_those_of_transformers(
    tmp_path: Path, kind: str, special: list[str], files: dict[str, Any]
) -> None:
    transformers = pytest.importorskip("transformers")
    folder = byte_files(tmp_path, special, **files)
    theirs = getattr(transformers, f"{kind}TokenizerFast").from_pretrained(folder)
    for text in TEXTS:
        for pair in (None, "world"):
            expected = theirs(text, pair)
            assert ids(folder, text, pair)[0] == expected["input_ids"]


def test_golden_ids(tmp_path: Path) -> None:
    """The same without Transformers."""
    folder = word_files(tmp_path, config_json={"model_type": "bert"})
    vocabulary = words(BRACKETS)
    pieces = ["[CLS]", "hello", "h", "##o", "##tel", "[SEP]"]
    assert ids(folder, "Hello hotel", None)[0] == [vocabulary.index(piece) for piece in pieces]


# --- what the files leave open ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"cased": True}, "do_lower_case"),
        ({"tokenizer_config_json": {"tokenizer_class": "BertJapaneseTokenizer"}}, "Japanese"),
        ({"config_json": {"model_type": "esm"}}, "esm"),
        ({"tokenizer_config_json": {"do_lower_case": "no"}}, "not true or false"),
        ({"tokenizer_config_json": {"do_basic_tokenize": False}}, "do_basic_tokenize"),
        (
            {
                "tokenizer_config_json": {"cls_token": "[CLS]"},
                "special_tokens_map_json": {"cls_token": "[SEP]"},
            },
            "different",
        ),
        ({"tokenizer_config_json": {"cls_token": "[NONE]"}}, "lacks"),
        ({"added_tokens_json": {"[NEW]": 9999}}, "follow"),
    ],
)
def test_words_that_are_refused(tmp_path: Path, files: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_tokenizer(word_files(tmp_path, **files))


def test_words_of_nobody_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"model_type.*save_pretrained"):
        load_tokenizer(write(tmp_path, vocab_txt="a\nb\n"))


def test_pieces_of_an_unknown_kind_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nothing names its kind.*save_pretrained"):
        load_tokenizer(byte_files(tmp_path / "a", ANGLES))
    with pytest.raises(InputError, match="Qwen2Tokenizer is not known"):
        files = {"tokenizer_config_json": {"tokenizer_class": "Qwen2Tokenizer"}}
        load_tokenizer(byte_files(tmp_path / "b", ANGLES, **files))


@pytest.mark.parametrize("name", ["spiece.model", "tokenizer.model", "qwen.tiktoken"])
def test_other_vocabularies_say_what_to_do(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"\n\x0e")
    for path in (tmp_path, tmp_path / name, default_tokenizer(tmp_path / "model.onnx")):
        with pytest.raises(InputError, match=r"from_pretrained\(.*save_pretrained"):
            load_tokenizer(path)
    assert usable_tokenizer(tmp_path) is None


def test_damaged_vocabularies(tmp_path: Path) -> None:
    folder = byte_files(tmp_path, ["<|endoftext|>"], config_json={"model_type": "gpt2"})
    (folder / "merges.txt").write_text("h e l\n")
    with pytest.raises(InputError, match="not a pair"):
        load_tokenizer(folder)
    (folder / "merges.txt").write_text("z y\n")
    with pytest.raises(InputError):
        load_tokenizer(folder)
    write(folder, vocab_json={"a": "b"})
    with pytest.raises(InputError, match="numbers"):
        load_tokenizer(folder)
    (folder / "vocab.txt").write_bytes(b"\xff")
    with pytest.raises(InputError, match="UTF-8"):
        load_tokenizer(folder / "vocab.txt")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 1 << 40) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=6,
)
KEYS = ("cls_token", "mask_token", "added_tokens_decoder", "do_lower_case", "tokenizer_class")


@settings(max_examples=100, deadline=None)
@given(
    vocabulary=st.text(max_size=20) | st.just("[UNK]\n[CLS]\n[SEP]\n##a"),
    pieces=st.dictionaries(st.text(max_size=3), st.integers(-2, 1 << 33), max_size=6) | JSON,
    merges=st.text(max_size=12),
    config=st.dictionaries(st.sampled_from(KEYS), JSON, max_size=3),
    added=JSON,
)
def test_any_files_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory,
    vocabulary: str,
    pieces: Any,
    merges: str,
    config: Any,
    added: Any,
) -> None:
    folder = tmp_path_factory.mktemp("any")
    files = {"tokenizer_config_json": config, "added_tokens_json": added}
    model = {"config_json": {"model_type": "roberta"}}
    write(folder / "a", vocab_txt=vocabulary, **files)
    write(folder / "b", vocab_json=pieces, merges_txt=merges, **files, **model)
    for name in "ab":
        try:
            TextReader(folder / name, graph("input_ids")).read("a [CLS] b", id="x")
        except InputError:
            continue


# --- where they are -----------------------------------------------------------------------------


def test_the_nearest_tokenizer_is_taken(tmp_path: Path) -> None:
    model = tmp_path / "onnx" / "model.onnx"
    model.parent.mkdir()
    word_files(tmp_path, config_json={"model_type": "bert"})
    assert default_tokenizer(model) == tmp_path / "vocab.txt"
    reader = TextReader(default_tokenizer(model), graph("input_ids"))
    assert reader.read("hello", id="x").feeds["input_ids"].shape == (1, 3)
    files = {"config_json": {"model_type": "gpt2"}}
    byte_files(model.parent, ["<|endoftext|>"], **files)
    assert default_tokenizer(model) == model.parent / "vocab.json"
    load_tokenizer(model.parent).save(str(model.parent / "tokenizer.json"))
    assert default_tokenizer(model) == model.parent / "tokenizer.json"
