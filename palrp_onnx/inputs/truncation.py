"""The largest number of tokens of a model, from the files in its folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from palrp_onnx.errors import InputError
from palrp_onnx.inputs.reading import read_optional_json
from palrp_onnx.inputs.tokens import Tokenizer

Direction = Literal["left", "right"]
Strategy = Literal["longest_first", "only_first", "only_second"]

#: From here on ``model_max_length`` means "not known"; Transformers writes 1e30.
_UNKNOWN_LENGTH = 10**9


@dataclass(frozen=True)
class Truncation:
    """At most ``limit`` tokens, special ones included. ``source`` is where the limit was found."""

    limit: int
    source: str
    strategy: Strategy = "longest_first"
    direction: Direction = "right"


def find_truncation(tokenizer: Tokenizer, folder: Path) -> Truncation | None:
    """The limit, or ``None`` if no file has one.

    It is the first of: the truncation section of ``tokenizer.json``, ``model_max_length`` of
    ``tokenizer_config.json``, ``max_position_embeddings`` or ``n_positions`` of ``config.json``.

    Raises:
        InputError: A file next to the tokenizer cannot be used.
    """
    own = tokenizer.truncation
    if own is not None:
        return Truncation(
            int(own["max_length"]), "tokenizer.json", own["strategy"], own["direction"]
        )
    path = folder / "tokenizer_config.json"
    config = read_optional_json(path)
    direction = _direction(config, path)
    limit = _length(config, "model_max_length", path)
    if limit is not None and limit < _UNKNOWN_LENGTH:
        return Truncation(limit, "model_max_length", direction=direction)
    path = folder / "config.json"
    config = read_optional_json(path)
    for key in ("max_position_embeddings", "n_positions"):
        limit = _length(config, key, path)
        if limit is not None:
            usable = limit - _position_offset(config, limit)
            return Truncation(usable, key, direction=direction)
    return None


def _direction(config: dict[str, Any], path: Path) -> Direction:
    side = config.get("truncation_side", "right")
    if side not in ("left", "right"):
        raise InputError(f"truncation_side is {side!r}, not left or right", place=str(path))
    return cast(Direction, side)


def _length(config: dict[str, Any], key: str, path: Path) -> int | None:
    value = config.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 1 <= value < 1e300:
        raise InputError(f"{key} is {value!r}, not a number of tokens", place=str(path))
    return int(value)


def _position_offset(config: dict[str, Any], limit: int) -> int:
    """Rows of the position table that no token uses: RoBERTa counts from ``pad_token_id + 1``.

    No key of the file states this. The length of a table is a power of two; with an offset that is
    added to it (514, 1026, 4098 for the pad id 1).
    """
    pad = config.get("pad_token_id")
    if isinstance(pad, bool) or not isinstance(pad, int) or not 0 < pad < limit - 1:
        return 0
    offset = pad + 1
    return offset if _is_power_of_two(limit - offset) and not _is_power_of_two(limit) else 0


def _is_power_of_two(number: int) -> bool:
    return number.bit_count() == 1
