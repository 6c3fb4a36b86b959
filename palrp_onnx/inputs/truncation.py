"""The largest number of tokens of a model, from the files beside it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

from palrp_onnx.errors import InputError
from palrp_onnx.inputs.reading import read_optional_json
from palrp_onnx.inputs.tokenizer_files import CONFIG, TOKENIZER
from palrp_onnx.inputs.tokens import Tokenizer

Direction = Literal["left", "right"]
Strategy = Literal["longest_first", "only_first", "only_second"]

#: From here on ``model_max_length`` means "not known"; Transformers writes 1e30.
_UNKNOWN_LENGTH = 10**9


#: Models whose positions begin after the padding token, as RoBERTa's do.
_SHIFTED = (
    *("roberta", "roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl", "camembert", "mpnet"),
    *("longformer", "data2vec-text", "ibert", "xmod", "luke", "layoutlmv3", "esm", "bridgetower"),
)


@dataclass(frozen=True)
class Truncation:
    """At most ``limit`` tokens, special ones included. ``source`` is where the limit was found."""

    limit: int
    source: str
    strategy: Strategy = "longest_first"
    direction: Direction = "right"

    def at_most(self, limit: int, source: str) -> Truncation:
        """The rule, also limited by another source."""
        return self if self.limit <= limit else replace(self, limit=limit, source=source)


def find_truncation(tokenizer: Tokenizer, file: Path, config: Path) -> Truncation | None:
    """The smallest limit of all files, or ``None`` if none has one.

    Limits are the truncation section of ``tokenizer.json``, ``model_max_length`` of
    ``tokenizer_config.json``, and ``max_position_embeddings`` or ``n_positions`` of
    ``config.json``. Transformers ignores the first one; where it holds although
    ``model_max_length`` is larger, the source says so.

    Args:
        tokenizer: The tokenizer.
        file: Its file.
        config: ``config.json`` of the model.

    Raises:
        InputError: A file cannot be used.
    """
    path = file.with_name(CONFIG)
    own, facts, model = tokenizer.truncation, read_optional_json(path), read_optional_json(config)
    direction = _direction(facts, path, own)
    limits: list[Truncation] = []
    most = _length(facts, "model_max_length", path)
    if most is not None and most < _UNKNOWN_LENGTH:
        limits.append(Truncation(most, "model_max_length", direction=direction))
    for key in ("max_position_embeddings", "n_positions"):
        rows = _length(model, key, config)
        if rows is not None:
            usable = rows - _position_offset(model, rows)
            limits.append(Truncation(usable, key, direction=direction))
            break
    if own is not None:
        ignored = f" in place of model_max_length {most} of {CONFIG}" if limits and most else ""
        source = f"truncation saved in {TOKENIZER}{ignored}:"
        limits.append(Truncation(int(own["max_length"]), source, own["strategy"], direction))
    return min(limits, key=lambda rule: rule.limit, default=None)


def _direction(config: dict[str, Any], path: Path, own: dict[str, Any] | None) -> Direction:
    side = config.get("truncation_side", own["direction"] if own else "right")
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

    Only ``model_type`` states this. Without it: the length of a table is a power of two; with an
    offset that is added to it (514, 1026, 4098 for the pad id 1).
    """
    pad = config.get("pad_token_id")
    if isinstance(pad, bool) or not isinstance(pad, int) or not 0 < pad < limit - 1:
        return 0
    offset = pad + 1
    if config.get("model_type") in _SHIFTED:
        return offset
    return offset if _is_power_of_two(limit - offset) and not _is_power_of_two(limit) else 0


def _is_power_of_two(number: int) -> bool:
    return number.bit_count() == 1
