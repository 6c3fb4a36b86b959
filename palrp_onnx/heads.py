"""Kinds of heads: what the explained output says of the input."""

from __future__ import annotations

from typing import Literal, get_args

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
#: Those of which every entry has a probability of its own.
SIGMOIDS: tuple[HeadKind, ...] = ("multi-label", "binary")
HEADS: tuple[str, ...] = get_args(HeadKind)
#: Operations that make probabilities of scores.
SOFTMAX, SIGMOID, LOG_SOFTMAX = "Softmax", "Sigmoid", "LogSoftmax"
