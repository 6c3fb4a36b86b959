"""Facts about the output of a model, from the files in its folder."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from palrp_onnx.errors import PalrpError
from palrp_onnx.inputs.labels import read_labels
from palrp_onnx.inputs.reading import read_optional_json
from palrp_onnx.inputs.tokens import default_tokenizer, load_tokenizer

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
        tokenizer: Path of ``tokenizer.json``.
        stored: Whether the labels are those of a classifier in the model, which says nothing of
            probabilities.
    """

    classes: int | None = None
    problem: str | None = None
    vocabulary: int | None = None
    tokenizer: Path | None = None
    stored: bool = False

    @cached_property
    def tokens(self) -> int | None:
        """Size of the tokenizer's vocabulary, if there is one that can be read."""
        if self.tokenizer is None or not self.tokenizer.is_file():
            return None
        try:
            return int(load_tokenizer(self.tokenizer).get_vocab_size())
        except PalrpError:  # reported where the tokenizer is needed
            return None

    def is_vocabulary(self, size: int) -> bool:
        """Whether an axis of this length has one entry for each token of the vocabulary."""
        return size == self.vocabulary or size == self.tokens


def read_declared(model_path: Path) -> Declared:
    """Facts of the files in the model's folder; empty if there are none.

    Raises:
        InputError: ``config.json`` is malformed.
    """
    config = read_optional_json(model_path.parent / "config.json")
    default = _DEFAULT_CLASSES if "model_type" in config and "id2label" not in config else None
    problem, vocabulary = config.get("problem_type"), config.get("vocab_size")
    labels = read_labels(model_path)
    return Declared(
        classes=len(labels) or default,
        problem=problem if isinstance(problem, str) else None,
        vocabulary=vocabulary if isinstance(vocabulary, int) else None,
        tokenizer=default_tokenizer(model_path),
        stored=bool(labels) and "id2label" not in config,
    )
