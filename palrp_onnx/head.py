"""Whether entries of the explained output are classes, with labels and probabilities, or numbers.

Classes, labels and probabilities are never guessed. Entries are classes if the graph computes a
softmax or sigmoid of them, if ``config.json`` or a classifier in the model has as many classes, or
if there is an entry for every token of the vocabulary. Hidden states and embeddings are no classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx_ir as ir

from palrp_onnx.analysis.analysis import Analysis
from palrp_onnx.analysis.axes import TOKEN, factors
from palrp_onnx.analysis.inputs import table_of
from palrp_onnx.analysis.probability import LOG_SOFTMAX, SIGMOID, SOFTMAX, ending_of, followed_by
from palrp_onnx.errors import TargetError
from palrp_onnx.inputs.sidecar import MULTI_LABEL, REGRESSION, SINGLE_LABEL, Declared
from palrp_onnx.relevance.target import Resolved, Target
from palrp_onnx.subject import OutputFacts, Subject
from palrp_onnx.types import Array

#: The probability of an entry: its value, its exponential, or the softmax or sigmoid of entries.
Link = Literal["value", "exponential", "softmax", "sigmoid"]
_OWN: dict[str, Link] = {SOFTMAX: "value", SIGMOID: "value", LOG_SOFTMAX: "exponential"}
_TAKEN: dict[str, Link] = {SOFTMAX: "softmax", SIGMOID: "sigmoid", LOG_SOFTMAX: "softmax"}


@dataclass(frozen=True)
class Head:
    """Facts about the last axis of the output.

    Attributes:
        size: Its length.
        classes: Whether its entries are classes, or tokens of the vocabulary.
        vocabulary: Whether its entries are tokens of the vocabulary.
        names: Labels by index, if every entry has one; else empty.
        link: How a probability follows from an entry; ``None``: there is no probability.
    """

    size: int
    classes: bool
    vocabulary: bool
    names: Mapping[int, str]
    link: Link | None

    def probability(self, target: Resolved) -> float | None:
        """Probability of the first entry of the target, in float64; ``None`` if there is none."""
        if self.link is None or not target.where:
            return None
        wide = target.scores.astype(np.float64)
        index = target.where[0][0][-1] if target.where[0][0] else 0
        if self.link == "softmax":
            return _softmax(wide, index)
        number = float(wide[index])
        if self.link == "sigmoid":
            return float(1 / (1 + np.exp(-number))) if number > -700 else 0.0
        return float(np.exp(number)) if self.link == "exponential" else number

    def check(self, target: Target, output: str, labels: Mapping[int, str]) -> None:
        """Check that a target that is a label belongs to this output.

        Raises:
            TargetError: The output's entries do not have these labels.
        """
        if target.labelled and not self.names:
            raise TargetError(
                f"There are labels for {len(labels)} classes, but the last axis of the output has "
                f"{self.size} entries",
                place=f"output {output}",
                hint="Name an entry by its number, as in --target index:0.",
            )


def find_head(
    subject: Subject, shape: tuple[int, ...], declared: Declared, labels: Mapping[int, str]
) -> Head:
    """Facts about an output with this shape, which includes the batch axis."""
    facts, size = subject.facts, shape[-1] if len(shape) > 1 else 1
    if len(shape) > 3 or facts.tokens:
        return Head(size, False, False, {}, _OWN.get(facts.ending or ""))
    names = dict(labels) if set(labels) == set(range(size)) else {}
    declared_classes = bool(names) or (not labels and declared.classes == size)
    if facts.ending is not None:
        return Head(size, True, False, names, _OWN[facts.ending])
    if facts.followed is not None:
        return Head(size, True, False, names, _TAKEN[facts.followed])
    if declared_classes:
        classes = declared.problem != REGRESSION
        link = None if facts.inner or declared.stored else _link(declared.problem, size)
        return Head(size, classes, False, names, link)
    if size > 1 and (size in facts.vocabularies or declared.is_vocabulary(size)):
        return Head(size, True, True, {}, None if facts.inner else "softmax")
    return Head(size, False, False, {}, None)


def _link(problem: str | None, size: int) -> Link | None:
    """By ``problem_type`` of ``config.json``; without it, a single score may be a regression."""
    if problem == REGRESSION:
        return None
    if problem == MULTI_LABEL or (size == 1 and problem == SINGLE_LABEL):
        return "sigmoid"
    return "softmax" if size > 1 else None


def _softmax(scores: Array, index: int) -> float | None:
    """Softmax at ``index``; ``None`` if the scores are already a distribution."""
    if scores.min() >= 0 and abs(scores.sum() - 1) < 1e-4:
        return None
    shifted = np.exp(scores - scores.max())
    return float(shifted[index] / shifted.sum())


def output_facts(analysis: Analysis, output: ir.Value) -> OutputFacts:
    """Facts of the graph about an output, or about a value inside the graph."""
    graph, ending = analysis.model.graph, ending_of(output)
    rank, opset = len(analysis.shapes[output]), analysis.model.graph_opset
    axes = analysis.layouts.layouts.get(output, ())
    tables = {table_of(node) for node in analysis.inputs.lookups}
    rows = {analysis.shapes[v][0] for v in tables if v is not None and analysis.shapes.get(v)}
    return OutputFacts(
        ending=ending.kind if ending else None,
        before=ending.before.name if ending else None,
        followed=None if ending else followed_by(output, graph.outputs, rank, opset),
        inner=output not in graph.outputs,
        tokens=bool(len(axes) > 1 and any(f.flag & TOKEN for f in factors(axes[-1]))),
        vocabularies=tuple(sorted(rows)),
    )


#: Where relevance of a probability goes, by the operation that makes it.
_ABSORBED = {
    SOFTMAX: "its softmax keeps nearly everything of a sure prediction (`softmax` in the ledger)",
    LOG_SOFTMAX: "its softmax keeps much of it (`softmax` in the ledger)",
    SIGMOID: "its sigmoid keeps a constant half (`other` in the ledger)",
}


def probability_warnings(facts: OutputFacts) -> Iterator[tuple[str, str]]:
    """Code and text of the warning for maps of a probability."""
    if facts.ending is not None:
        yield (
            "probability",
            f"the map is of a probability: {_ABSORBED[facts.ending]}; to explain the score before "
            f"it: --output {facts.before}",
        )


def class_warnings(
    head: Head, target: Resolved, output: str, labels: Mapping[int, str]
) -> Iterator[tuple[str, str]]:
    """Code and text of the warning for a predicted entry that is not known to be a class."""
    if not target.predicted or head.classes or head.size < 2:
        return
    known = f" (there are labels for {len(labels)})" if labels and not head.names else ""
    yield (
        "no-classes",
        f"nothing says that the {head.size} entries of output {output} are classes{known}; the "
        "largest was taken. Choose with --target (dot:FILE.npy is a product with a vector), or "
        "name the classes in id2label of config.json",
    )
