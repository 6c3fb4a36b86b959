"""The kinds of heads, which records and options name."""

from __future__ import annotations

from typing import Literal, get_args

#: What the explained output says of the input.
HeadKind = Literal[
    "single-label",
    "binary",
    "multi-label",
    "regression",
    "token-classification",
    "masked-lm",
    "causal-lm",
    "question-answering",
    "multiple-choice",
    "segmentation",
    "detection",
    "embedding",
    "numbers",
]
HEADS: tuple[str, ...] = get_args(HeadKind)
