"""Tokens of a vocabulary as text, and texts as tokens, for targets and their titles."""

from __future__ import annotations

from pathlib import Path

from palrp_onnx.errors import InputError, TargetError
from palrp_onnx.inputs.reading import read_optional_json
from palrp_onnx.inputs.tokenizer_checks import panics_are_errors
from palrp_onnx.inputs.tokenizer_files import (
    SPECIAL,
    TOKENIZER,
    read_config,
    token_of,
    tokenizer_file,
)
from palrp_onnx.inputs.tokens import load_tokenizer, piece_text

#: SentencePiece writes it for a space before a word.
_SPACE = "\N{LOWER ONE EIGHTH BLOCK}"
#: A word that texts of further words are encoded after, as tokens may depend on what is before.
_BEFORE = "a"
#: Stands for what the tokenizer does not know, and has only its token of unknown words for.
_UNKNOWN = -1


class Vocabulary:
    """The vocabulary of a tokenizer.

    Args:
        path: The tokenizer, a file or a folder.

    Attributes:
        mask: Id of the token that stands for a hidden one, if there is one.
        special: Ids of special tokens.

    Raises:
        InputError: There is no usable tokenizer.
    """

    def __init__(self, path: Path) -> None:
        file = tokenizer_file(path)
        self._tokenizer = load_tokenizer(file)
        added = self._tokenizer.get_added_tokens_decoder()
        self.special = frozenset(i for i, token in added.items() if token.special)
        named = {**read_optional_json(file.with_name(SPECIAL)), **read_config(file)}
        usual = (t.content for t in added.values() if t.content in ("[MASK]", "<mask>"))
        name = token_of(named.get("mask_token")) or next(usual, None)
        self.mask: int | None = None if name is None else self._tokenizer.token_to_id(name)

    def text(self, token: int) -> str | None:
        """The text of a token, with the space before it; ``None`` if there is no such token."""
        name = self._tokenizer.id_to_token(token) if 0 <= token < 1 << 32 else None
        if name is None:
            return None
        shown = piece_text(self._tokenizer, token)
        begins = name.startswith(_SPACE) and not shown.startswith(" ")
        return f" {shown}" if begins else shown

    def token(self, text: str) -> int:
        """The one token that has this text; a space at its start belongs to it.

        Raises:
            TargetError: The text is no token of the vocabulary, or several are meant.
        """
        alone, after = self._encoded(text), self._encoded(_BEFORE + text)
        before = self._encoded(_BEFORE)
        named = self._tokenizer.token_to_id(text)
        found = [] if named is None else [int(named)]
        found += alone if len(alone) == 1 and not text.startswith(" ") else []
        if text.startswith(" ") and after[: len(before)] == before:
            rest = after[len(before) :]
            found += rest if len(rest) == 1 else []
        distinct = [token for token in dict.fromkeys(found) if token != _UNKNOWN]
        if len(distinct) == 1:
            return distinct[0]
        if distinct:
            names = (f"{self._tokenizer.id_to_token(i)!r} (id {i})" for i in distinct)
            raise TargetError(
                f"The text {text!r} can be the token {' or '.join(names)}",
                hint=f"Name it by its id, as in token:-1:{distinct[0]}; a word after a space is "
                f'written with it: " {text}".',
            )
        if _UNKNOWN in alone:
            raise TargetError(f"The text {text!r} is unknown to the tokenizer, and no token of it")
        pieces = ", ".join(f"{self.text(i)!r} (id {i})" for i in alone)
        raise TargetError(
            f"The text {text!r} is no token of the vocabulary: it is {len(alone)} tokens",
            hint=f"Name one of them: {pieces}.",
        )

    def _encoded(self, text: str) -> list[int]:
        """Ids of the tokens of a text; `_UNKNOWN` for what has none of its own."""
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        with panics_are_errors("cannot be encoded", place=text):
            found = self._tokenizer.encode(text, add_special_tokens=False)
        # Unigram models have the id of unknown words for a piece that keeps its own text.
        unknown = getattr(self._tokenizer.model, "unk_token", None)
        names = ((self._tokenizer.id_to_token(i), i) for i in found.ids)
        return [
            _UNKNOWN if name == unknown or name != piece else i
            for (name, i), piece in zip(names, found.tokens, strict=True)
        ]


def usable_vocabulary(path: Path) -> Vocabulary | None:
    """The vocabulary of the tokenizer at ``path``, if there is one.

    Raises:
        InputError: ``tokenizer.json`` is damaged.
    """
    try:
        return Vocabulary(path)
    except InputError:
        file = tokenizer_file(path)
        if file.name == TOKENIZER and file.is_file():
            raise
        return None
