"""The token that rows are padded with, and the side."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

from palrp_onnx.errors import InputError
from palrp_onnx.inputs.reading import read_optional_json
from palrp_onnx.inputs.tokenizer_files import CONFIG, SPECIAL, read_config, token_of
from palrp_onnx.inputs.tokens import Tokenizer

Side = Literal["left", "right"]
#: Classes of tokenizers that pad on the left by default.
_LEFT = ("Llama", "CodeLlama", "Gemma", "Cohere", "XLNet")


@dataclass(frozen=True)
class PadToken:
    """Its id, and its text if that is known."""

    id: int
    text: str = ""


def find_side(tokenizer: Tokenizer, file: Path) -> Side:
    """The side that rows are padded on.

    It is the first of: ``padding_side`` of ``tokenizer_config.json``; the padding section of
    ``tokenizer.json``; the side of the class; the right one.

    Raises:
        InputError: ``padding_side`` is neither left nor right.
    """
    config = read_config(file)
    own = None if tokenizer.padding is None else tokenizer.padding["direction"]
    name = str(config.get("tokenizer_class")).removesuffix("Fast").removesuffix("Tokenizer")
    side = config.get("padding_side", own or ("left" if name in _LEFT else "right"))
    if side not in ("left", "right"):
        raise InputError(f"padding_side is {side!r}, not left or right", place=str(file))
    return cast(Side, side)


def find_pad_token(config: Path, tokenizer: Tokenizer | None, file: Path) -> PadToken | None:
    """The padding token, or ``None`` if no file names one.

    It is the first of: ``pad_token_id`` of the model's ``config.json``; the padding section of
    ``tokenizer.json``; ``pad_token`` of ``tokenizer_config.json``. Usually these agree: the
    tokenizer pads in training, and Transformers' Trainer copies its id into ``config.json``. If
    they differ, the one of ``config.json`` is right: an exported graph compares tokens with it, to
    count positions (RoBERTa) or to find the last token (classifiers made of decoders). Any other
    padding would be read as text. An id without a token in the tokenizer, such as −1 in early Llama
    files, means that there is no padding token.

    Args:
        config: ``config.json`` of the model.
        tokenizer: The tokenizer, if there is one.
        file: The file of the tokenizer.

    Raises:
        InputError: A file cannot be used, or names a token that the tokenizer does not have.
    """
    known = read_optional_json(config).get("pad_token_id")
    # The tokenizers library stores ids in 32 bits.
    if isinstance(known, int) and not isinstance(known, bool) and 0 <= known < 1 << 32:
        text = "" if tokenizer is None else tokenizer.id_to_token(known)
        if text is not None:
            return PadToken(known, str(text))
    if tokenizer is None:
        return None
    if tokenizer.padding is not None:
        return PadToken(int(tokenizer.padding["pad_id"]), str(tokenizer.padding["pad_token"]))
    path = file.with_name(CONFIG)
    token = {**read_optional_json(file.with_name(SPECIAL)), **read_config(file)}.get("pad_token")
    if isinstance(token, dict):
        token = token_of(token)
    if token is None:
        return None
    found = tokenizer.token_to_id(token) if isinstance(token, str) else None
    if found is None:
        raise InputError(f"pad_token {token!r} is not in the tokenizer", place=str(path))
    return PadToken(int(found), str(token))
