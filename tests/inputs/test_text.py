from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import (  # type: ignore[import-untyped]
    Tokenizer,
)
from tokenizing import byte_level, graph, unigram, wordpiece

from palrp_onnx.errors import InputError
from palrp_onnx.inputs import GraphInput, TextReader, default_tokenizer
from palrp_onnx.inputs import text as text_module
from palrp_onnx.inputs.text import decode_text, lines_of, read_text

pytestmark = pytest.mark.quick

BUILDERS = [wordpiece, byte_level, unigram]


def save(folder: Path, tokenizer: Tokenizer, **files: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "tokenizer.json"
    tokenizer.save(str(path))
    for name, value in files.items():
        (folder / f"{name}.json").write_text(json.dumps(value))
    return path


@pytest.fixture(scope="module")
def readers(tmp_path_factory: pytest.TempPathFactory) -> list[TextReader]:
    folder = tmp_path_factory.mktemp("tokenizers")
    return [TextReader(save(folder / b.__name__, b()), graph()) for b in BUILDERS]


def test_wordpiece_feeds_and_units(tmp_path: Path) -> None:
    names = ("input_ids", "attention_mask", "token_type_ids", "position_ids")
    reader = TextReader(save(tmp_path, wordpiece()), graph(*names))
    sample = reader.read("😀 É Hellos", id="7")
    assert sample.id == "7"
    assert sample.kind == "text"
    assert {name: feed.tolist() for name, feed in sample.feeds.items()} == {
        "input_ids": [[2, 1, 7, 4, 6, 3]],
        "attention_mask": [[1] * 6],
        "token_type_ids": [[0] * 6],
        "position_ids": [[0, 1, 2, 3, 4, 5]],
    }
    assert all(feed.dtype == np.int64 for feed in sample.feeds.values())
    units = sample.units
    assert units is not None
    assert units.text == ["[CLS]", "😀", "É", "Hello", "s", "[SEP]"]
    assert units.id == [2, 1, 7, 4, 6, 3]
    assert units.start == [0, 0, 2, 4, 9, 0]
    assert units.end == [0, 1, 3, 9, 10, 0]
    assert units.special == [True, False, False, False, False, True]
    assert units.sequence == []
    assert sample.facts.text == "😀 É Hellos"
    assert not sample.facts.truncated
    assert sample.warnings == ()


def test_pair_has_types_sequences_and_own_offsets(tmp_path: Path) -> None:
    reader = TextReader(save(tmp_path, wordpiece()), graph("input_ids", "token_type_ids"))
    sample = reader.read("hello", pair="é worlds", id="p")
    assert sample.feeds["token_type_ids"].tolist() == [[0, 0, 0, 1, 1, 1, 1]]
    units = sample.units
    assert units is not None
    assert units.sequence == [0, 0, 0, 1, 1, 1, 1]
    assert units.text == ["[CLS]", "hello", "[SEP]", "é", "world", "s", "[SEP]"]
    assert (units.start[4], units.end[4]) == (2, 7)
    assert sample.facts.text_pair == "é worlds"


def test_pieces_of_one_character_are_not_shown_as_the_whole(tmp_path: Path) -> None:
    reader = TextReader(save(tmp_path, byte_level()), graph("input_ids"))
    units = reader.read("é😀 hello", id="b").units
    assert units is not None
    assert list(zip(units.start, units.end, strict=True)) == (
        [(0, 1)] * 2 + [(1, 2)] * 4 + [(2, 3), (3, 8)]
    )
    assert units.text[-2:] == [" ", "hello"]
    assert not {"é", "😀", "�", ""} & set(units.text)


def test_byte_fallback_shows_the_byte(tmp_path: Path) -> None:
    reader = TextReader(save(tmp_path, unigram()), graph("input_ids"))
    units = reader.read("ab é", id="u").units
    assert units is not None
    assert units.text == ["a", "b", " ", "<0xC3>", "<0xA9>", "</s>"]
    assert units.special == [False] * 5 + [True]


def test_special_token_typed_by_hand_is_text(tmp_path: Path) -> None:
    reader = TextReader(save(tmp_path, wordpiece()), graph("input_ids"))
    units = reader.read("hello [SEP]", id="s").units
    assert units is not None
    assert units.special == [True, False, False, True]
    assert (units.start[2], units.end[2]) == (6, 11)


@settings(max_examples=150, deadline=None)
@given(text=st.text(max_size=40), pair=st.none() | st.text(max_size=20))
def test_any_text_is_encoded_or_refused(
    readers: list[TextReader], text: str, pair: str | None
) -> None:
    for reader in readers:
        try:
            sample = reader.read(text, pair=pair, id="h")
        except InputError:
            continue
        units = sample.units
        assert units is not None
        assert units.id == sample.feeds["input_ids"][0].tolist()
        check_offsets(units, [text] if pair is None else [text, pair])


def check_offsets(units: Any, texts: list[str]) -> None:
    spans = list(zip(units.start, units.end, strict=True))
    sequences = units.sequence or [0] * len(spans)
    for index, ((start, end), sequence) in enumerate(zip(spans, sequences, strict=True)):
        text = texts[sequence]
        assert 0 <= start <= end <= len(text)
        shared = any(
            other != index and sequences[other] == sequence and s < end and start < e
            for other, (s, e) in enumerate(spans)
        )
        if start < end and not shared:
            assert units.text[index] == text[start:end]


@given(text=st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1))
def test_ordinary_text_is_never_refused_by_byte_level(readers: list[TextReader], text: str) -> None:
    if text.strip():
        units = readers[1].read(text, id="h").units
        assert units is not None
        # A byte-level vocabulary loses nothing: every character belongs to a token.
        assert set().union(*map(range, units.start, units.end)) == set(range(len(text)))


