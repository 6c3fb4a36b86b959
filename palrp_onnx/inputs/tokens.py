"""Tokenizers from ``tokenizer.json``, and tokens as a person reads them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from tokenizers import Encoding as Encoding  # type: ignore[import-untyped]
from tokenizers import Tokenizer as Tokenizer

from palrp_onnx.errors import InputError
from palrp_onnx.inputs.reading import read_bytes
from palrp_onnx.inputs.tokenizer_checks import check_normalizer, panics_are_errors
from palrp_onnx.record import Units

#: The most bytes of a ``tokenizer.json`` that are read.
TOKENIZER_LIMIT = 64 << 20

#: What a decoder writes for bytes that are only part of a character.
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
_HINT = "pass the tokenizer.json of the model with --tokenizer PATH"


def default_tokenizer(model_path: Path) -> Path:
    """Where a model's tokenizer is expected: ``tokenizer.json`` beside it."""
    return model_path.parent / "tokenizer.json"


def load_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer in the file ``path``.

    Raises:
        InputError: There is no such file, it is larger than `TOKENIZER_LIMIT`, or it is not a
            ``tokenizer.json``.
    """
    if not path.is_file():
        raise InputError("there is no tokenizer", place=str(path), hint=_HINT)
    data = read_bytes(path, limit=TOKENIZER_LIMIT, hint=_HINT)
    check_normalizer(data, str(path))
    problem = "is not a tokenizer.json that can be used"
    with panics_are_errors(problem, place=str(path), hint=_HINT):
        return Tokenizer.from_buffer(data)


def unknown_token(path: Path, name: str | None) -> int:
    """Id of the token called ``name``, or of the tokenizer's own unknown token.

    Raises:
        InputError: There is no such token, or the tokenizer has none for unknown text.
    """
    tokenizer = load_tokenizer(path)
    wanted = name if name is not None else getattr(tokenizer.model, "unk_token", None)
    if wanted is None:
        raise InputError(
            "the tokenizer has no unknown token",
            place=str(path),
            hint="name one that says nothing, such as --unknown '#'",
        )
    found = tokenizer.token_to_id(wanted)
    if found is None and wanted.isdecimal():
        found = int(wanted)
    if found is None:
        raise InputError(f"the tokenizer has no token {wanted!r}", place=str(path))
    return int(found)


def piece_text(tokenizer: Tokenizer, token_id: int) -> str:
    """One token on its own: decoded where that gives characters, else as the vocabulary has it.

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
    """Units of an encoded text or pair; offsets are code points into the text they come from.

    A token is shown as the slice of the text it stands for. Tokens that share characters
    (pieces of one character in byte-level vocabularies) or stand for none are shown by
    `piece_text`. Special tokens belong to the sequence before them.
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
    )


def _unshared(
    offsets: list[tuple[int, int]], sequences: list[int], lengths: list[int]
) -> list[bool]:
    """Whether a token stands for characters, and no other token for any of them."""
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


def id_units(tokenizer: Tokenizer, ids: list[int]) -> Units:
    """Units of bare token ids: there is no text, so there are no offsets.

    Raises:
        InputError: An id is not in the tokenizer's vocabulary.
    """
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
