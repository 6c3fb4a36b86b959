"""Settings of text generation, from the files that belong to a model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from palrp_onnx.errors import InputError
from palrp_onnx.inputs.beside import beside
from palrp_onnx.inputs.reading import read_optional_json

#: The files; the first that says something counts.
FILES = ("generation_config.json", "config.json")


@dataclass(frozen=True)
class Generation:
    """How a model continues texts.

    Attributes:
        start: Tokens that every text of a decoder with an encoder begins with:
            ``decoder_start_token_id`` and those that are forced after it.
        ends: Tokens that end a text.
        suppressed: Tokens that are never chosen.
        first: Further tokens that are not chosen as the first.
    """

    start: tuple[int, ...] = ()
    ends: frozenset[int] = frozenset()
    suppressed: frozenset[int] = frozenset()
    first: frozenset[int] = frozenset()

    def barred(self, step: int) -> frozenset[int]:
        """Tokens that are not chosen in this step, counted from 0."""
        return self.suppressed | self.first if step == 0 else self.suppressed


def read_generation(owners: Sequence[Path]) -> Generation:
    """The settings of the files that belong to the first owner that has any.

    Args:
        owners: Models or tokenizers.

    Raises:
        InputError: A file is malformed.
    """
    found: dict[str, tuple[Any, Path]] = {}
    for owner in owners:
        for key, value, path in _entries(owner):
            found.setdefault(key, (value, path))

    def ids(key: str) -> list[int]:
        value, path = found.get(key, ([], Path()))
        listed = value if isinstance(value, list) else [value]
        if not all(_is_id(each) for each in listed):
            raise InputError(f"{key} is {value!r}", place=str(path))
        return listed

    words, path = found.get("bad_words_ids", ([], Path()))
    known = isinstance(words, list) and all(isinstance(each, list) for each in words)
    if not known or not all(_is_id(token) for each in words for token in each):
        raise InputError(f"bad_words_ids is {words!r}", place=str(path))
    return Generation(
        start=tuple(_start(ids, found)),
        ends=frozenset(ids("eos_token_id")),
        suppressed=frozenset(ids("suppress_tokens"))
        | {each[0] for each in words if len(each) == 1},
        first=frozenset(ids("begin_suppress_tokens")),
    )


def _start(ids: Any, found: Mapping[str, tuple[Any, Path]]) -> Iterator[int]:
    """The first tokens; what is forced after a token that the model chooses is not among them."""
    first = ids("decoder_start_token_id") or ids("bos_token_id")
    yield from first
    forced = ids("forced_bos_token_id")
    yield from forced
    count = len(first) + len(forced)
    pairs, path = found.get("forced_decoder_ids", ([], Path()))
    for pair in pairs if isinstance(pairs, list) else [[]]:
        known = isinstance(pair, list) and all(each is None or _is_id(each) for each in pair)
        if not known or len(pair) != 2:
            raise InputError(f"forced_decoder_ids is {pairs!r}", place=str(path))
        if pair[0] != count or pair[1] is None:
            return
        yield pair[1]
        count += 1


def _is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _entries(owner: Path) -> Iterator[tuple[str, Any, Path]]:
    """Key, value and file of every setting, the most important first."""
    for name in FILES:
        path = beside(owner, name)
        config = read_optional_json(path)
        nested = config.get("decoder")
        for each in (config, nested if isinstance(nested, dict) else {}):
            yield from ((key, value, path) for key, value in each.items() if value is not None)