@pytest.mark.parametrize("builder", BUILDERS)
@pytest.mark.parametrize("limit", [None, 6])
def test_same_feeds_as_transformers(
    tmp_path: Path, builder: Callable[[], Tokenizer], limit: int | None
) -> None:
    transformers = pytest.importorskip("transformers")
    path = save(tmp_path, builder(), tokenizer_config={"model_max_length": limit})
    theirs = transformers.PreTrainedTokenizerFast(tokenizer_file=str(path))
    reader = TextReader(path, graph("input_ids", "attention_mask", "token_type_ids"))
    for pair in (None, "b world"):
        arguments = {"truncation": limit is not None, "max_length": limit}
        expected = theirs("Hello a 😀 worlds", pair, return_tensors="np", **arguments)
        sample = reader.read("Hello a 😀 worlds", pair=pair, id="t")
        assert sample.facts.truncated == (limit is not None)
        for name, feed in sample.feeds.items():
            np.testing.assert_array_equal(feed, expected[name])


# --- graph inputs -------------------------------------------------------------------------------


def test_types_follow_the_graph(tmp_path: Path) -> None:
    inputs = [
        GraphInput("input_ids", np.dtype(np.int32), None),
        GraphInput("attention_mask", np.dtype(np.float32), (1, "seq")),
    ]
    feeds = TextReader(save(tmp_path, wordpiece()), inputs).read("hello", id="x").feeds
    assert feeds["input_ids"].dtype == np.int32
    assert feeds["attention_mask"].dtype == np.float32


def test_only_integer_input_is_the_token_ids(tmp_path: Path) -> None:
    reader = TextReader(save(tmp_path, wordpiece()), graph("tokens"))
    assert reader.read("hello", id="x").feeds["tokens"].tolist() == [[2, 4, 3]]


