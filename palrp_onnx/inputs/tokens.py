"""Tokenizers from their files, and tokens as readable text."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from tokenizers import Encoding as Encoding  # type: ignore[import-untyped]
from tokenizers import Tokenizer as Tokenizer

from palrp_onnx.errors import InputError
from palrp_onnx.inputs.reading import read_bytes
from palrp_onnx.inputs.templates import follow_flags
from palrp_onnx.inputs.tokenizer_checks import check_normalizer, panics_are_errors
from palrp_onnx.inputs.tokenizer_files import TOKENIZER, is_foreign, tokenizer_file
from palrp_onnx.inputs.vocabularies import CONVERT, is_vocabulary, read_vocabulary
from palrp_onnx.record import Units

#: Largest size of a ``tokenizer.json``, in bytes.
TOKENIZER_LIMIT = 64 << 20

#: Decoders write this for bytes that are only part of a character.
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
_HINT = "pass the tokenizer.json of the model, or its folder, with --tokenizer PATH"


def load_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer at ``path``.

    Args:
        path: ``tokenizer.json``, a vocabulary file, or a folder with one of them.

    Raises:
        InputError: There is no such file, it is larger than `TOKENIZER_LIMIT`, or no tokenizer can
            be made of it.
    """
    path = tokenizer_file(path)
    if is_foreign(path):
        raise InputError(
            "the tokenizers library cannot read this kind of vocabulary",
            place=str(path),
            hint=CONVERT.format(folder=path.parent),
        )
    if not path.is_file():
        raise InputError("there is no tokenizer", place=str(path), hint=_HINT)
    tokenizer = read_vocabulary(path) if is_vocabulary(path) else _read_json(path)
    follow_flags(tokenizer, path)
    return tokenizer


def _read_json(path: Path) -> Tokenizer:
    data = read_bytes(path, limit=TOKENIZER_LIMIT, hint=_HINT)
    check_normalizer(data, str(path))
    problem = "is not a tokenizer.json that can be used"
    with panics_are_errors(problem, place=str(path), hint=_HINT):
        return Tokenizer.from_buffer(data)


def usable_tokenizer(path: Path) -> Path | None:
    """``path`` if there is a tokenizer, which shows ids as text; else ``None``.

    Raises:
        InputError: ``tokenizer.json`` is damaged.
    """
    path = tokenizer_file(path)
    try:
        load_tokenizer(path)
    except InputError:
        if path.name == TOKENIZER and path.is_file():
            raise
        return None
    return path


def unknown_token(path: Path, name: str | None) -> int:
    """Id of the token ``name``, which may also be an id; by default of the unknown token.

    Raises:
        InputError: There is no such token, or the tokenizer has no unknown token.
    """
    tokenizer = load_tokenizer(path)
    wanted = name if name is not None else getattr(tokenizer.model, "unk_token", None)
    if wanted is None:
        raise InputError(
            "the tokenizer has no unknown token",
            place=str(path),
            hint="name a token without meaning, such as --unknown '#'",
        )
    found = tokenizer.token_to_id(wanted)
    if found is None and wanted.isdecimal():
        found = int(wanted)
    if found is None:
        raise InputError(f"the tokenizer has no token {wanted!r}", place=str(path))
    return int(found)


def piece_text(tokenizer: Tokenizer, token_id: int) -> str:
    """Text of a single token: decoded if that gives characters, else its name in the vocabulary.

    Raises:
        InputError: The tokenizer has no such token.
    """
    name: str | None = None
    if 0 <= token_id < 1 << 32:
        name = tokenizer.id_to_token(token_id)
    if name is None:
        raise InputError(
            f"the tokenizer has no token with the id {token_id}",
            hint="is it the tokenizer of another model?",
        )
    with panics_are_errors("cannot be decoded", place=f"token {token_id}"):
        decoded = str(tokenizer.decode([token_id], skip_special_tokens=False))
    return name if not decoded or _REPLACEMENT in decoded else decoded


