"""The kind of head, and whether its entries are classes, with labels and probabilities, or numbers.

The kind is told from the graph, ``config.json`` and the input, and recorded with its reason.

Classes, labels and probabilities are never guessed. Entries are classes if the graph computes a
softmax or sigmoid of them, if ``config.json`` or a classifier in the model has as many classes, or
if there is an entry for every token of the vocabulary. Hidden states and embeddings are no classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Literal, cast

import numpy as np

from palrp_onnx.errors import TargetError, UsageError
from palrp_onnx.heads import HEADS, LOG_SOFTMAX, SIGMOID, SIGMOIDS, SOFTMAX
from palrp_onnx.heads import HeadKind as Kind
from palrp_onnx.inputs.sidecar import MULTI_LABEL, REGRESSION, SINGLE_LABEL, Declared
from palrp_onnx.relevance.target import Resolved, Target
from palrp_onnx.subject import OutputFacts, Subject
from palrp_onnx.types import Array

#: The probability of an entry: its value, its exponential, or the softmax or sigmoid of entries.
Link = Literal["value", "exponential", "softmax", "sigmoid"]
_OWN: dict[str, Link] = {SOFTMAX: "value", SIGMOID: "value", LOG_SOFTMAX: "exponential"}
_TAKEN: dict[str, Link] = {SOFTMAX: "softmax", SIGMOID: "sigmoid", LOG_SOFTMAX: "softmax"}


#: Kinds of outputs [B, D], and of outputs [B, tokens, D]: the caller may name another of a group.
_GROUPS = (
    ("single-label", "multi-label", "binary", "regression", "embedding", "numbers"),
    ("token-classification", "masked-lm", "causal-lm", "embedding", "numbers"),
)
#: Name of the last class of detectors that have one more than labels.
NO_OBJECT = "no object"
_NUMBERS = ("regression", "embedding", "numbers")
#: Ends of names of classes in Transformers, for heads that the graph leaves open.
_ARCHITECTURES: dict[str, Kind] = {
    "ForMaskedLM": "masked-lm",
    "ForPreTraining": "masked-lm",
    "ForCausalLM": "causal-lm",
    "LMHeadModel": "causal-lm",
    "ForConditionalGeneration": "causal-lm",
    "ForCTC": "token-classification",
    "ForQuestionAnswering": "question-answering",
    "ForObjectDetection": "detection",
    "ForSemanticSegmentation": "segmentation",
    "Model": "embedding",
}


@dataclass(frozen=True)
class Head:
    """Facts about the entries of the output.

    Attributes:
        size: The number of entries along the axis of classes.
        classes: Whether its entries are classes, or tokens of the vocabulary.
        vocabulary: Whether its entries are tokens of the vocabulary.
        names: Labels by index, if every entry has one; else empty.
        link: How a probability follows from an entry; ``None``: there is no probability.
        kind: What the output says of the input.
        why: What that follows from.
        axis: The axis of classes, the batch axis not counted; ``None`` where there is none.
    """

    size: int
    classes: bool
    vocabulary: bool
    names: Mapping[int, str]
    link: Link | None
    kind: Kind = "numbers"
    why: str = ""
    axis: int | None = -1

    @property
    def places(self) -> bool:
        """Whether entries are tokens of the input: where an answer starts or ends."""
        return self.kind == "question-answering"

    def probability(self, target: Resolved) -> float | None:
        """Probability of the first entry of the target, in float64; ``None`` if there is none."""
        if self.link is None or not target.where or target.kind == "region":
            return None
        if target.kind == "span":
            return float(np.exp(target.value))
        if target.kind == "answer":  # where it starts, and where it ends
            places = (index % (target.scores.size // 2) for (index,), _ in target.where)
            both = zip(np.split(target.scores.astype(np.float64), 2), places, strict=True)
            return prod(float(_softmax(scores)[k]) for scores, k in both)
        index = target.where[0][0][-1] if target.where[0][0] else 0
        return self.chances(target.scores, [index])[0]

    def chances(self, scores: Array, entries: Sequence[int]) -> list[float | None]:
        """Probabilities of entries beside their neighbours [D]; ``None`` if there are none."""
        if self.link is None:
            return [None] * len(entries)
        wide = scores.astype(np.float64)
        if self.link == "softmax":
            shares = _softmax(wide)
            return [float(shares[k]) for k in entries]
        return [self._chance(float(wide[k])) for k in entries]

    def _chance(self, number: float) -> float:
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


def check_kind(kind: str | None) -> Kind | None:
    """A kind of head by its name.

    Raises:
        UsageError: There is no such kind.
    """
    if kind is not None and kind not in HEADS:
        raise UsageError(f"Unknown head {kind!r}", hint=f"Heads: {', '.join(HEADS)}.")
    return cast("Kind | None", kind)


def find_head(
    subject: Subject,
    shape: tuple[int, ...],
    declared: Declared,
    labels: Mapping[int, str],
    asked: Kind | None = None,
) -> Head:
    """Facts about an output with this shape, which includes the batch axis.

    Args:
        subject: The subject of the explanation.
        shape: The shape of the output.
        declared: Facts of the files beside the model.
        labels: Names of classes.
        asked: The kind that the caller says it is.

    Raises:
        UsageError: An output of this shape cannot be of the kind that was asked for.
    """
    found = _found(subject, shape, declared, labels)
    if asked in (None, found.kind):
        return found
    assert asked is not None
    groups = [group for group in _GROUPS if found.kind in group and asked in group]
    if not groups or (found.vocabulary and asked == "token-classification"):
        raise UsageError(
            f"The head is no {asked}: it is {found.kind}, as {found.why}",
            place=f"output {subject.output}",
            hint="Leave out --head.",
        )
    classes = asked not in _NUMBERS
    ends = found.link in ("value", "exponential") or subject.facts.followed is not None
    link: Link | None = None
    if classes and not subject.facts.blended:
        link = found.link if ends else "sigmoid" if asked in SIGMOIDS else "softmax"
    vocabulary = asked in ("masked-lm", "causal-lm")
    return replace(
        found,
        kind=asked,
        why="the caller says so",
        classes=classes,
        link=link,
        vocabulary=vocabulary,
    )


def _found(
    subject: Subject, shape: tuple[int, ...], declared: Declared, labels: Mapping[int, str]
) -> Head:
    """The head as the graph and the files beside it show it."""
    facts, size = subject.facts, shape[-1] if len(shape) > 1 else 1
    said = declared.claim(_ARCHITECTURES)
    if len(shape) > 3:
        return _dense(subject, shape, said, labels)
    if facts.tokens:
        return _along_units(facts, size, said, labels)
    names = dict(labels) if set(labels) == set(range(size)) else {}
    if names and subject.columns is not None:  # a softmax of them, or a sigmoid: nothing says
        why = f"its columns are the texts of input {subject.columns}"
        return Head(size, True, False, names, None, "single-label", why)
    boxes = facts.boxes is not None and len(shape) == 3 and not facts.sequence
    if boxes and set(labels) == set(range(size - 1)):
        names = {**labels, size - 1: NO_OBJECT}
    vocabulary = not names and (size in facts.vocabularies or declared.is_vocabulary(size))
    declared_classes = bool(names) or (not labels and declared.classes == size)
    known = _OWN.get(facts.ending or "") or _TAKEN.get(facts.followed or "")
    if known or declared_classes:
        classes = bool(known) or declared.problem != REGRESSION
        vocabulary = bool(known) and vocabulary and facts.sequence
        unknown = facts.open or declared.stored
        link = known or (None if unknown else _link(declared.problem, size))
        if boxes and known is None:  # without a class for no object, each has a chance of its own
            link = "softmax" if names.get(size - 1) == NO_OBJECT else "sigmoid"
    elif size > 1 and vocabulary:
        classes, link = True, None if facts.open else "softmax"
    else:
        classes, vocabulary, link = False, False, None
    head = Head(size, classes, vocabulary, names, link)
    kind, why = _kind(
        head, facts, declared, said, tokens=facts.sequence, boxes=boxes, output=subject.output
    )
    return replace(head, kind=kind, why=why)


def _kind(
    head: Head,
    facts: OutputFacts,
    declared: Declared,
    said: Kind | None,
    *,
    tokens: bool,
    boxes: bool,
    output: str,
) -> tuple[Kind, str]:
    """The kind of a head with classes, tokens or numbers along its last axis, and the reason."""
    if head.vocabulary:
        of = "it has an entry for every token of the vocabulary"
        if said in ("masked-lm", "causal-lm", "token-classification"):
            return said, f"{of}, and config.json says {declared.architecture}"
        if facts.causal is False and not facts.vocabularies:
            return "token-classification", f"{of} at each place, and the input has no tokens"
        if facts.causal is False:
            return "masked-lm", f"{of}, and attention looks at later tokens too"
        shown = "attention looks back only" if facts.causal else "nothing shows later tokens"
        return "causal-lm", f"{of}, and {shown}"
    if boxes and facts.boxes == output:
        return "numbers", "it has a box for each place of another output"
    if boxes and head.classes:
        return "detection", f"output {facts.boxes} has a box for each of its places"
    if head.classes and tokens:
        return "token-classification", "it has classes for every token"
    if declared.problem == REGRESSION and not head.classes:
        return "regression", f"problem_type of config.json is {REGRESSION}"
    if head.classes and head.link is not None:
        several = head.link == "sigmoid" or facts.ending == SIGMOID
        kind: Kind = "multi-label" if several else "single-label"
        kind = "binary" if several and head.size == 1 else kind
        return kind, _reason(facts, declared, several)
    if head.size == 1 and not tokens:
        return "regression", "it is one number, and nothing says that it is a probability"
    if head.classes:
        return "single-label", "config.json has a label for each entry"
    if said == "embedding":
        return "embedding", f"config.json says {declared.architecture}, which has no head"
    return "numbers", "nothing says what its entries are"


def _reason(facts: OutputFacts, declared: Declared, several: bool) -> str:
    kind = SIGMOID if several else SOFTMAX
    if facts.ending:
        return f"the output is the result of {facts.ending}"
    if facts.followed:
        return (
            f"the graph computes {facts.followed} of it, and what stands before that is explained"
        )
    if declared.problem:
        return f"problem_type of config.json is {declared.problem}"
    return f"config.json has as many classes, and says nothing else than {kind.lower()}"


def _along_units(
    facts: OutputFacts, size: int, said: Kind | None, labels: Mapping[int, str]
) -> Head:
    """Scores of tokens or of choices: which of them is the answer."""
    own = _OWN.get(facts.ending or "") or _TAKEN.get(facts.followed or "")
    link = own or (None if facts.open else "softmax")
    if facts.choices:
        why = "its last axis runs along the choices of the input"
        names = dict(labels) if set(labels) == set(range(size)) else {}
        return Head(size, True, False, names, link, "multiple-choice", why)
    if facts.ends is not None:
        why = f"{' and '.join(facts.ends)} have a score for every token of the input"
        return Head(size, False, False, {}, link, "question-answering", why)
    if len(facts.siblings) == 1 or said == "question-answering":
        other = f"as {facts.siblings[0]} does" if facts.siblings else "as config.json says"
        why = f"its last axis runs along the tokens of the input, {other}"
        return Head(size, False, False, {}, link, "question-answering", why)
    return Head(size, False, False, {}, own, "numbers", "its last axis runs along tokens")


def _dense(
    subject: Subject, shape: tuple[int, ...], said: Kind | None, labels: Mapping[int, str]
) -> Head:
    """Entries for every place of a picture: [B, classes, H, W], or [B, H, W, classes].

    One number for every place may be a depth or a colour too: it is a class where the graph
    computes a sigmoid of it, or ``config.json`` says so.
    """
    facts = subject.facts
    own = _OWN.get(facts.ending or "")
    one = SIGMOID in (facts.ending, facts.followed) or said == "segmentation"
    for axis in (1, len(shape) - 1):
        if labels and subject.image is not None and set(labels) == set(range(shape[axis])):
            why = f"it has an entry for each of {len(labels)} labels at every place of the picture"
            return Head(shape[axis], True, False, dict(labels), own, "segmentation", why, axis - 1)
    if subject.image is not None and shape[1] == 1 and one:
        why = "it has one number for every place of the picture"
        return Head(1, False, False, {}, own, "segmentation", why, 0)
    return Head(shape[-1], False, False, {}, own, "numbers", "it has several axes", None)


def _link(problem: str | None, size: int) -> Link | None:
    """By ``problem_type`` of ``config.json``; without it, a single score may be a regression."""
    if problem == REGRESSION:
        return None
    if problem == MULTI_LABEL or (size == 1 and problem == SINGLE_LABEL):
        return "sigmoid"
    return "softmax" if size > 1 else None


def _softmax(scores: Array) -> Array:
    shifted = np.exp(scores - scores.max())
    return np.asarray(shifted / shifted.sum())


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
    if not target.predicted or head.classes or head.places or head.size < 2:
        return
    known = f" (there are labels for {len(labels)})" if labels and not head.names else ""
    yield (
        "no-classes",
        f"nothing says that the {head.size} entries of output {output} are classes{known}; the "
        "largest was taken. Choose with --target (similarity:FILE compares with a vector or "
        "another input), or name the classes in id2label of config.json",
    )