FLOAT = GraphInput("pixel_values", np.dtype(np.float32), (1, 3, 4, 4))


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (graph("input_ids", "decoder_input_ids"), r"decoder_input_ids int64\[batch, seq\]"),
        (graph("a", "b"), r"\.npz"),
        ([FLOAT], "does not provide"),
        ([], "no inputs"),
        (graph("input_ids", shape=("batch", "seq", 1)), "one row"),
        ([GraphInput("input_ids", np.dtype(np.float32), None)], "one row"),
        ([*graph("input_ids", shape=(1, 8)), *graph("attention_mask", shape=(1, 9))], "contradict"),
    ],
)
def test_graphs_that_text_does_not_fit(tmp_path: Path, inputs: list[Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        TextReader(save(tmp_path, wordpiece()), inputs)


def test_token_id_too_large_for_the_graph(tmp_path: Path) -> None:
    reader = TextReader(
        save(tmp_path, byte_level()), [GraphInput("input_ids", np.dtype(np.int8), None)]
    )
    with pytest.raises(InputError, match="too large"):
        reader.read("hello", id="x")


# --- length -------------------------------------------------------------------------------------


def limited(build: Callable[[], Tokenizer] = wordpiece) -> Tokenizer:
    tokenizer = build()
    tokenizer.enable_truncation(5)
    return tokenizer


@pytest.mark.parametrize(
    ("tokenizer", "files", "shape", "kept"),
    [
        (wordpiece, {}, ("b", "s"), 12),
        (limited, {"tokenizer_config": {"model_max_length": 7}}, ("b", "s"), 5),
        (wordpiece, {"tokenizer_config": {"model_max_length": 7}}, ("b", "s"), 7),
        (wordpiece, {"tokenizer_config": {"model_max_length": int(1e30)}}, ("b", "s"), 12),
        (wordpiece, {"tokenizer_config": {"model_max_length": 1e30}}, ("b", "s"), 12),
        (
            wordpiece,
            {
                "tokenizer_config": {"model_max_length": int(1e30)},
                "config": {"max_position_embeddings": 8, "pad_token_id": 3},
            },
            ("b", "s"),
            8,
        ),
        (
            wordpiece,
            {"config": {"max_position_embeddings": 10, "pad_token_id": 1}},
            ("b", "s"),
            8,
        ),
        (wordpiece, {"config": {"max_position_embeddings": 10, "pad_token_id": 0}}, ("b", "s"), 10),
        (wordpiece, {"config": {"n_positions": 9}}, ("b", "s"), 9),
        (wordpiece, {"config": {"n_positions": 9}}, (1, 6), 6),
        (wordpiece, {}, (1, 6), 6),
    ],
)
def test_truncation(
    tmp_path: Path,
    tokenizer: Callable[[], Tokenizer],
    files: dict[str, object],
    shape: tuple[int | str, ...],
    kept: int,
) -> None:
    path = save(tmp_path, tokenizer(), **files)
    reader = TextReader(path, graph("input_ids", shape=shape))
    for _ in range(2):  # the first text must leave nothing behind for the second
        sample = reader.read(" ".join(["hello"] * 10), id="t")
        assert sample.feeds["input_ids"].shape == (1, kept)
        assert sample.facts.truncated == (kept < 12)
        assert [warning.code for warning in sample.warnings] == ["truncated"] * (kept < 12)
        if kept < 12:
            assert f"{kept} of 12 tokens" in sample.warnings[0].message
        assert sample.units is not None
        assert sample.units.text[-1] == "[SEP]"


def test_truncation_from_the_left(tmp_path: Path) -> None:
    config = {"model_max_length": 3, "truncation_side": "left"}
    reader = TextReader(save(tmp_path, wordpiece(), tokenizer_config=config), graph("input_ids"))
    units = reader.read("hello é world", id="t").units
    assert units is not None
    assert units.text == ["[CLS]", "world", "[SEP]"]


def test_no_room_beside_special_tokens(tmp_path: Path) -> None:
    path = save(tmp_path, wordpiece(), tokenizer_config={"model_max_length": 2})
    with pytest.raises(InputError, match="no room"):
        TextReader(path, graph("input_ids")).read("hello world", id="t")


def test_truncation_strategy_that_cannot_be_followed(tmp_path: Path) -> None:
    tokenizer = wordpiece()
    tokenizer.enable_truncation(4, strategy="only_second")
    with pytest.raises(InputError, match="cannot be tokenized"):
        TextReader(save(tmp_path, tokenizer), graph("input_ids")).read("hello " * 9, id="t")


@pytest.mark.parametrize("where", ["config", "tokenizer", "class"])
def test_fixed_length_is_padded_on_the_left(tmp_path: Path, where: str) -> None:
    tokenizer = wordpiece()
    if where == "tokenizer":
        tokenizer.enable_padding(direction="left", pad_id=0, pad_token="[PAD]")
    config = {
        "config": {"padding_side": "left"},
        "class": {"tokenizer_class": "LlamaTokenizerFast"},
    }.get(where, {})
    files = {"tokenizer_config": {"pad_token": "[PAD]", **config}}
    names = ("input_ids", "attention_mask", "token_type_ids", "position_ids")
    path = save(tmp_path, tokenizer, **files)
    sample = TextReader(path, graph(*names, shape=(1, 6))).read("hello", pair="é", id="t")
    assert {name: feed.tolist() for name, feed in sample.feeds.items()} == {
        "input_ids": [[0, 2, 4, 3, 7, 3]],
        "attention_mask": [[0, 1, 1, 1, 1, 1]],
        "token_type_ids": [[0, 0, 0, 0, 1, 1]],
        "position_ids": [[0, 0, 1, 2, 3, 4]],
    }
    assert sample.units is not None
    assert sample.units.text == ["[PAD]", "[CLS]", "hello", "[SEP]", "é", "[SEP]"]
    assert sample.units.sequence == [0, 0, 0, 0, 1, 1]


def test_padding_side_that_is_none(tmp_path: Path) -> None:
    path = save(tmp_path, wordpiece(), tokenizer_config={"padding_side": "top"})
    with pytest.raises(InputError, match="padding_side"):
        TextReader(path, graph())


@pytest.mark.parametrize(
    ("files", "kept", "source"),
    [
        (
            {
                "tokenizer_config": {"model_max_length": 9},
                "config": {"max_position_embeddings": 7},
            },
            7,
            "max_position_embeddings 7",
        ),
        (
            {
                "tokenizer_config": {"model_max_length": 9},
                "config": {
                    "max_position_embeddings": 10,
                    "pad_token_id": 1,
                    "model_type": "roberta",
                },
            },
            8,
            "max_position_embeddings 8",
        ),
        (
            {
                "config": {
                    "max_position_embeddings": 9,
                    "pad_token_id": 1,
                    "model_type": "roberta",
                },
            },
            7,
            "max_position_embeddings 7",
        ),
    ],
)
def test_the_smallest_limit_holds(
    tmp_path: Path, files: dict[str, object], kept: int, source: str
) -> None:
    reader = TextReader(save(tmp_path, wordpiece(), **files), graph("input_ids"))
    sample = reader.read(" ".join(["hello"] * 10), id="t")
    assert sample.feeds["input_ids"].shape == (1, kept)
    assert source in sample.warnings[0].message


def test_a_saved_truncation_is_named(tmp_path: Path) -> None:
    """Transformers ignores it."""
    path = save(tmp_path, limited(), tokenizer_config={"model_max_length": 9})
    sample = TextReader(path, graph("input_ids")).read(" ".join(["hello"] * 10), id="t")
    assert "in place of model_max_length 9" in sample.warnings[0].message


@pytest.mark.parametrize(
    ("padding", "config"),
    [(True, {}), (False, {"pad_token": "[PAD]"}), (False, {"pad_token": {"content": "[PAD]"}})],
)
def test_fixed_length_is_padded(tmp_path: Path, padding: bool, config: dict[str, object]) -> None:
    tokenizer = wordpiece()
    if padding:
        tokenizer.enable_padding(pad_id=0, pad_token="[PAD]", length=32)
    path = save(tmp_path, tokenizer, tokenizer_config=config)
    names = ("input_ids", "attention_mask", "token_type_ids", "position_ids")
    sample = TextReader(path, graph(*names, shape=(1, 8))).read("hello", pair="é", id="t")
    assert sample.feeds["input_ids"].tolist() == [[2, 4, 3, 7, 3, 0, 0, 0]]
    assert sample.feeds["attention_mask"].tolist() == [[1, 1, 1, 1, 1, 0, 0, 0]]
    assert sample.feeds["token_type_ids"].tolist() == [[0, 0, 0, 1, 1, 0, 0, 0]]
    assert sample.feeds["position_ids"].tolist() == [list(range(8))]
    units = sample.units
    assert units is not None
    assert units.text[-3:] == ["[PAD]"] * 3
    assert units.special[-3:] == [True] * 3
    assert units.sequence[-3:] == [1] * 3
    assert {len(getattr(units, name)) for name in ("text", "id", "start", "end", "special")} == {8}
    assert sample.warnings == ()


@pytest.mark.parametrize(
    ("named", "token", "text"),
    [(5, 5, "world"), (-1, 0, "[PAD]"), (4000, 0, "[PAD]"), (True, 0, "[PAD]"), (None, 0, "[PAD]")],
)
def test_the_pad_token_is_the_one_of_the_model(
    tmp_path: Path, named: object, token: int, text: str
) -> None:
    tokenizer = wordpiece()
    tokenizer.enable_padding(pad_id=0, pad_token="[PAD]")
    path = save(tmp_path, tokenizer)
    config = tmp_path / "model" / "config.json"
    config.parent.mkdir()
    config.write_text(json.dumps({"pad_token_id": named}))
    reader = TextReader(path, graph("input_ids", shape=(1, 5)), config=config)
    units = reader.read("hello", id="t").units
    assert units is not None
    assert (units.id[-2:], units.text[-2:]) == ([token] * 2, [text] * 2)


def test_dynamic_length_is_not_padded(tmp_path: Path) -> None:
    tokenizer = wordpiece()
    tokenizer.enable_padding(length=32)
    sample = TextReader(save(tmp_path, tokenizer), graph()).read("hello", id="t")
    assert sample.feeds["input_ids"].shape == (1, 3)


def test_padding_without_a_mask_is_reported(tmp_path: Path) -> None:
    path = save(tmp_path, wordpiece(), tokenizer_config={"pad_token": "[PAD]"})
    sample = TextReader(path, graph("input_ids", shape=(1, 8))).read("hello", id="t")
    assert [warning.code for warning in sample.warnings] == ["padded"]


def test_fixed_length_without_a_pad_token(tmp_path: Path) -> None:
    reader = TextReader(save(tmp_path, wordpiece()), graph("input_ids", shape=(1, 8)))
    with pytest.raises(InputError, match="no pad token"):
        reader.read("hello", id="t")


# --- files --------------------------------------------------------------------------------------


def test_read_file_strips_one_newline_and_the_bom(tmp_path: Path) -> None:
    reader = TextReader(save(tmp_path, wordpiece()), graph())
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfhello\r\n")
    (tmp_path / "b.txt").write_bytes(b"world\n\n")
    sample = reader.read_file(tmp_path / "a.txt", pair_path=tmp_path / "b.txt")
    assert sample.id == "a"
    assert sample.facts.text == "hello"
    assert sample.facts.text_pair == "world\n"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"ab\xff", "at byte 2"),
        (b"\xef\xbb\xbfab\xff", "at byte 5"),
        ("é".encode("latin-1"), "not UTF-8"),
        ("é".encode("utf-16"), "at byte 0"),
        (b"a\0b", "NUL at byte 1"),
        (b"\xed\xa0\x80", "not UTF-8"),
    ],
)
def test_bytes_that_are_not_text(data: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        decode_text(data, place="x")


@given(data=st.binary(max_size=64))
def test_any_bytes_are_decoded_or_refused(data: bytes) -> None:
    try:
        text = decode_text(data, place="x")
    except InputError:
        return
    assert "\0" not in text
    assert len(text.encode()) <= len(data)


@pytest.mark.parametrize("text", ["", " \n\t", "\u3000", "\u200b", "a\0", "a\ud800"])
def test_texts_that_say_nothing(readers: list[TextReader], text: str) -> None:
    with pytest.raises(InputError):
        readers[0].read(text, id="x")
    with pytest.raises(InputError):
        readers[0].read("hello", pair=text.strip("\u200b"), id="x")


def test_unreadable_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="No such file"):
        read_text(tmp_path / "none.txt")
    with pytest.raises(InputError, match="cannot be read"):
        read_text(tmp_path)
    with pytest.raises(InputError, match="cannot be read"):
        read_text(Path("a\0b.txt"))
    monkeypatch.setattr(text_module, "TEXT_LIMIT", 1 << 20)
    (tmp_path / "big.txt").write_bytes(b"a" * ((1 << 20) + 1))
    with pytest.raises(InputError, match="larger than 1 MiB"):
        read_text(tmp_path / "big.txt")


