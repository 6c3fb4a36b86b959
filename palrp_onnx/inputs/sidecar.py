"""Facts about the output of a model, from the files beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from palrp_onnx.errors import PalrpError
from palrp_onnx.inputs.beside import beside
from palrp_onnx.inputs.labels import read_labels
from palrp_onnx.inputs.reading import read_optional_json
from palrp_onnx.inputs.tokenizer_files import default_tokenizer
from palrp_onnx.inputs.tokens import load_tokenizer

K = TypeVar("K")

REGRESSION, MULTI_LABEL = "regression", "multi_label_classification"
SINGLE_LABEL = "single_label_classification"
#: Transformers leaves out ``id2label`` if it is the default, two classes.
_DEFAULT_CLASSES = 2


@dataclass(frozen=True)
class Declared:
    """Facts of ``config.json`` and ``tokenizer.json``.

    Attributes:
        classes: Number of classes; ``None`` if it is not given.
        problem: ``problem_type``: regression, single_label_classification or
            multi_label_classification.
        vocabulary: ``vocab_size``.
        tokenizer: Path of the tokenizer.
        architecture: The first of ``architectures``, a class of Transformers.
        stored: Whether the labels are those of a classifier in the model, which says nothing of
            probabilities.
    """

    classes: int | None = None
    problem: str | None = None
    vocabulary: int | None = None
    tokenizer: Path | None = None
    architecture: str | None = None
    stored: bool = False

    @cached_property
    def tokens(self) -> int | None:
        """Size of the tokenizer's vocabulary, if there is one that can be read."""
        if self.tokenizer is None:
            return None
        try:
            return int(load_tokenizer(self.tokenizer).get_vocab_size())
        except PalrpError:  # reported where the tokenizer is needed
            return None

    def claim(self, known: Mapping[str, K]) -> K | None:
        """What ``known`` says of the end of the architecture's name; the longest one counts."""
        ends = sorted(known, key=len, reverse=True)
        return next((known[e] for e in ends if (self.architecture or "").endswith(e)), None)

    def is_vocabulary(self, size: int) -> bool:
        """Whether an axis of this length has one entry for each token of the vocabulary."""
        return size == self.vocabulary or size == self.tokens


def read_declared(model_path: Path) -> Declared:
    """Facts of the files that belong to the model; empty if there are none.

    Raises:
        InputError: ``config.json`` is malformed.
    """
    config = read_optional_json(beside(model_path, "config.json"))
    default = _DEFAULT_CLASSES if "model_type" in config and "id2label" not in config else None
    problem, vocabulary = config.get("problem_type"), config.get("vocab_size")
    labels = read_labels(model_path)
    classes = config.get("architectures")
    architecture = classes[0] if isinstance(classes, list) and classes else None
    return Declared(
        classes=len(labels) or default,
        problem=problem if isinstance(problem, str) else None,
        vocabulary=vocabulary if isinstance(vocabulary, int) else None,
        tokenizer=default_tokenizer(model_path),
        architecture=architecture if isinstance(architecture, str) else None,
        stored=bool(labels) and "id2label" not in config,
    )