def encoding_units(tokenizer: Tokenizer, encoding: Encoding, text: str, pair: str | None) -> Units:
    """Units of an encoded text or pair; offsets are code points of the text that they belong to.

    A token is shown as the part of the text that it covers. Tokens that share a character (its
    bytes, in byte-level vocabularies) or cover none are shown by `piece_text`. Special tokens
    belong to the sequence before them.
    """
    texts = [text] if pair is None else [text, pair]
    special = [bool(flag) for flag in encoding.special_tokens_mask]
    sequences = _sequences(encoding)
    offsets = [
        (0, 0) if is_special else span
        for span, is_special in zip(encoding.offsets, special, strict=True)
    ]
    alone = _unshared(offsets, sequences, [len(each) for each in texts])

    def shown(token: int) -> str:
        if special[token]:
            return str(encoding.tokens[token])
        (start, end), sequence = offsets[token], sequences[token]
        if alone[token]:
            return texts[sequence][start:end]
        return piece_text(tokenizer, encoding.ids[token])

    return Units(
        kind="token",
        text=[shown(token) for token in range(len(offsets))],
        id=list(encoding.ids),
        start=[start for start, _ in offsets],
        end=[end for _, end in offsets],
        special=special,
        sequence=sequences if pair is not None else [],
        unknown=_unknown(tokenizer, encoding),
    )


def _unknown(tokenizer: Tokenizer, encoding: Encoding) -> list[bool]:
    """Which tokens stand for what the vocabulary does not have; empty if none does.

    Models of most kinds name their unknown token. Unigram models do not, but give the text itself
    in the place of the token's name.
    """
    name = getattr(tokenizer.model, "unk_token", None)
    if name is not None:
        known = tokenizer.token_to_id(name)
        found = [token == known for token in encoding.ids]
    elif type(tokenizer.model).__name__ == "Unigram":
        named = zip(encoding.ids, encoding.tokens, strict=True)
        found = [tokenizer.id_to_token(token) != text for token, text in named]
    else:
        return []
    return found if any(found) else []


def _unshared(
    offsets: list[tuple[int, int]], sequences: list[int], lengths: list[int]
) -> list[bool]:
    """Whether each token covers characters, and no other token covers any of them."""
    spans, found = np.array(offsets, np.int64).reshape(-1, 2), np.array(sequences)
    alone = spans[:, 0] < spans[:, 1]
    for sequence, length in enumerate(lengths):
        own = found == sequence
        starts, ends = np.clip(spans[own], 0, length).T
        steps = np.zeros(length + 1, np.int64)
        np.add.at(steps, starts, 1)
        np.add.at(steps, ends, -1)
        shared = np.concatenate([[0], np.cumsum(np.cumsum(steps) > 1)])
        alone[own] &= shared[ends] == shared[starts]
    return [bool(flag) for flag in alone]


def encode_alone(tokenizer: Tokenizer, text: str) -> list[int]:
    """The tokens of a whole text alone: no template, no truncation and no padding."""
    tokenizer.no_truncation()
    tokenizer.no_padding()
    with panics_are_errors("cannot be tokenized", place=text[:40]):
        return list(tokenizer.encode(text, add_special_tokens=False).ids)


def id_units(tokenizer: Tokenizer | None, ids: list[int]) -> Units:
    """Units of token ids without a text, thus without offsets; without a tokenizer, of numbers.

    Raises:
        InputError: An id is not in the tokenizer's vocabulary.
    """
    if tokenizer is None:
        return Units(kind="token", text=[str(i) for i in ids], id=ids, special=[False] * len(ids))
    added = tokenizer.get_added_tokens_decoder()
    special = [token in added and added[token].special for token in ids]
    texts = [piece_text(tokenizer, token) for token in ids]
    return Units(kind="token", text=texts, id=ids, special=special)


def _sequences(encoding: Encoding) -> list[int]:
    sequences: list[int] = []
    current = 0
    for sequence in encoding.sequence_ids:
        current = current if sequence is None else sequence
        sequences.append(current)
    return sequences