def test_missing_tokenizer_says_which_option(tmp_path: Path) -> None:
    path = default_tokenizer(tmp_path / "model.onnx")
    assert path == tmp_path / "tokenizer.json"
    with pytest.raises(InputError, match="--tokenizer PATH"):
        TextReader(path, graph())


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"model": {}}', "\0\1"])
def test_corrupt_tokenizer(tmp_path: Path, content: str) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(content)
    with pytest.raises(InputError, match=r"not a tokenizer\.json"):
        TextReader(path, graph())


@pytest.mark.parametrize(
    "files",
    [
        {"tokenizer_config": [1]},
        {"tokenizer_config": {"model_max_length": "long"}},
        {"tokenizer_config": {"model_max_length": 0}},
        {"tokenizer_config": {"model_max_length": True}},
        {"tokenizer_config": {"model_max_length": float("inf")}},
        {"tokenizer_config": {"truncation_side": "top"}},
        {"tokenizer_config": {"pad_token": "[NONE]"}},
        {"tokenizer_config": {"pad_token": 3}},
        {"config": {"max_position_embeddings": -1}},
    ],
)
def test_corrupt_configuration(tmp_path: Path, files: dict[str, object]) -> None:
    with pytest.raises(InputError):
        TextReader(save(tmp_path, wordpiece(), **files), graph())


@pytest.mark.parametrize("length", [12, "T"])
def test_choices_that_are_filled_up_keep_their_masks(tmp_path: Path, length: int | str) -> None:
    """Of every choice the tokens and no more; also where the graph has a fixed length."""
    names = ("input_ids", "attention_mask")
    file = save(tmp_path, wordpiece(), config={"pad_token_id": 0})
    reader = TextReader(file, graph(*names, shape=("B", "C", length)))
    found = reader.read_choices("hello", ["hello hello", "hello"], id="c")
    ids, mask = (found.feeds[name] for name in names)
    assert ids.shape == mask.shape == (1, 2, 12 if length == 12 else ids.shape[2])
    assert found.units is not None
    special = np.array(found.units.special).reshape(mask.shape)
    assert mask[0, 0].sum() - mask[0, 1].sum() == 1
    assert special[mask == 0].all()
    assert len(set(ids[mask == 0].tolist())) == 1  # the padding token alone


def test_only_ends_of_lines_end_a_line() -> None:
    assert lines_of("a\u2028b\x0cc\r\n\n  \nd\re\n") == ["a\u2028b\x0cc", "d\re"]
