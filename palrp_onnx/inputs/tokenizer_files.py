"""Which file holds a tokenizer, and what the other files of its folder say about it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from palrp_onnx.errors import InputError
from palrp_onnx.inputs.beside import folders_of
from palrp_onnx.inputs.reading import read_optional_json

TOKENIZER, WORDS, PIECES, MERGES = "tokenizer.json", "vocab.txt", "vocab.json", "merges.txt"
CONFIG, SPECIAL, ADDED = "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"
#: All of them, for digests.
NAMES = (TOKENIZER, WORDS, PIECES, MERGES, CONFIG, SPECIAL, ADDED)
#: Files that other libraries read: SentencePiece, tiktoken.
_FOREIGN = (".model", ".spm", ".tiktoken")


def tokenizer_file(path: Path) -> Path:
    """The file of the tokenizer at ``path``, which is a file or a folder; it may not exist."""
    if path.is_dir():
        return next(_in_folder(path), path / TOKENIZER)
    return path.with_name(PIECES) if path.name == MERGES else path


def default_tokenizer(model_path: Path) -> Path:
    """The tokenizer in the model's folder or one folder up.

    It is ``tokenizer.json``, else ``vocab.txt``, else ``vocab.json`` with ``merges.txt``; the
    default place of the first if there is none.
    """
    folders = folders_of(model_path)
    found = (path for folder in folders for path in _in_folder(folder))
    return next(found, folders[0] / TOKENIZER)


def _in_folder(folder: Path) -> Iterator[Path]:
    for name in (TOKENIZER, WORDS, PIECES):
        if (folder / name).is_file() and (name != PIECES or (folder / MERGES).is_file()):
            yield folder / name
    if folder.is_dir():
        yield from sorted(path for path in folder.iterdir() if is_foreign(path))


def is_foreign(path: Path) -> bool:
    """Whether the tokenizers library cannot read the vocabulary in ``path``."""
    return path.suffix in _FOREIGN and path.is_file()


def read_config(tokenizer: Path) -> dict[str, Any]:
    """``tokenizer_config.json`` beside the tokenizer; empty if there is none."""
    return read_optional_json(tokenizer.with_name(CONFIG))


def token_of(value: object) -> str | None:
    """The text of a special token in these files, which is a string or an object."""
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else None


def flag_of(config: dict[str, Any], key: str, place: Path) -> bool | None:
    """The truth value under ``key``; ``None`` where it is absent or null.

    Raises:
        InputError: It is something else.
    """
    value = config.get(key)
    if value is None or isinstance(value, bool):
        return value
    raise InputError(f"{key} is {value!r}, not true or false", place=str(place))
