"""The token that rows are filled up with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from palrp_onnx.errors import InputError
from palrp_onnx.inputs.reading import read_optional_json
from palrp_onnx.inputs.tokens import Tokenizer


@dataclass(frozen=True)
class PadToken:
    """Its id, and its text where that is known."""

    id: int
    text: str = ""


def find_pad_token(config: Path, tokenizer: Tokenizer | None, folder: Path) -> PadToken | None:
    """The token that fills rows up, or ``None`` where no file names one.

    The first of: ``pad_token_id`` of the model's ``config.json``; the padding section of
    ``tokenizer.json``; ``pad_token`` of ``tokenizer_config.json``. In training the tokenizer fills
    rows up, and Transformers' Trainer copies its id into ``config.json``, so the files of a model
    agree. Where they do not, that of ``config.json`` is right: it is the one that an exported graph
    compares tokens with, to count positions (RoBERTa) or to find the last token (classifiers made
    of decoders). With any other, padding would be read as text. An id that the tokenizer has no
    token for, such as the −1 of early Llama files, stands for none.

    Args:
        config: ``config.json`` of the model.
        tokenizer: The tokenizer, where there is one.
        folder: Where ``tokenizer_config.json`` is looked for.

    Raises:
        InputError: A file cannot be used, or names a token that the tokenizer does not have.
    """
    known = read_optional_json(config).get("pad_token_id")
    # Larger numbers are no ids for the tokenizer's library either.
    if isinstance(known, int) and not isinstance(known, bool) and 0 <= known < 1 << 32:
        text = "" if tokenizer is None else tokenizer.id_to_token(known)
        if text is not None:
            return PadToken(known, str(text))
    if tokenizer is None:
        return None
    if tokenizer.padding is not None:
        return PadToken(int(tokenizer.padding["pad_id"]), str(tokenizer.padding["pad_token"]))
    path = folder / "tokenizer_config.json"
    token = read_optional_json(path).get("pad_token")
    if isinstance(token, dict):
        token = token.get("content")
    if token is None:
        return None
    found = tokenizer.token_to_id(token) if isinstance(token, str) else None
    if found is None:
        raise InputError(f"pad_token {token!r} is not in the tokenizer", place=str(path))
    return PadToken(int(found), str(token))
